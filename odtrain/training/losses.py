"""How far the network is from its targets: the references' losses, and hard-example mining."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.errors import ConfigError, choose
from odtrain.models.replicas import summed
from odtrain.models.ssd import SSD, decode_boxes
from odtrain.training.assigners import ASSIGNERS, Scene
from odtrain.training.box_overlap_losses import OVERLAP_LOSSES, overlap, within_reach
from odtrain.training.efficientdet_loss import efficientdet_sums
from odtrain.training.elementwise_losses import focal_cross_entropy, huber
from odtrain.training.hard_mining import mine, mine_in_blocks
from odtrain.training.loss_parts import AS_PUBLISHED, Sums, Way
from odtrain.training.quality_losses import QUALITY_LOSSES, smoothed
from odtrain.training.retinanet_loss import retinanet_sums
from odtrain.training.target_assigner import Targets, assign, never_empty, targets_of


class Losses(NamedTuple):
    """A batch's losses.

    Attributes:
        localization: scalar.
        classification: scalar.
        kept: (B, A) bool, the anchors that were counted.
    """

    localization: tf.Tensor
    classification: tf.Tensor
    kept: tf.Tensor


class Asked(NamedTuple):
    """What the anchors of a batch shall say.

    Attributes:
        targets: as the reference has them.
        boxes: (B, A, 4) yxyx, pixels, each anchor's object; anything where it has none.
        alignment: (B, A) 0-1, as `Assignment` has it, or None.
    """

    targets: Targets
    boxes: tf.Tensor
    alignment: tf.Tensor | None


def training_loss(
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    kind: str,
    way: Way = AS_PUBLISHED,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The losses of boxes and of classes of a batch, weighted, scalars.

    Where replicas share a batch, they are divided by the anchors with objects of all: theirs add up to its.
    Arguments and errors are those of `loss_sums`.
    """
    sums = loss_sums(detector, batch, encodings, logits, kind, way)
    divisor = divisor_of(kind, summed(sums.positives))
    return sums.localization / divisor, sums.classification / divisor


def loss_sums(
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    kind: str,
    way: Way,
) -> Sums:
    """The losses of a batch, or of a share of one, before they are divided.

    Args:
        detector: whose network said what follows.
        batch: `boxes`, `classes` and `counts`, as `inputs.Batch` has them.
        encodings: (B, A, 4).
        logits: (B, A, K + 1); (B, A, K) of a network without a background.
        kind: a value of `train.loss`.
        way: how it departs from what `kind` names.

    Raises:
        ConfigError: an unknown `kind`, or one that is not for this detector.
    """
    compute = TRAINING_LOSSES[choose("train.loss", kind, list(TRAINING_LOSSES))]
    return compute(detector, batch, encodings, logits, way)


def divisor_of(kind: str, positives: tf.Tensor) -> tf.Tensor:
    """What the sums are divided by, given a whole batch's anchors with objects: these, and no less than 1.

    Model Garden and automl add 1 instead.
    """
    return positives + 1.0 if kind in PLUS_ONE else tf.maximum(positives, 1.0)


def _of_tf1(
    kind: str,
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    way: Way,
) -> Sums:
    if not detector.background:
        raise ConfigError(
            f"train.loss={kind}",
            f"{detector.config.name} has no background, which this loss needs.",
            "Give train.loss=efficientdet.",
        )
    asked = _asked(detector, batch, encodings, logits, way)
    boxes = tf.stop_gradient(detector.decode(encodings))
    compute = (LOSS_KINDS | COMPILED if way.jit else LOSS_KINDS)[kind]
    sums, kept = compute(asked.targets, encodings, logits, boxes, detector.config)
    if way.box_loss == "huber":
        return sums
    losses = _overlap_losses(detector, asked, encodings, way)
    losses = tf.where(asked.targets.positive & kept, losses, 0.0)
    return sums._replace(localization=way.overlap_weight * tf.reduce_sum(losses))


