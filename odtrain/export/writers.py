"""A trained detector as files: a frozen graph, a SavedModel, .tflite, .onnx and OpenVINO models."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2_as_graph,
)

from odtrain.errors import choose
from odtrain.export.lite import LiteWriter, told_only_of_failures
from odtrain.export.onnx_writer import onnx_content
from odtrain.export.openvino_writer import write_openvino
from odtrain.export.suppression import BUILTIN, COSTS, KINDS
from odtrain.export_formats import FORMATS
from odtrain.labels.label_map import label_map_text
from odtrain.models.build import plain_copy
from odtrain.models.layers import FoldedBatchNorm
from odtrain.models.ssd import SSD
from odtrain.structures import UInt8Image
from odtrain.system import timing_lock as turns
from odtrain.system.progress import Bar
from odtrain_runtime import provenance, resizing

logger = logging.getLogger(__name__)

LABEL_MAP_FILE = "label_map.pbtxt"
PICTURES = tf.TensorSpec((None, None, None, 3), tf.uint8, "inputs")
"""Of a SavedModel."""


def export(
    detector: SSD,
    class_names: Sequence[str],
    formats: Sequence[str],
    folder: Path,
    calibration: Iterable[UInt8Image],
    nms: str,
    passport: Mapping[str, str],
) -> dict[str, Path]:
    """Write `detector` to `folder` in each of `formats`, with `label_map.pbtxt` and `labels.txt`.

    Args:
        detector: whatever precision it was trained in; files hold float32 or less.
        class_names: index 0 = class id 1.
        formats: names in `export_formats.FORMATS`.
        folder: made if it is missing; files of an earlier export are replaced.
        calibration: clean training pictures of any size, read for `tflite_int8` and `openvino_int8` only.
        nms: one of `suppression.KINDS`, for .tflite files.
        passport: where the model comes from; each file holds it, with its format and input size.

    Returns:
        The file or folder of each format.

    Raises:
        ConfigError: an unknown format or suppression, or no pictures to calibrate with.
    """
    for name in formats:
        choose("export.formats", name, list(FORMATS))
    choose("export.nms", nms, list(KINDS))
    if nms in COSTS and len(class_names) > 1 and any(FORMATS[name].lite for name in formats):
        logger.warning(f"export.nms={nms} {COSTS[nms]}. export.nms={BUILTIN} does not.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / provenance.LABELS_FILE).write_text(provenance.write_labels(class_names), "utf-8")
    (folder / LABEL_MAP_FILE).write_text(label_map_text(tuple(class_names)), "utf-8")
    source = _Source(as_exported(detector), class_names, calibration, nms, passport)
    written = {}
    for name in turns.giving_way(Bar(formats, doing="export", unit="file")):
        written[name] = folder / FORMATS[name].file
        with told_only_of_failures():
            WRITERS[name](source, name, written[name])
    return written


def as_exported(detector: SSD) -> SSD:
    """The detector; a plain copy where it computes in less than float32, has folded batch norm or replicas."""
    layers = list(detector.network._flatten_layers())
    folded = (isinstance(layer, FoldedBatchNorm) for layer in layers)
    shared = isinstance(detector.network.variables[0], tf.distribute.DistributedValues)
    if shared or any(layer.compute_dtype == "bfloat16" for layer in layers) or any(folded):
        return plain_copy(detector)
    return detector


@dataclass(frozen=True, eq=False)
class _Source:
    """What the writers share; a network is traced once for each kind of file."""

    detector: SSD
    class_names: Sequence[str]
    calibration: Iterable[UInt8Image]
    nms: str
    passport: Mapping[str, str]

    def passport_of(self, name: str) -> dict[str, str]:
        return passport_of(self.detector, name, self.passport)

    @cached_property
    def lite(self) -> LiteWriter:
        return LiteWriter(self.detector, self.calibration, self.nms)


def passport_of(detector: SSD, name: str, passport: Mapping[str, str]) -> dict[str, str]:
    """The passport of the file of a format."""
    size, how = provenance.write_size(*detector.config.size), detector.config.resize
    resize = {provenance.RESIZE: how} if how in resizing.FILLS else {}
    return {**passport, "format": name, "input_size": size, **resize}


# ---- frozen graph


def _write_frozen_graph(source: _Source, name: str, path: Path) -> None:
    image_tensor = tf.TensorSpec((None, None, None, 3), tf.uint8, "image_tensor")

    @tf.function(input_signature=[image_tensor], autograph=False)  # type: ignore[untyped-decorator]
    def detect(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = _detect(source.detector, images)
        return {key: tf.identity(value, name=key) for key, value in found.items()}

    _, graph = convert_variables_to_constants_v2_as_graph(
        detect.get_concrete_function(), lower_control_flow=True
    )
    graph = _without_defaults(graph)
    _add_text(graph, provenance.LABELS_NODE, provenance.write_labels(source.class_names))
    _add_text(graph, provenance.PASSPORT_NODE, provenance.write_passport(source.passport_of(name)))
    path.write_bytes(graph.SerializeToString())


def _without_defaults(graph: Any) -> Any:
    """Without attributes at their default: TensorFlow 1 does not know the newer ones of them."""
    return tf.compat.v1.train.export_meta_graph(
        graph_def=graph, graph=tf.Graph(), strip_default_attrs=True
    ).graph_def


def _add_text(graph: Any, name: str, text: str) -> None:
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.string.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(text))


def _detect(detector: SSD, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """The Object Detection API's four outputs, all float32, classes 1-based."""
    boxes, scores, classes, number = detector.detect_batch(images)
    return {
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": tf.cast(classes, tf.float32),
        "num_detections": tf.cast(number, tf.float32),
    }


