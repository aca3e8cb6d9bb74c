"""What the network should have said: each anchor is given an object, or the background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.models.ssd import BOX_SCALES, centres_and_sides
from odtrain.structures import FloatArray

EPSILON = 1e-8
"""The reference's `EPSILON`: added to sides before dividing by them, only in encoding."""


class Targets(NamedTuple):
    """What a batch of B pictures asks of A anchors.

    Attributes:
        class_targets: (B, A, K + 1) float32, one-hot, background first. Anchors without an object
            have the background's 1, or only zeros where the model encodes the background as zeros.
        box_targets: (B, A, 4) float32 encodings y, x, height, width; 0 without an object.
        positive: (B, A) bool, whether the anchor has an object.
        matches: (B, A) int32, the row of its object in the ground truth, -1 without.
    """

    class_targets: tf.Tensor
    box_targets: tf.Tensor
    positive: tf.Tensor
    matches: tf.Tensor


def assign(
    anchors: FloatArray,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    counts: tf.Tensor,
    num_classes: int,
    config: ModelConfig,
) -> Targets:
    """Give every anchor of every picture its target.

    Args:
        anchors: (A, 4) yxyx.
        boxes: (B, N, 4) yxyx, padded with anything behind each picture's count.
        classes: (B, N) integers, 1-based, padded likewise.
        counts: (B,) integers, objects in each picture, 0 to N.
        num_classes: K, without the background.
        config: the IoU from which an anchor has an object, and how the background is encoded.
    """
    matches = match(anchors, boxes, counts, config.matched_iou)
    return targets_of(matches, anchors, boxes, classes, num_classes, config)


def targets_of(
    matches: tf.Tensor,
    anchors: FloatArray,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    num_classes: int,
    config: ModelConfig,
) -> Targets:
    """The targets of anchors whose objects are known; arguments as `assign` and `Targets` have them."""
    positive = matches >= 0
    rows = tf.maximum(matches, 0)
    boxes, classes = never_empty(boxes), never_empty(classes)
    labels = tf.where(positive, tf.gather(tf.cast(classes, tf.int32), rows, batch_dims=1), 0)
    class_targets = tf.one_hot(labels, num_classes + 1)
    if config.encode_background_as_zeros:
        class_targets *= tf.cast(positive, tf.float32)[..., None]
    encodings = encode_boxes(tf.gather(boxes, rows, batch_dims=1), anchors, config.box_scales)
    box_targets = tf.where(positive[..., None], encodings, 0.0)
    return Targets(class_targets, box_targets, positive, matches)


def match(
    anchors: FloatArray, boxes: tf.Tensor, counts: tf.Tensor, matched_iou: float
) -> tf.Tensor:
    """The row of each anchor's object, (B, A) int32, -1 for none.

    An anchor takes the object that it overlaps most, if that is at least `matched_iou`; besides,
    each object takes the anchor that overlaps it most, whatever the overlap. Ties go to the lower
    index.
    """
    boxes = never_empty(boxes)
    present = tf.sequence_mask(counts, tf.shape(boxes)[1])[..., None]  # (B, N, 1)
    iou = tf.where(present, pairwise_iou(boxes, anchors), -1.0)  # (B, N, A)
    best = tf.argmax(iou, axis=1, output_type=tf.int32)
    best = tf.where(tf.reduce_max(iou, axis=1) >= matched_iou, best, -1)
    favourites = tf.one_hot(tf.argmax(iou, axis=2), len(anchors), on_value=True, off_value=False)
    forced = favourites & present  # (B, N, A)
    owner = tf.argmax(tf.cast(forced, tf.int8), axis=1, output_type=tf.int32)
    return tf.where(tf.reduce_any(forced, axis=1), owner, best)


def pairwise_iou(boxes: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """(B, N, M) IoU of (B, N, 4) with (M, 4) or (B, 1, M, 4) boxes, yxyx; 0 where they do not touch."""
    first = tf.unstack(tf.convert_to_tensor(boxes)[..., None, :], axis=-1)  # 4 x (B, N, 1)
    second = tf.unstack(tf.convert_to_tensor(others), axis=-1)  # 4 x (M,)
    height = tf.minimum(first[2], second[2]) - tf.maximum(first[0], second[0])
    width = tf.minimum(first[3], second[3]) - tf.maximum(first[1], second[1])
    overlap = tf.nn.relu(height) * tf.nn.relu(width)
    return tf.math.divide_no_nan(overlap, _area(first) + _area(second) - overlap)


def encode_boxes(
    boxes: tf.Tensor, anchors: tf.Tensor, scales: Sequence[float] = BOX_SCALES
) -> tf.Tensor:
    """(..., A, 4) encodings (y, x, height, width) of (..., A, 4) boxes relative to (A, 4) anchors.

    The reference's `faster_rcnn_box_coder`: offsets of the centre in units of the anchor's sides,
    logarithms of the sides' ratios, times `scales`.
    """
    centres, sides = centres_and_sides(boxes)
    anchor_centres, anchor_sides = centres_and_sides(tf.convert_to_tensor(anchors))
    anchor_sides += EPSILON
    offsets = (centres - anchor_centres) / anchor_sides
    growth = tf.math.log((sides + EPSILON) / anchor_sides)
    return tf.concat([offsets, growth], axis=-1) * tuple(scales)


def _area(box: list[tf.Tensor]) -> tf.Tensor:
    return (box[2] - box[0]) * (box[3] - box[1])


def never_empty(padded: tf.Tensor) -> tf.Tensor:
    """`padded`, (B, N, ...), with one row of zeros more, so that there is a row to look up."""
    return tf.pad(padded, [[0, 0], [0, 1]] + [[0, 0]] * (len(padded.shape) - 2))
