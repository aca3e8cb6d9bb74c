"""What goes into suppression in an exported file: every anchor's box and scores.

Suppression decides between near-equal scores, so that two networks which agree to the sixth digit can
give other detections. Before it they can be held against each other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odtrain.export_formats import FORMATS
from odtrain.structures import FloatArray, UInt8Image
from odtrain.system.progress import doing
from odtrain_runtime.detector import FileDetector
from odtrain_runtime.model_files import kind_of, load_detector
from odtrain_runtime.others.heads import decode_encodings
from odtrain_runtime.others.openvino_check import xml_of
from odtrain_runtime.others.openvino_file import import_openvino, settings
from odtrain_runtime.tflite_metadata import RAW_BOXES, RAW_SCORES, Postprocess, read_metadata

if TYPE_CHECKING:
    from odtrain.models.ssd import SSD

RAW_PICTURES = 8
"""Looked at of a split: all anchors of a picture are some megabytes."""
ENCODINGS, SCORES = "encodings", "scores"
"""Outputs of a network without suppression."""
ONNX_SUPPRESSION = "NonMaxSuppression"
"""ONNX's operator, and OpenVINO's."""
OF_WHOLE_LEVELS = (".onnx", ".xml")
SUPPRESSION = "CombinedNonMaxSuppression"
"""TensorFlow's operator, in a frozen graph and in a SavedModel."""


class RawOutputs(NamedTuple):
    """What a network says of one picture.

    Attributes:
        boxes: (A, 4) yxyx, fractions of the picture, not clipped to it.
        scores: (A, K), 0 to 1, without the background.
    """

    boxes: FloatArray
    scores: FloatArray


class RawDifference(NamedTuple):
    """How far what goes into suppression lies from what goes into the checkpoint's.

    Attributes:
        box: largest difference of a coordinate, as a fraction of the picture; of coordinates above 1,
            as a fraction of themselves.
        score: largest difference of a score.
    """

    box: float
    score: float


OTHERS = RawDifference(float("inf"), float("inf"))
"""Of a file that has other anchors or classes than the checkpoint, or does not say where they are."""


@doing("Running the checkpoint beside its files")
def raw_of(detector: SSD, images: Sequence[UInt8Image]) -> list[RawOutputs]:
    """What goes into a checkpoint's suppression, for the first `RAW_PICTURES` of `images`."""
    first = range(min(len(images), RAW_PICTURES))
    return [RawOutputs(*detector.before_suppression(images[i])) for i in first]


def raw_difference(reference: Sequence[RawOutputs], found: Sequence[RawOutputs]) -> RawDifference:
    """Compare picture by picture, anchor by anchor; other anchors or classes are `OTHERS`."""
    if _shapes(reference) != _shapes(found):
        return OTHERS
    pairs = list(zip(reference, found, strict=True))
    return RawDifference(
        max((_box_difference(a.boxes, b.boxes) for a, b in pairs), default=0.0),
        max((float(np.abs(a.scores - b.scores).max(initial=0)) for a, b in pairs), default=0.0),
    )


def _shapes(outputs: Sequence[RawOutputs]) -> list[tuple[tuple[int, ...], ...]]:
    return [(each.boxes.shape, each.scores.shape) for each in outputs]


def _box_difference(a: FloatArray, b: FloatArray) -> float:
    away = np.abs(a - b) / np.maximum(np.abs(a), 1)
    return float(away.max(initial=0))


def raw_reader(detector: FileDetector) -> Callable[[UInt8Image], RawOutputs] | None:
    """A function that runs the file on a picture and reads what goes into suppression.

    None where a stranger's file does not say where that is.
    """
    if detector.reading is not None and detector.passport.get("format") not in FORMATS:
        return None
    kind = kind_of(detector.path)
    tensors = TENSORS.get(str(kind), _graph_tensors)
    read = tensors(detector)
    if read is None:
        return None

    whole = kind in OF_WHOLE_LEVELS  # see `raw_beside`

    def run(picture: UInt8Image) -> RawOutputs:
        boxes, scores = read(detector.prepare(picture))
        return RawOutputs(boxes if whole else boxes / detector.extent(picture), scores)

    return run


Read = Callable[[NDArray[Any]], tuple[FloatArray, FloatArray]]
"""From what a file takes to (A, 4) boxes as fractions of its input and (A, K) scores."""


