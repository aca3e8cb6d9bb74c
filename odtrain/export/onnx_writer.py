"""A network as ONNX, by tf2onnx: with suppression, or up to what goes into it.

Pictures come in as whole levels at the network's size; normalisation is inside. What the file says of itself
are texts of its metadata: class names, passport, and how it is read (`source.yaml`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from odtrain.errors import ConfigError
from odtrain.export.raw_outputs import ENCODINGS, SCORES
from odtrain.models.ssd import SSD
from odtrain_runtime import provenance, resizing
from odtrain_runtime.others import reading as keys

OPSET = 17
"""Of 2022: what ONNX Runtime runs from 1.13 on."""
IMAGES = "images"
DETECTIONS = ("boxes", "scores", "classes", "count")
RAW = ("raw_encodings", "raw_logits")
RESIZED: dict[str, dict[str, Any]] = {
    resizing.STRETCH: {"resize": keys.STRETCH, "interpolation": keys.TF1},
    **{
        how: {"resize": keys.CORNER, "interpolation": keys.BILINEAR, "fill": [*map(round, colour)]}
        for how, colour in resizing.FILLS.items()
    },
}
"""How pictures are brought to the network's size -> the same in whole levels."""


def onnx_content(
    detector: SSD, name: str, class_names: Sequence[str], passport: Mapping[str, str]
) -> bytes:
    """The file of a format, complete.

    Args:
        detector: in float32.
        name: a key of `BODIES`.
        class_names: index 0 = class id 1.
        passport: the texts that say where the model comes from.

    Raises:
        ConfigError: tf2onnx is not there.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError:
        raise not_here(f"{name} is written by tf2onnx", "onnx") from None
    height, width = detector.config.size
    signature = [tf.TensorSpec((1, height, width, 3), tf.uint8, IMAGES)]
    function = tf.function(BODIES[name](detector), input_signature=signature, autograph=False)
    model, _ = tf2onnx.convert.from_function(
        function,
        input_signature=signature,
        opset=OPSET,
        custom_op_handlers=HANDLERS,
    )
    texts = {
        provenance.LABELS_NODE: provenance.write_labels(class_names),
        provenance.PASSPORT_NODE: provenance.write_passport(passport),
        keys.SETTINGS_FILE: json.dumps(reading_of(detector, name)),
        "names": json.dumps(dict(enumerate(class_names)), ensure_ascii=False),
    }
    onnx.helper.set_model_props(model, texts)
    content: bytes = model.SerializeToString()
    return content


def not_here(what: str, extra: str) -> ConfigError:
    """The error of a format whose writer is not installed."""
    return ConfigError(
        "export.formats",
        f"{what}, which is not here.",
        f"Install it: pip install 'odtrain[{extra}]'",
    )


def _enlarged(context: Any, node: Any, name: str, given: Any) -> None:
    """A map of repeated cells by the size that it shall have, not by a factor.

    By tf2onnx's own factors, in float32, 3 cells become 4 instead of 5. Maps are (B, H, W, C).
    """
    batch, height, width, channels = context.get_shape(node.output[0])
    nothing = context.make_const(f"{name}/none", np.array([], np.float32)).output[0]
    sides = np.array([batch, channels, height, width], np.int64)
    sizes = context.make_const(f"{name}/sizes", sides).output[0]
    image, shapes, types = node.input[0], node.output_shapes, node.output_dtypes
    context.remove_node(name)
    turned = context.make_node("Transpose", [image], {"perm": [0, 3, 1, 2]})
    how = {
        "mode": "nearest",
        "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric",
    }
    larger = context.make_node("Resize", [*turned.output, nothing, nothing, sizes], how)
    context.make_node(
        "Transpose",
        larger.output,
        {"perm": [0, 2, 3, 1]},
        name=name,
        outputs=node.output,
        shapes=shapes,
        dtypes=types,
    )


def _added(context: Any, node: Any, name: str, given: Any) -> None:
    """A sum whose constant has an axis: past one without, tf2onnx moves no transposes, and keeps them all."""
    node.type = "Add"
    if not context.get_shape(node.output[0]):
        return
    for place, term in enumerate(node.inputs):
        value = term.get_tensor_value(as_list=False) if term.is_const() else None
        if value is not None and value.ndim == 0:
            constant = context.make_const(f"{name}/term_{place}", value.reshape(1))
            context.replace_input(node, node.input[place], constant.output[0], place)


HANDLERS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "AddV2": (_added, []),
    "ResizeNearestNeighbor": (_enlarged, []),
}
"""TensorFlow's operator -> how it is written instead of tf2onnx's own way."""

Body = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def _detections(detector: SSD) -> Body:
    """Boxes (1, M, 4) yxyx fractions, scores (1, M), classes from 0 (1, M), and count (1,)."""
    finish = _finished(detector)

    def detect(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return finish(*detector.network(detector.normalize(images), training=False))

    return detect


def _finished(detector: SSD) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    def finish(encodings: tf.Tensor, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        boxes, scores, classes, count = detector.postprocess(encodings, logits)
        floats = (boxes, scores, tf.cast(classes - 1, tf.float32), tf.cast(count, tf.float32))
        return {key: tf.identity(value, key) for key, value in zip(DETECTIONS, floats, strict=True)}

    return finish


def _raw(detector: SSD) -> Body:
    """Encodings (1, A, 4) and scores (1, A, K)."""

    def compute(images: tf.Tensor) -> dict[str, tf.Tensor]:
        encodings, logits = detector.network(detector.normalize(images), training=False)
        return {
            ENCODINGS: tf.identity(encodings, ENCODINGS),
            SCORES: tf.identity(detector.scores(logits), SCORES),
        }

    return compute


def _detections_and_raw(detector: SSD) -> Body:
    """As `_detections`, and what comes out of the network: what is before them may be quantized."""
    finish = _finished(detector)

    def detect(images: tf.Tensor) -> dict[str, tf.Tensor]:
        said = detector.network(detector.normalize(images), training=False)
        raw = {key: tf.identity(value, key) for key, value in zip(RAW, said, strict=True)}
        return {**finish(*said), **raw}

    return detect


BODIES: dict[str, Callable[[SSD], Body]] = {
    "onnx": _detections,
    "onnx_raw": _raw,
    "openvino_fp32": _detections,
    "openvino_int8": _detections_and_raw,
}
"""Format -> what its graph computes; of OpenVINO's the graph that they are made of."""


def reading_of(detector: SSD, name: str) -> dict[str, Any]:
    """How the file of a format is read, as `source.yaml` has it."""
    config = detector.config
    common = {"scale": 1, "colours": keys.RGB, **RESIZED[config.resize]}
    if name != "onnx_raw":
        return {"head": "detections", **common}
    return {
        "head": "ssd",
        **common,
        "activation": keys.NONE,
        "iou": config.nms_iou,
        "box_scales": list(map(float, config.box_scales)),
        "anchors": [[float(side) for side in row] for row in detector.anchors],
    }
