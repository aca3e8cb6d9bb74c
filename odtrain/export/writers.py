"""A trained detector as files: a frozen graph, a SavedModel and four kinds of .tflite."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2_as_graph,
)
from tqdm import tqdm

from odtrain.errors import ConfigError, choose
from odtrain.export_formats import FORMATS
from odtrain.labels.label_map import label_map_text
from odtrain.model_files.tflite_metadata import with_metadata
from odtrain.models.build import build_detector
from odtrain.models.ssd import SCORE_THRESHOLD, SSD, centres_and_sides
from odtrain.structures import UInt8Image
from odtrain.system import timing_lock as turns
from odtrain_runtime import provenance, resizing
from odtrain_runtime.native_stderr import STDERR, stderr_into
from odtrain_runtime.tflite_metadata import POSTPROCESS, ROLES

LABEL_MAP_FILE = "label_map.pbtxt"
NMS = {"regular": True, "fast": False}
"""Suppression in a .tflite: per class, as the checkpoint does it, or over all classes at once."""
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
        calibration: clean training pictures of any size, read for `tflite_int8` only.
        nms: a name in `NMS`, for .tflite files.
        passport: where the model comes from; each file holds it, with its format and input size.

    Returns:
        The file or folder of each format.

    Raises:
        ConfigError: an unknown format or suppression, or no pictures to calibrate with.
    """
    for name in formats:
        choose("export.formats", name, list(FORMATS))
    choose("export.nms", nms, list(NMS))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / provenance.LABELS_FILE).write_text(provenance.write_labels(class_names), "utf-8")
    (folder / LABEL_MAP_FILE).write_text(label_map_text(tuple(class_names)), "utf-8")
    source = _Source(inference_copy(detector), class_names, calibration, nms, passport)
    written = {}
    for name in turns.giving_way(tqdm(formats, desc="export", unit="file", disable=None)):
        written[name] = folder / FORMATS[name].file
        with _told_only_of_failures():
            WRITERS[name](source, name, written[name])
    return written


@contextmanager
def _told_only_of_failures() -> Iterator[None]:
    """What TensorFlow prints past Python's `sys.stderr` is shown where an export fails, else dropped."""
    with tempfile.TemporaryFile() as said:
        try:
            with stderr_into(said):
                yield
        except Exception:
            said.seek(0)
            os.write(STDERR, said.read())
            raise


def inference_copy(detector: SSD) -> SSD:
    """The same network and weights in float32, whatever precision it was trained in."""
    copy = build_detector(detector.config, detector.num_classes)
    values = detector.variables_by_name()
    for name, variable in copy.variables_by_name().items():
        variable.assign(values[name])
    return copy


@dataclass(frozen=True, eq=False)
class _Source:
    """What the writers share; a network is traced once for each kind of file."""

    detector: SSD
    class_names: Sequence[str]
    calibration: Iterable[UInt8Image]
    nms: str
    passport: Mapping[str, str]

    def passport_of(self, name: str) -> dict[str, str]:
        size = provenance.write_size(*self.detector.config.size)
        padded = self.detector.config.resize == resizing.PAD
        resize = {provenance.RESIZE: resizing.PAD} if padded else {}
        return {**self.passport, "format": name, "input_size": size, **resize}

    @cached_property
    def lite(self) -> tuple[tf.Module, Any]:
        module = _Lite(self.detector, NMS[self.nms])
        return module, module.detect.get_concrete_function()


# ---- frozen graph


def _write_frozen_graph(source: _Source, name: str, path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, "image_tensor")])  # type: ignore[untyped-decorator]
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
            lambda inputs: _detect(detector, inputs), input_signature=[PICTURES]
        )

    @tf.function(input_signature=[PICTURES])  # type: ignore[untyped-decorator]
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


