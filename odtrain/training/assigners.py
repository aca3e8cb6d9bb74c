"""Which anchors learn which object, by rules younger than the reference's.

All of them compare (B, N) objects with (A,) anchors in pixels of the network's input. Each takes at most
a few anchors an object and settles who gets an anchor that several take. An object that would be left
without takes the anchor that overlaps it most, which the papers do not do: an SSD's finest cells can be
larger than an object, so that no anchor has its centre inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from odtrain.models.anchors import Level
from odtrain.models.ssd import centres_and_sides
from odtrain.structures import FloatArray
from odtrain.training.target_assigner import pairwise_iou

ATSS_CELLS = 9
"""Nearest cells of each level that are looked at."""
SIMOTA_RADIUS = 2.5
"""Strides from an object's centre within which a cell's anchors count as central."""
SIMOTA_BOX_WEIGHT = 3.0
SIMOTA_OUTSIDE = 1e5
"""Added to the cost of an anchor that is not both inside the object and central."""
SIMOTA_MOST = 10
"""Overlaps whose sum says how many anchors an object takes, and the most that it takes."""
TAL_SCORE_POWER, TAL_IOU_POWER = 1.0, 6.0
TAL_MOST = 13
"""Anchors that an object takes."""
TINY = 1e-8


class Scene(NamedTuple):
    """What an assigner looks at.

    Attributes:
        anchors: (A, 4) yxyx, pixels.
        levels: of the anchors, in their order.
        boxes: (B, N, 4) labelled objects, yxyx, pixels; N is 1 or more, the last row nobody's.
        classes: (B, N) int32, 1-based.
        present: (B, N) bool, False where a row is padding.
        found: (B, A, 4) what the network says the boxes are, yxyx, pixels, without a gradient.
        logits: (B, A, K) of the classes, without the background's, without a gradient.
    """

    anchors: FloatArray
    levels: tuple[Level, ...]
    boxes: tf.Tensor
    classes: tf.Tensor
    present: tf.Tensor
    found: tf.Tensor
    logits: tf.Tensor


class Assignment(NamedTuple):
    """Who learns what.

    Attributes:
        matches: (B, A) int32, the row of each anchor's object, -1 for none.
        alignment: (B, A) float32, 0-1, how much of its object each anchor shall see; None where the rule
            does not say.
    """

    matches: tf.Tensor
    alignment: tf.Tensor | None = None


def atss(scene: Scene) -> Assignment:
    """Adaptive training sample selection: the IoU from which an anchor counts is each object's own.

    Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training
    Sample Selection" (2020), algorithm 1: of each level the anchors of the 9 cells whose centres are nearest
    to the object's are candidates; those count whose IoU is at least the candidates' mean and standard
    deviation together and whose centre is inside the object; an anchor goes to whom it overlaps most.
    """
    iou = _overlaps(scene)
    near = tf.concat(
        [_nearest(part, level) for part, level in _by_level(_distances(scene), scene.levels)], 2
    )
    count = tf.reduce_sum(tf.cast(near, tf.float32), 2, keepdims=True)
    mean = tf.reduce_sum(tf.where(near, iou, 0.0), 2, keepdims=True) / count
    square = tf.reduce_sum(tf.where(near, tf.square(iou - mean), 0.0), 2, keepdims=True)
    least = mean + tf.sqrt(tf.math.divide_no_nan(square, count - 1.0))
    chosen = near & (iou >= least) & _inside(scene) & scene.present[..., None]
    return Assignment(_owners(chosen, iou, iou, scene.present))


def simota(scene: Scene) -> Assignment:
    """SimOTA: an object takes the anchors that cost the network least to teach it, as many as fit it now.

    Ge et al., "YOLOX: Exceeding YOLO Series in 2021" (2021), section 2.2, with its code's constants. The cost
    is the cross entropy of the classes, three times -log IoU of what the network says, and much more outside
    the centre; k is the sum of the ten best IoUs, rounded down, at least 1; an anchor goes to whom it costs
    least.
    """
    inside, central = _inside(scene), _central(scene)
    allowed = (inside | central) & scene.present[..., None]
    iou = tf.where(allowed, pairwise_iou(scene.boxes, scene.found[:, None]), 0.0)
    cost = _class_cost(scene) - SIMOTA_BOX_WEIGHT * tf.math.log(iou + TINY)
    cost += tf.where(inside & central, 0.0, SIMOTA_OUTSIDE)
    most = min(SIMOTA_MOST, len(scene.anchors))
    wanted = tf.cast(tf.reduce_sum(tf.math.top_k(iou, most).values, 2), tf.int32)
    price = tf.where(allowed, -cost, -float("inf"))
    chosen = _best(price, tf.maximum(wanted, 1), most) & allowed
    return Assignment(_owners(chosen, price, _overlaps(scene), scene.present))


def tal(scene: Scene) -> Assignment:
    """Task-aligned learning: an object takes the anchors in it that both see and place it best.

    Feng et al., "TOOD: Task-aligned One-stage Object Detection" (2021), section 3.2: t = s^1 u^6 of the
    score s of its class and the IoU u of what the network says; the 13 largest count; an anchor goes to whom
    it overlaps most. What it shall see is t scaled so that the object's largest is its largest u.
    """
    scores = tf.gather(tf.sigmoid(scene.logits), scene.classes - 1, axis=2, batch_dims=1)
    scores = tf.transpose(scores, [0, 2, 1])  # (B, N, A)
    iou = pairwise_iou(scene.boxes, scene.found[:, None])
    aligned = scores**TAL_SCORE_POWER * iou**TAL_IOU_POWER
    allowed = _inside(scene) & scene.present[..., None]
    most = min(TAL_MOST, len(scene.anchors))
    price = tf.where(allowed, aligned, -1.0)
    chosen = _best(price, tf.fill(tf.shape(price)[:2], most), most) & allowed & (aligned > 0)
    at_anchors = _overlaps(scene)
    matches = _owners(chosen, iou, at_anchors, scene.present)
    mine = tf.equal(matches[:, None], tf.range(tf.shape(iou)[1])[None, :, None])
    largest = tf.reduce_max(tf.where(mine, aligned, 0.0), 2, keepdims=True)
    reached = tf.reduce_max(tf.where(mine, iou, 0.0), 2, keepdims=True)
    shall = tf.where(mine & chosen, tf.math.divide_no_nan(aligned, largest) * reached, 0.0)
    left = mine & ~chosen  # what it took for want of others is seen as well as the anchor lies
    shall = tf.where(left, tf.maximum(iou, at_anchors), shall)
    return Assignment(matches, tf.reduce_max(shall, 1))


ASSIGNERS: dict[str, Callable[[Scene], Assignment]] = {"atss": atss, "simota": simota, "tal": tal}
"""Those of `train.assigner` besides the reference's, which is `target_assigner.match`."""