def _of_quality(
    kind: str,
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    way: Way,
) -> Sums:
    """The background's column, where there is one, is not asked for anything.

    An assigner that says how much of its object an anchor shall see weighs the boxes by it too, and what
    all anchors shall see is what the sums are divided by, as TOOD (2021) has it.
    """
    config = detector.config
    asked = _asked(detector, batch, encodings, logits, way)
    positive = asked.targets.positive
    quality = asked.alignment
    if quality is None:
        quality = overlap(_pixels(detector, encodings), asked.boxes).iou
    quality = tf.stop_gradient(tf.where(positive, quality, 0.0))
    targets = asked.targets.class_targets[..., 1:] * quality[..., None]
    classes = QUALITY_LOSSES[kind](targets, logits[..., detector.background :])
    if way.box_loss == "huber":
        boxes = config.localization_weight * _box_losses(asked.targets, encodings, config)
    else:
        boxes = way.overlap_weight * _overlap_losses(detector, asked, encodings, way)
    weights = tf.cast(positive, tf.float32) if asked.alignment is None else quality
    return Sums(
        tf.reduce_sum(tf.where(positive, boxes * weights, 0.0)),
        config.classification_weight * tf.reduce_sum(classes),
        tf.reduce_sum(weights),
    )


def _asked(
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    way: Way,
) -> Asked:
    boxes, classes, counts = batch["boxes"], batch["classes"], batch["counts"]
    config, alignment = detector.config, None
    sides = tf.constant([*config.size] * 2, tf.float32)
    if way.assigner == "iou":
        targets = assign(detector.anchors, boxes, classes, counts, detector.num_classes, config)
    else:
        padded = never_empty(boxes)
        scene = Scene(
            detector.anchors * np.array([*config.size] * 2, np.float32),
            detector.levels,
            padded * sides,
            tf.maximum(tf.cast(never_empty(classes), tf.int32), 1),
            tf.sequence_mask(counts, tf.shape(padded)[1]),
            tf.stop_gradient(_pixels(detector, encodings)),
            tf.stop_gradient(logits[..., detector.background :]),
        )
        name = choose("train.assigner", way.assigner, ["iou", *ASSIGNERS])
        matches, alignment = ASSIGNERS[name](scene)
        targets = targets_of(
            matches, detector.anchors, boxes, classes, detector.num_classes, config
        )
    if way.label_smoothing:
        softer = smoothed(targets.class_targets, targets.positive, way.label_smoothing)
        targets = targets._replace(class_targets=softer)
    rows = tf.maximum(targets.matches, 0)
    return Asked(targets, tf.gather(never_empty(boxes) * sides, rows, batch_dims=1), alignment)


def _pixels(detector: SSD, encodings: tf.Tensor) -> tf.Tensor:
    """(B, A, 4) yxyx in pixels of the network's input, of encodings that may be anything yet."""
    scales = tuple(detector.config.box_scales)
    boxes = decode_boxes(within_reach(encodings, scales), detector.anchors, scales)
    return boxes * tf.constant([*detector.config.size] * 2, tf.float32)


def _overlap_losses(detector: SSD, asked: Asked, encodings: tf.Tensor, way: Way) -> tf.Tensor:
    """(B, A), anything for anchors without an object."""
    name = choose("train.box_loss", way.box_loss, ["huber", *OVERLAP_LOSSES])
    return OVERLAP_LOSSES[name](_pixels(detector, encodings), asked.boxes)


def detection_loss(
    targets: Targets,
    encodings: tf.Tensor,
    logits: tf.Tensor,
    boxes: tf.Tensor,
    config: ModelConfig,
    kind: str,
) -> Losses:
    """The two losses, divided by the number of anchors with objects in the batch, and weighted.

    Where replicas share a batch, its anchors with objects are those of all: their losses add up to the batch's.

    Args:
        targets: what the network should have said.
        encodings: (B, A, 4) of the network.
        logits: (B, A, K + 1) of the network.
        boxes: (B, A, 4) yxyx, `encodings` decoded; only mining looks at them.
        config: weights of the losses, and what `kind` needs.
        kind: a key of `LOSS_KINDS`.

    Raises:
        ConfigError: an unknown `kind`.
    """
    compute = LOSS_KINDS[choose("train.loss", kind, list(LOSS_KINDS))]
    sums, kept = compute(targets, encodings, logits, boxes, config)
    divisor = divisor_of(kind, summed(sums.positives))
    return Losses(sums.localization / divisor, sums.classification / divisor, kept)


