"""Frozen graphs and SavedModels as detectors: this project's, and those of the TF1 and TF2 zoos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from odtrain_runtime import provenance
from odtrain_runtime.detector import DETECTORS_ONLY, FileDetector, Raw, cannot_run
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.graph_operators import check_graph, check_saved_model, node_of
from odtrain_runtime.others.raw_model import RawModel, picture_input
from odtrain_runtime.structures import UInt8Image
from odtrain_runtime.tflite_metadata import BOXES, CLASSES, COUNT, LARGEST_TEXT, SCORES

GRAPH_OUTPUTS = {
    BOXES: "detection_boxes",
    CLASSES: "detection_classes",
    SCORES: "detection_scores",
    COUNT: "num_detections",
}
"""Names in frozen graphs and SavedModels (the Object Detection API's exporter)."""
GRAPH_INPUT = "image_tensor"
PREDICTOR_BIASES = "BoxPredictor_0/{}Predictor/biases"
SIGNATURE = "serving_default"
SIGNATURE_INPUTS = ("inputs", "input_tensor")
SAVED_MODEL_FILE = "saved_model.pb"
NO_ENDS = ("Const", "Placeholder", "NoOp", "Assert")
"""Operators of a graph that are none of its outputs though nothing takes what they give."""
TEXT_NODES = (provenance.LABELS_NODE, provenance.PASSPORT_NODE)


def open_frozen_graph(path: Path, threads: int, trusted: bool = False) -> FileDetector | RawModel:
    """A frozen graph with the classic tensor names, as TF1's exporter and ours write it; else a raw model.

    Raises:
        ModelFileError: it is none, or may do more than compute and is not `trusted`.
    """
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    try:
        graph_def.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, of whichever implementation
        cannot_run(path, error)
    nodes = {node.name: node for node in graph_def.node}
    check_graph(path, graph_def, trusted)
    if not {GRAPH_INPUT, *GRAPH_OUTPUTS.values()} <= set(nodes):
        return _raw_graph(path, graph_def, threads)
    texts = {name: _const_text(nodes[name]) for name in TEXT_NODES if name in nodes}
    detect = _session_run(path, graph_def, threads)
    dimensions = nodes[GRAPH_INPUT].attr["shape"].shape.dim
    passport = provenance.read_passport(texts.get(provenance.PASSPORT_NODE, ""))
    return FileDetector(
        path=path,
        format="pb",
        prepare=_as_batch,
        run=lambda batch: _first_of_batch(detect(batch)),
        run_batch=_each_of(detect) if dimensions and dimensions[0].size == -1 else None,
        threads=threads,
        class_names=provenance.read_labels(texts.get(provenance.LABELS_NODE, "")),
        num_classes=_num_classes(nodes),
        input_size=provenance.read_size(passport) or _resize_target(graph_def.node),
        passport=passport,
    )


def _raw_graph(path: Path, graph_def: Any, threads: int) -> RawModel:
    """A frozen graph of one placeholder, whose outputs are what nothing in it takes.

    Raises:
        ModelFileError: it takes no single picture.
    """
    import tensorflow as tf

    images = [node for node in graph_def.node if node.op == "Placeholder"]
    if len(images) != 1:
        names = ", ".join(node.name for node in images) or "nothing"
        problem = f"no object detector: the graph takes {names}, not one picture."
        raise ModelFileError(path, problem, DETECTORS_ONLY)
    (image,) = images
    used = {node_of(name) for node in graph_def.node for name in node.input}
    ends = [
        node.name for node in graph_def.node if node.name not in used and node.op not in NO_ENDS
    ]
    dims = [dim.size if dim.size > 0 else None for dim in image.attr["shape"].shape.dim]
    dtype = tf.dtypes.as_dtype(image.attr["dtype"].type).as_numpy_dtype
    run = _session_callable(path, graph_def, threads, image.name, ends)
    return RawModel(
        path=path,
        format="pb",
        takes=picture_input(path, tuple(dims), dtype),
        compute=lambda batch: dict(zip(ends, run(batch), strict=True)),
        threads=threads,
    )


def _num_classes(nodes: Mapping[str, Any]) -> int | None:
    """Of TensorFlow 1's SSDs, by the biases of their first predictor: a class more is the background."""
    scores, boxes = (nodes.get(PREDICTOR_BIASES.format(kind)) for kind in ("Class", "BoxEncoding"))
    if scores is None or boxes is None or {scores.op, boxes.op} != {"Const"}:
        return None
    sizes = [each.attr["value"].tensor.tensor_shape.dim[0].size for each in (scores, boxes)]
    return int(sizes[0]) * 4 // int(sizes[1]) - 1


def _const_text(node: Any) -> str:
    return bytes(node.attr["value"].tensor.string_val[0]).decode("utf-8")


def _session_run(path: Path, graph_def: Any, threads: int) -> Callable[[NDArray[Any]], Raw]:
    """The graph as a function of a batch; every output has the batch as its first axis."""
    detect = _session_callable(path, graph_def, threads, GRAPH_INPUT, list(GRAPH_OUTPUTS.values()))
    return lambda batch: dict(zip(GRAPH_OUTPUTS, detect(batch), strict=True))


def _session_callable(
    path: Path, graph_def: Any, threads: int, image: str, ends: Sequence[str]
) -> Callable[[NDArray[Any]], Sequence[Any]]:
    """A function from what the node `image` takes to the first output of each of the nodes `ends`."""
    import tensorflow as tf

    tf.config.list_logical_devices("CPU")  # the process's thread pool is made by its own settings
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except Exception as error:
        cannot_run(path, error)
    session = tf.compat.v1.Session(graph=graph, config=_own_threads(threads))
    outputs = [f"{name}:0" for name in ends]
    detect: Callable[[NDArray[Any]], Sequence[Any]] = session.make_callable(
        outputs, feed_list=[f"{image}:0"]
    )
    return detect


def _own_threads(threads: int) -> Any:
    import tensorflow as tf

    return tf.compat.v1.ConfigProto(
        inter_op_parallelism_threads=threads, use_per_session_threads=True
    )


def open_saved_model(path: Path, threads: int, trusted: bool = False) -> FileDetector | RawModel:
    """A SavedModel with the Object Detection API's signature, of TF1 or TF2; else a raw model.

    Raises:
        ModelFileError: it is none, or may do more than compute and is not `trusted`.
    """
    import tensorflow as tf

    try:
        check_saved_model(path / SAVED_MODEL_FILE, trusted)
        model = tf.saved_model.load(str(path))
        detect = model.signatures[SIGNATURE]
    except ModelFileError:
        raise
    except Exception as error:
        cannot_run(path, error)
    name = _known_input(detect)
    if name is None:
        return _raw_signature(path, model, detect, threads)
    run = _signature_run(model, detect, name)
    passport = provenance.read_passport(_asset(path, provenance.PASSPORT_FILE))
    return FileDetector(
        path=path,
        format="saved_model",
        prepare=_as_batch,
        run=lambda batch: _first_of_batch(run(batch)),
        run_batch=_each_of(run) if detect.inputs[0].shape[0] is None else None,
        threads=threads,
        class_names=provenance.read_labels(_asset(path, provenance.LABELS_FILE)),
        input_size=provenance.read_size(passport)
        or _resize_target(detect.graph.as_graph_def().node),
        passport=passport,
    )


def _known_input(detect: Any) -> str | None:
    """The input of the Object Detection API's signature; None where it is another one."""
    inputs = detect.structured_input_signature[1]
    known = [name for name in SIGNATURE_INPUTS if name in inputs and inputs[name].dtype == "uint8"]
    whole = set(GRAPH_OUTPUTS.values()) <= set(detect.structured_outputs)
    return known[0] if whole and known else None


def _raw_signature(path: Path, model: Any, detect: Any, threads: int) -> RawModel:
    """A SavedModel whose signature takes one picture and gives anything.

    Raises:
        ModelFileError: it takes something else.
    """
    import tensorflow as tf

    inputs = detect.structured_input_signature[1]
    if len(inputs) != 1:
        names = ", ".join(inputs) or "nothing"
        problem = f"no object detector: its signature {SIGNATURE} takes {names}, not one picture."
        raise ModelFileError(path, problem, DETECTORS_ONLY)
    ((name, image),) = inputs.items()

    def compute(batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {key: value.numpy() for key, value in detect(**{name: tf.constant(batch)}).items()}

    compute.model = model  # type: ignore[attr-defined]  # its variables live as long as it does
    return RawModel(
        path=path,
        format="saved_model",
        takes=picture_input(path, tuple(image.shape.as_list()), image.dtype.as_numpy_dtype),
        compute=compute,
        threads=threads,
    )


def _signature_run(model: Any, detect: Any, name: str) -> Callable[[NDArray[Any]], Raw]:
    import tensorflow as tf

    def run(batch: NDArray[Any]) -> Raw:
        found = detect(**{name: tf.constant(batch)})
        return {role: found[key].numpy() for role, key in GRAPH_OUTPUTS.items()}

    run.model = model  # type: ignore[attr-defined]  # its variables live as long as it does
    return run


def _asset(path: Path, name: str) -> str:
    file = path / "assets" / name
    fits = file.is_file() and file.stat().st_size <= LARGEST_TEXT
    return file.read_text(encoding="utf-8") if fits else ""


def _as_batch(image: UInt8Image) -> NDArray[Any]:
    return image[None]


def _first_of_batch(outputs: Raw) -> Raw:
    return {role: value[0] for role, value in outputs.items()}


def _each_of(run: Callable[[NDArray[Any]], Raw]) -> Callable[[NDArray[Any]], list[Raw]]:
    """`run` of a batch, its outputs picture by picture."""

    def run_batch(batch: NDArray[Any]) -> list[Raw]:
        outputs = run(batch)
        return [{role: value[i] for role, value in outputs.items()} for i in range(len(batch))]

    return run_batch


def _resize_target(nodes: Sequence[Any]) -> tuple[int, int] | None:
    """(height, width) that the graph's first bilinear resize has as a constant."""
    import tensorflow as tf

    constants = {node.name: node for node in nodes if node.op == "Const"}
    resizes = [node.input[1] for node in nodes if node.op == "ResizeBilinear"]
    if not resizes or resizes[0] not in constants:
        return None
    height, width = tf.make_ndarray(constants[resizes[0]].attr["value"].tensor)
    return int(height), int(width)
