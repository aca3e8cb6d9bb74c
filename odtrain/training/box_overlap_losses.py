"""Losses of whole boxes by how they overlap, which the codes of a box are not asked for one by one."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import NamedTuple

import tensorflow as tf

from odtrain.models.ssd import centres_and_sides

MOST_GROWTH = log(1000 / 16)
"""By how much a predicted side may outgrow its anchor's, as a logarithm, before it counts as no more:
Detectron's bound, so that first steps do not overflow."""


class Overlap(NamedTuple):
    """Pairs of boxes, (...,) each.

    Attributes:
        iou: 0-1.
        union: area that either covers.
        hull: height and width of the smallest box around both, (..., 2).
    """

    iou: tf.Tensor
    union: tf.Tensor
    hull: tf.Tensor


def overlap(boxes: tf.Tensor, others: tf.Tensor) -> Overlap:
    """Each of (..., 4) yxyx boxes with the other one at its place, in any unit that both share."""
    sides = tf.minimum(boxes[..., 2:], others[..., 2:]) - tf.maximum(
        boxes[..., :2], others[..., :2]
    )
    both = tf.reduce_prod(tf.nn.relu(sides), axis=-1)
    union = _area(boxes) + _area(others) - both
    hull = tf.maximum(boxes[..., 2:], others[..., 2:]) - tf.minimum(boxes[..., :2], others[..., :2])
    return Overlap(tf.math.divide_no_nan(both, union), union, hull)


def giou_loss(boxes: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """1 - IoU + (C - U) / C, 0-2, of (..., 4) boxes; C is the area of the box around both, U of either.

    Rezatofighi et al., "Generalized Intersection over Union" (2019), algorithm 1.
    """
    pair = overlap(boxes, wanted)
    around = tf.reduce_prod(pair.hull, axis=-1)
    return 1.0 - pair.iou + tf.math.divide_no_nan(around - pair.union, around)


def diou_loss(boxes: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """1 - IoU + d^2 / c^2, 0-2, of (..., 4) boxes: d lies between their centres, c is the hull's diagonal.

    Zheng et al., "Distance-IoU Loss" (2020), equation 7.
    """
    pair = overlap(boxes, wanted)
    apart = centres_and_sides(boxes)[0] - centres_and_sides(wanted)[0]
    distance = tf.math.divide_no_nan(_squares(apart), _squares(pair.hull))
    return 1.0 - pair.iou + distance


def ciou_loss(boxes: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """`diou_loss` + a v, where v = 4 / pi^2 (atan w'/h' - atan w/h)^2 and a = v / (1 - IoU + v).

    Zheng et al., "Distance-IoU Loss" (2020), equations 8 to 11; no gradient passes `a`.
    """
    iou = overlap(boxes, wanted).iou
    shapes = [tf.math.atan2(side[..., 1], side[..., 0]) for side in map(_sides, (boxes, wanted))]
    unlike = 4 / pi**2 * tf.square(shapes[0] - shapes[1])
    weight = tf.stop_gradient(tf.math.divide_no_nan(unlike, 1.0 - iou + unlike))
    return diou_loss(boxes, wanted) + weight * unlike


OVERLAP_LOSSES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
}
"""Those of `train.box_loss` that look at boxes in pixels: (..., 4) predicted, (..., 4) labelled."""


def within_reach(encodings: tf.Tensor, scales: tuple[float, ...]) -> tf.Tensor:
    """(..., 4) encodings y, x, height, width with sides that decode to finite numbers."""
    most = tf.constant([float("inf")] * 2 + [MOST_GROWTH * scale for scale in scales[2:]])
    return tf.minimum(encodings, most)


def _sides(boxes: tf.Tensor) -> tf.Tensor:
    return boxes[..., 2:] - boxes[..., :2]


def _area(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(_sides(boxes), axis=-1)


def _squares(vectors: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(vectors), axis=-1)
