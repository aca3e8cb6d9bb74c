"""Suppression in a .tflite: the operators that bring raw boxes and scores to detections.

`builtin` is made of operators that every TensorFlow Lite interpreter has, and gives the same on any
number of threads. `regular` and `fast` are the detection operator of the TF1 exporter, whose `regular`
kind loses a class with several threads (tensorflow#56058).
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from odtrain.export.raw_outputs import ENCODINGS, SCORES
from odtrain.models.ssd import SCORE_THRESHOLD, SSD, centres_and_sides, decode_boxes, have_area
from odtrain_runtime.tflite_metadata import POSTPROCESS, RAW_BOXES, RAW_SCORES, ROLES

BUILTIN = "builtin"
OPERATOR = {"regular": True, "fast": False}
"""Kinds of the detection operator: whether it suppresses class by class, or over all at once."""
KINDS = (BUILTIN, *OPERATOR)
COSTS = {
    "regular": "loses a class with 2 threads or more (tensorflow#56058), so that no such .tflite is registered",
    "fast": "lets an object hide one of another class, which costs mAP where they overlap",
}
"""What each kind of the operator does to files of several classes."""
CANDIDATES = 1000
"""Pairs of anchor and class, best first, that suppression looks at; the table in docs/design.md says
what fewer cost. RetinaNet's paper (Lin et al. 2017) keeps as many of each level."""
OUTSIDE = 0.5
"""Boxes are compared as far as they reach out of the picture by this fraction of it."""


class BuiltinSuppression(tf.Module):  # type: ignore[misc]
    """A function of (1, A, 4) encodings and (1, A, K) scores.

    It gives detections, (A, 4) boxes and (A * K,) scores: tensors between two operators, since a delegate
    keeps to itself what lies inside its part.
    """

    def __init__(self, detector: SSD) -> None:
        super().__init__(name="suppression")
        anchors, classes = len(detector.anchors), detector.num_classes
        # The detector is no attribute of a module that is converted: all of it would be saved first.
        self.suppress = tf.function(
            lambda encodings, scores: _suppress(detector, encodings, scores),
            input_signature=[
                tf.TensorSpec((1, anchors, 4), tf.float32, ENCODINGS),
                tf.TensorSpec((1, anchors, classes), tf.float32, SCORES),
            ],
            autograph=False,
        )


def _suppress(detector: SSD, encodings: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
    config, classes = detector.config, detector.num_classes
    raw = decode_boxes(encodings[0], detector.anchors, config.box_scales)
    flat = tf.reshape(scores, [-1])
    best, pair = tf.math.top_k(flat, min(CANDIDATES, len(detector.anchors) * classes))
    anchor, category = (pair // classes, pair % classes) if classes > 1 else (pair, pair * 0)
    boxes = tf.gather(raw, anchor)
    kept, number = tf.raw_ops.NonMaxSuppressionV4(
        boxes=_apart(boxes, category, classes),
        scores=best * _inside(boxes),
        max_output_size=config.max_detections,
        iou_threshold=config.nms_iou,
        score_threshold=SCORE_THRESHOLD,
        pad_to_max_output_size=True,
    )
    rows = tf.range(config.max_detections)
    found = tf.cast(rows < number, tf.float32)
    values = (
        tf.gather(boxes, kept) * found[:, None],
        tf.cast(tf.gather(category, kept), tf.float32) * found,
        tf.gather(best, kept) * found,
    )
    detections = dict(zip(ROLES, (each[None] for each in values), strict=False))
    detections[ROLES[-1]] = tf.reshape(tf.cast(number, tf.float32), [1])
    return {**detections, RAW_BOXES: raw, RAW_SCORES: flat}


def _inside(boxes: tf.Tensor) -> tf.Tensor:
    """(N,) 1 for boxes with an area in the picture, else 0, as `SSD.postprocess` drops the others."""
    return tf.cast(have_area(tf.clip_by_value(boxes, 0.0, 1.0)), tf.float32)


def _apart(boxes: tf.Tensor, category: tf.Tensor, classes: int) -> tf.Tensor:
    """Boxes moved to a square of their class, so that those of two classes never overlap.

    The squares form a grid: with 90 classes in a row, coordinates of 180 would leave a box's sides
    but five digits.
    """
    columns = math.ceil(math.sqrt(classes))
    place = tf.stack([category // columns, category % columns] * 2, axis=1)
    reach = tf.clip_by_value(boxes, -OUTSIDE, 1 + OUTSIDE)
    return reach + (1 + 2 * OUTSIDE + 1) * tf.cast(place, tf.float32)


class OperatorSuppression(tf.Module):  # type: ignore[misc]
    """The detection operator as a function of (1, A, 4) encodings and (1, A, K + 1) scores."""

    def __init__(self, detector: SSD, per_class: bool) -> None:
        super().__init__(name="suppression")
        centres, sides = centres_and_sides(tf.constant(detector.anchors))
        self.anchors = tf.concat([centres, sides], axis=-1).numpy()
        self.operator = _placeholder(detector, per_class)

    def __call__(self, encodings: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Boxes, classes, scores and count, as the operator gives them."""
        found: tuple[tf.Tensor, ...] = self.operator(encodings, scores, tf.constant(self.anchors))
        return found


def _placeholder(detector: SSD, per_class: bool) -> Any:
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