def _owners(
    chosen: tf.Tensor, preferred: tf.Tensor, overlaps: tf.Tensor, present: tf.Tensor
) -> tf.Tensor:
    """(B, A) int32 rows of (B, N, A) `chosen`: of several the most `preferred`, ties to the lower row."""
    favour = tf.where(chosen, preferred, -float("inf"))
    first = tf.argmax(favour, axis=1, output_type=tf.int32)
    matches = tf.where(tf.reduce_any(chosen, axis=1), first, -1)
    rows = tf.range(tf.shape(chosen)[1])
    served = tf.reduce_any(tf.equal(matches[:, None], rows[None, :, None]), 2)
    most = tf.one_hot(tf.argmax(overlaps, 2), tf.shape(chosen)[2], on_value=True, off_value=False)
    forced = most & (present & ~served)[..., None]
    owner = tf.argmax(tf.cast(forced, tf.int8), axis=1, output_type=tf.int32)
    return tf.where(tf.reduce_any(forced, axis=1), owner, matches)


def _best(values: tf.Tensor, wanted: tf.Tensor, most: int) -> tf.Tensor:
    """(B, N, A) bool: in each row the `wanted` (B, N) largest, `most` at most; ties to the lower anchor."""
    ranked = tf.math.top_k(values, most).values
    least = tf.gather(ranked, wanted - 1, batch_dims=2)[..., None]
    above, level = values > least, values == least
    room = wanted - tf.reduce_sum(tf.cast(above, tf.int32), 2)
    return above | (level & (tf.cumsum(tf.cast(level, tf.int32), axis=2) <= room[..., None]))


def _nearest(distances: tf.Tensor, level: Level) -> tf.Tensor:
    """(B, N, a) bool: the anchors of the nearest cells of one level."""
    most = min(ATSS_CELLS * level.per_cell, level.anchors)
    return _best(-distances, tf.fill(tf.shape(distances)[:2], most), most)


def _by_level(values: tf.Tensor, levels: tuple[Level, ...]) -> list[tuple[tf.Tensor, Level]]:
    parts = tf.split(values, [level.anchors for level in levels], axis=2)
    return list(zip(parts, levels, strict=True))


def _overlaps(scene: Scene) -> tf.Tensor:
    """(B, N, A) IoU of objects and anchors; -1 of rows that are padding."""
    return tf.where(scene.present[..., None], pairwise_iou(scene.boxes, scene.anchors), -1.0)


def _distances(scene: Scene) -> tf.Tensor:
    """(B, N, A) squared, between the centres of objects and anchors."""
    centres, _ = centres_and_sides(scene.boxes)
    apart = centres[:, :, None] - centres_and_sides(tf.constant(scene.anchors))[0]
    return tf.reduce_sum(tf.square(apart), -1)


def _inside(scene: Scene) -> tf.Tensor:
    """(B, N, A) whether an anchor's centre lies inside an object."""
    centres, _ = centres_and_sides(tf.constant(scene.anchors))
    boxes = scene.boxes[:, :, None]
    return tf.reduce_all((centres > boxes[..., :2]) & (centres < boxes[..., 2:]), -1)


def _central(scene: Scene) -> tf.Tensor:
    """(B, N, A) whether an anchor's centre lies within some strides of an object's."""
    strides = tf.concat([tf.tile([level.stride], [level.anchors, 1]) for level in scene.levels], 0)
    centres, _ = centres_and_sides(scene.boxes)
    apart = tf.abs(centres[:, :, None] - centres_and_sides(tf.constant(scene.anchors))[0])
    return tf.reduce_all(apart < SIMOTA_RADIUS * strides, -1)


def _class_cost(scene: Scene) -> tf.Tensor:
    """(B, N, A) cross entropy, summed over classes, were each anchor to see each object."""
    said = tf.gather(scene.logits, scene.classes - 1, axis=2, batch_dims=1)  # (B, A, N)
    nothing = tf.reduce_sum(tf.math.softplus(scene.logits), 2)
    return nothing[:, None] - tf.transpose(said, [0, 2, 1])