class _Lite(tf.Module):  # type: ignore[misc]
    """The network for one normalised picture, with LiteRT's own post-processing operator."""

    def __init__(self, detector: SSD, per_class: bool) -> None:
        super().__init__(name="odtrain")
        self.weights = list(detector.variables_by_name().values())
        postprocess = _postprocess(detector, per_class)
        centres, sides = centres_and_sides(tf.constant(detector.anchors))
        anchors = tf.concat([centres, sides], axis=-1).numpy()

        def detect(images: tf.Tensor) -> tuple[tf.Tensor, ...]:
            encodings, logits = detector.network(images, training=False)
            found: tuple[tf.Tensor, ...] = postprocess(
                encodings, tf.sigmoid(logits), tf.constant(anchors)
            )
            return found

        signature = [tf.TensorSpec((1, *detector.config.size, 3), tf.float32, "images")]
        self.detect = tf.function(detect, input_signature=signature)


def _postprocess(detector: SSD, per_class: bool) -> Any:
    """A function that the converter replaces by its operator; the body never runs."""

    @tf.function(experimental_implements=_operator(detector, per_class))  # type: ignore[untyped-decorator]
    def postprocess(
        encodings: tf.Tensor, scores: tf.Tensor, anchors: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        return tuple(tf.constant(0.0) for _ in ROLES)

    return postprocess


def _operator(detector: SSD, per_class: bool) -> str:
    limit = detector.config.max_detections
    y, x, height, width = map(float, detector.config.box_scales)
    attributes: dict[str, int | float | bool] = {
        "max_detections": limit,
        "max_classes_per_detection": 1,
        "detections_per_class": limit,
        "use_regular_nms": per_class,
        "nms_score_threshold": SCORE_THRESHOLD,
        "nms_iou_threshold": detector.config.nms_iou,
        "y_scale": y,
        "x_scale": x,
        "h_scale": height,
        "w_scale": width,
        "num_classes": detector.num_classes,
    }
    listed = " ".join(_attribute(key, value) for key, value in attributes.items())
    return f'name: "{POSTPROCESS}" {listed}'


def _attribute(key: str, value: int | float | bool) -> str:
    field = "b" if isinstance(value, bool) else "i" if isinstance(value, int) else "f"
    text = str(value).lower() if field == "b" else value
    return f'attr {{ key: "{key}" value {{ {field}: {text} }} }}'


def _write_lite(source: _Source, name: str, path: Path) -> None:
    module, function = source.lite
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.allow_custom_ops = True
    LITE_SETTINGS[name](converter, source)
    content = converter.convert()
    passport = source.passport_of(name)
    path.write_bytes(with_metadata(content, source.class_names, passport))


def _keep_float(converter: Any, source: _Source) -> None:
    """Float32 throughout is the converter's default."""


def _halve_weights(converter: Any, source: _Source) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _quantize_weights(converter: Any, source: _Source) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _quantize_all(converter: Any, source: _Source) -> None:
    """uint8 pictures in, float32 detections out: as uint8, class ids would be rounded."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    converter.representative_dataset = lambda: _calibration(source)


def _calibration(source: _Source) -> Iterator[list[tf.Tensor]]:
    detector, empty = source.detector, True
    for image in turns.giving_way(source.calibration):
        empty = False
        yield [detector.normalize(detector.resize(image))[None]]
    if empty:
        raise ConfigError(
            "export.formats",
            "tflite_int8 is calibrated with training pictures, and there are none.",
            "Leave tflite_int8 out, or give the dataset training pictures.",
        )


Writer = Callable[[_Source, str, Path], None]

LITE_SETTINGS: dict[str, Callable[[Any, _Source], None]] = {
    "tflite_fp32": _keep_float,
    "tflite_fp16": _halve_weights,
    "tflite_dynamic": _quantize_weights,
    "tflite_int8": _quantize_all,
}

WRITERS: dict[str, Writer] = {
    "pb": _write_frozen_graph,
    "saved_model": _write_saved_model,
    "tflite_fp32": _write_lite,
    "tflite_fp16": _write_lite,
    "tflite_dynamic": _write_lite,
    "tflite_int8": _write_lite,
}
