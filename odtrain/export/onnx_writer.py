"""A network as ONNX, by tf2onnx: with suppression, or up to what goes into it.

Pictures come in as whole levels at the network's size; normalisation is inside. What the file says of itself
are texts of its metadata: class names, passport, and how it is read (`source.yaml`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
        name: `onnx`, with suppression inside, or `onnx_raw`.
        class_names: index 0 = class id 1.
        passport: the texts that say where the model comes from.

    Raises:
        ConfigError: tf2onnx is not there.
    """
    try:
        import onnx
        import tf2onnx
    except ImportError:
        raise ConfigError(
            "export.formats",
            f"{name} is written by tf2onnx, which is not here.",
            "Install it: pip install 'odtrain[onnx]'",
        ) from None
    height, width = detector.config.size
    signature = [tf.TensorSpec((1, height, width, 3), tf.uint8, IMAGES)]
    body = _detections if name == "onnx" else _raw
    function = tf.function(body(detector), input_signature=signature, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    texts = {
        provenance.LABELS_NODE: provenance.write_labels(class_names),
        provenance.PASSPORT_NODE: provenance.write_passport(passport),
        keys.SETTINGS_FILE: json.dumps(_settings(detector, name)),
        "names": json.dumps(dict(enumerate(class_names)), ensure_ascii=False),
    }
    onnx.helper.set_model_props(model, texts)
    content: bytes = model.SerializeToString()
    return content


Body = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def _detections(detector: SSD) -> Body:
    """Boxes (1, M, 4) yxyx fractions, scores (1, M), classes from 0 (1, M), and count (1,)."""

    def detect(images: tf.Tensor) -> dict[str, tf.Tensor]:
        said = detector.network(detector.normalize(images), training=False)
        boxes, scores, classes, count = detector.postprocess(*said)
        floats = (boxes, scores, tf.cast(classes - 1, tf.float32), tf.cast(count, tf.float32))
        return {key: tf.identity(value, key) for key, value in zip(DETECTIONS, floats, strict=True)}

    return detect


def _raw(detector: SSD) -> Body:
    """Encodings (1, A, 4) and scores (1, A, K)."""

    def compute(images: tf.Tensor) -> dict[str, tf.Tensor]:
        encodings, logits = detector.network(detector.normalize(images), training=False)
        return {
            ENCODINGS: tf.identity(encodings, ENCODINGS),
            SCORES: tf.identity(detector.scores(logits), SCORES),
        }

    return compute


def _settings(detector: SSD, name: str) -> dict[str, Any]:
    """How the file is read, as `source.yaml` has it."""
    config = detector.config
    common = {"scale": 1, "colours": keys.RGB, **RESIZED[config.resize]}
    if name == "onnx":
        return {"head": "detections", **common}
    return {
        "head": "ssd",
        **common,
        "activation": keys.NONE,
        "iou": config.nms_iou,
        "box_scales": list(map(float, config.box_scales)),
        "anchors": [[float(side) for side in row] for row in detector.anchors],
    }