def _hard_mining(
    targets: Targets,
    encodings: tf.Tensor,
    logits: tf.Tensor,
    boxes: tf.Tensor,
    config: ModelConfig,
    jit: bool = False,
) -> tuple[Sums, tf.Tensor]:
    """Few anchors are kept, so only their class losses are differentiated.

    With `jit` those of all are, as XLA knows no shapes that depend on numbers.
    """
    select = mine_in_blocks if jit else mine
    kept = select(_ranking_losses(targets, logits), boxes, targets.positive, config)
    if jit:
        class_losses = sigmoid_cross_entropy(targets.class_targets, logits)
        class_losses = tf.where(kept[..., None], class_losses, 0.0)
    else:
        class_losses = sigmoid_cross_entropy(
            tf.boolean_mask(targets.class_targets, kept), tf.boolean_mask(logits, kept)
        )
    return _reduce(targets, _box_losses(targets, encodings, config), class_losses, kept, config)


def _focal(
    targets: Targets,
    encodings: tf.Tensor,
    logits: tf.Tensor,
    boxes: tf.Tensor,
    config: ModelConfig,
) -> tuple[Sums, tf.Tensor]:
    class_losses = focal_cross_entropy(
        targets.class_targets, logits, config.focal_alpha, config.focal_gamma
    )
    kept = tf.ones_like(targets.positive)
    return _reduce(targets, _box_losses(targets, encodings, config), class_losses, kept, config)


def _reduce(
    targets: Targets,
    box_losses: tf.Tensor,
    class_losses: tf.Tensor,
    kept: tf.Tensor,
    config: ModelConfig,
) -> tuple[Sums, tf.Tensor]:
    """Sum the (B, A) losses of boxes over the kept anchors, and the class losses of those.

    `class_losses` holds the kept anchors alone, in any shape.
    """
    sums = Sums(
        config.localization_weight * tf.reduce_sum(tf.where(kept, box_losses, 0.0)),
        config.classification_weight * tf.reduce_sum(class_losses),
        tf.reduce_sum(tf.cast(targets.positive, tf.float32)),
    )
    return sums, kept


def _box_losses(targets: Targets, encodings: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """(B, A) smooth L1 summed over the four codes; 0 for anchors without an object."""
    losses = tf.reduce_sum(huber(encodings - targets.box_targets, config.huber_delta), axis=-1)
    return tf.where(targets.positive, losses, 0.0)


def _ranking_losses(targets: Targets, logits: tf.Tensor) -> tf.Tensor:
    """(B, A) class losses summed over classes, for mining: no gradient passes.

    Sigmoid cross entropy of logit x and target t is softplus(x) - t x.
    """
    logits = tf.stop_gradient(logits)
    said = tf.reduce_sum(targets.class_targets * logits, axis=-1)
    return tf.reduce_sum(tf.math.softplus(logits), axis=-1) - said


def sigmoid_cross_entropy(class_targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Losses, of the shape of `logits`, of each class by itself, the background included."""
    return tf.nn.sigmoid_cross_entropy_with_logits(class_targets, logits)


LOSS_KINDS: dict[str, Callable[..., tuple[Sums, tf.Tensor]]] = {
    "hard_mining": _hard_mining,
    "focal": _focal,
}

COMPILED = {"hard_mining": partial(_hard_mining, jit=True)}
"""Those of `LOSS_KINDS` that XLA compiles in another form only."""

TRAINING_LOSSES: dict[str, Callable[..., Sums]] = {
    **{kind: partial(_of_tf1, kind) for kind in LOSS_KINDS},
    **{kind: partial(_of_quality, kind) for kind in QUALITY_LOSSES},
    "retinanet": retinanet_sums,
    "efficientdet": efficientdet_sums,
}
PLUS_ONE = ("retinanet", "efficientdet")