def raw_beside(
    detector: SSD, images: Sequence[UInt8Image]
) -> Callable[[Path], Sequence[RawOutputs]]:
    """Of a file, what goes into its checkpoint's suppression for what that file sees of the first pictures.

    Once for all files that see the pictures themselves. An .onnx and an OpenVINO model take whole levels
    at the input's size: their checkpoint is given just those.
    """

    @cache
    def of_pictures() -> Sequence[RawOutputs]:
        return raw_of(detector, images)

    def beside(file: Path) -> Sequence[RawOutputs]:
        if kind_of(file) not in OF_WHOLE_LEVELS:
            return of_pictures()
        first, opened = range(min(len(images), RAW_PICTURES)), load_detector(file)
        seen = [np.ascontiguousarray(opened.prepare(images[i])[0]) for i in first]
        return raw_of(detector, seen)

    return beside


def _onnx_tensors(detector: FileDetector) -> Read | None:
    import onnx
    import onnxruntime

    how, model = detector.reading, onnx.load(str(detector.path))
    assert how is not None  # of every .onnx
    suppressing = [node for node in model.graph.node if node.op_type == ONNX_SUPPRESSION]
    ends = list(suppressing[0].input[:2]) if len(suppressing) == 1 else []
    for name in ends:
        model.graph.output.add(name=name)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (image,) = session.get_inputs()

    def read(batch: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        if ends:
            boxes, scores = session.run(ends, {image.name: batch})
            return boxes[0], scores[0].T
        encodings, scores = session.run([ENCODINGS, SCORES], {image.name: batch})
        return decode_encodings(encodings[0], how.anchor_array(), how.box_scales), scores[0]

    return read


def _openvino_tensors(detector: FileDetector) -> Read | None:
    core = import_openvino().Core()
    model = core.read_model(xml_of(detector.path))
    suppressing = [each for each in model.get_ops() if each.get_type_name() == ONNX_SUPPRESSION]
    if len(suppressing) != 1:
        return None
    model.add_outputs([suppressing[0].input_value(number) for number in (0, 1)])
    request = core.compile_model(model, "CPU", settings(threads=1)).create_infer_request()

    def read(batch: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        *_, boxes, scores = request.infer({0: batch}).values()
        return np.array(boxes[0]), np.array(scores[0].T)

    return read


def _lite_tensors(detector: FileDetector) -> Read | None:
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that this takes more memory
        interpreter = Interpreter(str(detector.path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    named = {each["name"]: each["index"] for each in interpreter.get_tensor_details()}
    operator = read_metadata(detector.path).postprocess
    if operator is None and not {RAW_BOXES, RAW_SCORES} <= set(named):
        return None

    def read(tensor: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        interpreter.set_tensor(image["index"], tensor)
        interpreter.invoke()
        if operator is not None:
            return _before(operator, *map(interpreter.get_tensor, operator.inputs))
        boxes, scores = (interpreter.get_tensor(named[each]) for each in (RAW_BOXES, RAW_SCORES))
        return boxes, scores.reshape(len(boxes), -1)

    return read


TENSORS = {".tflite": _lite_tensors, ".onnx": _onnx_tensors, ".xml": _openvino_tensors}
"""By `kind_of`; of TensorFlow's files `_graph_tensors`."""


def _before(
    operator: Postprocess, encodings: FloatArray, scores: FloatArray, anchors: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What the detection operator makes of its inputs before it suppresses; anchors are yxhw."""
    scaled = encodings[0] / np.asarray(operator.scales, np.float32)
    centres = scaled[:, :2] * anchors[:, 2:] + anchors[:, :2]
    half_sides = np.exp(scaled[:, 2:]) * anchors[:, 2:] / 2
    boxes = np.concatenate([centres - half_sides, centres + half_sides], axis=1)
    return boxes, scores[0, :, -operator.num_classes :]


def _graph_tensors(detector: FileDetector) -> Read | None:
    import tensorflow as tf

    graph = tf.Graph()
    definition, image = _definition(detector)
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    operators = [each for each in graph.get_operations() if each.type == SUPPRESSION]
    if len(operators) != 1:
        return None
    session = tf.compat.v1.Session(graph=graph)
    run = session.make_callable(list(operators[0].inputs[:2]), feed_list=[image])

    def read(batch: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        boxes, scores = run(batch)
        return boxes[0, :, 0], scores[0]

    return read


def _definition(detector: FileDetector) -> tuple[Any, str]:
    """The graph of a file with all functions inlined, and the name of its input."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2_as_graph,
    )

    from odtrain_runtime.tf_graph import GRAPH_INPUT, SIGNATURE

    if detector.path.is_file():
        definition = tf.compat.v1.GraphDef.FromString(detector.path.read_bytes())
        return definition, f"{GRAPH_INPUT}:0"
    model = tf.saved_model.load(str(detector.path))
    frozen, definition = convert_variables_to_constants_v2_as_graph(
        model.signatures[SIGNATURE], lower_control_flow=True
    )
    return definition, frozen.inputs[0].name