# ---- SavedModel


class _Serving(tf.Module):  # type: ignore[misc]
    """What is saved: the signature's function, the variables it reads, and the texts as assets."""

    def __init__(self, detector: SSD, texts: Path) -> None:
        super().__init__(name="odtrain")
        self.weights = list(detector.variables_by_name().values())
        self.assets = [tf.saved_model.Asset(str(file)) for file in sorted(texts.iterdir())]
        self.detect = tf.function(
            lambda inputs: _detect(detector, inputs), input_signature=[PICTURES], autograph=False
        )

    @tf.function(input_signature=[PICTURES], autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        found: dict[str, tf.Tensor] = self.detect(images)
        return found


def _write_saved_model(source: _Source, name: str, path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder)
        labels = provenance.write_labels(source.class_names)
        (texts / provenance.LABELS_FILE).write_text(labels, "utf-8")
        passport = provenance.write_passport(source.passport_of(name))
        (texts / provenance.PASSPORT_FILE).write_text(passport, "utf-8")
        module = _Serving(source.detector, texts)
        tf.saved_model.save(module, str(path), signatures=module.detect.get_concrete_function())


# ---- .tflite


def _write_lite(source: _Source, name: str, path: Path) -> None:
    path.write_bytes(source.lite.content(name, source.class_names, source.passport_of(name)))


# ---- .onnx


def _write_onnx(source: _Source, name: str, path: Path) -> None:
    path.write_bytes(
        onnx_content(source.detector, name, source.class_names, source.passport_of(name))
    )


# ---- OpenVINO


def _write_openvino(source: _Source, name: str, path: Path) -> None:
    passport = source.passport_of(name)
    write_openvino(source.detector, name, source.class_names, passport, source.calibration, path)


Writer = Callable[[_Source, str, Path], None]

WRITERS: dict[str, Writer] = {
    "pb": _write_frozen_graph,
    "saved_model": _write_saved_model,
    "tflite_fp32": _write_lite,
    "tflite_fp16": _write_lite,
    "tflite_dynamic": _write_lite,
    "tflite_int8": _write_lite,
    "onnx": _write_onnx,
    "onnx_raw": _write_onnx,
    "openvino_fp32": _write_openvino,
    "openvino_int8": _write_openvino,
}
