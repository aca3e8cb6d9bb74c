"""How far the network is from its targets: the references' losses, and hard-example mining."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.errors import ConfigError, choose
from odtrain.models.replicas import summed
from odtrain.models.ssd import SSD
from odtrain.training.efficientdet_loss import efficientdet_loss
from odtrain.training.elementwise_losses import focal_cross_entropy, huber
from odtrain.training.hard_mining import mine
from odtrain.training.retinanet_loss import retinanet_loss
from odtrain.training.target_assigner import Targets, assign


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


def training_loss(
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    kind: str,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The losses of boxes and of classes of a batch, weighted, scalars.

    Args:
        detector: whose network said what follows.
        batch: `boxes`, `classes` and `counts`, as `inputs.Batch` has them.
        encodings: (B, A, 4).
        logits: (B, A, K + 1); (B, A, K) of a network without a background.
        kind: a value of `train.loss`.

    Raises:
        ConfigError: an unknown `kind`, or one that is not for this detector.
    """
    compute = TRAINING_LOSSES[choose("train.loss", kind, list(TRAINING_LOSSES))]
    return compute(detector, batch, encodings, logits)


def _of_tf1(
    kind: str,
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    if not detector.background:
        raise ConfigError(
            f"train.loss={kind}",
            f"{detector.config.name} has no background, which this loss needs.",
            "Give train.loss=efficientdet.",
        )
    targets = assign(
        detector.anchors,
        batch["boxes"],
        batch["classes"],
        batch["counts"],
        detector.num_classes,
        detector.config,
    )
    boxes = tf.stop_gradient(detector.decode(encodings))
    parts = detection_loss(targets, encodings, logits, boxes, detector.config, kind)
    return parts.localization, parts.classification


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
    return LOSS_KINDS[choose("train.loss", kind, list(LOSS_KINDS))](
        targets, encodings, logits, boxes, config
    )


def _hard_mining(
    targets: Targets,
    encodings: tf.Tensor,
    logits: tf.Tensor,
    boxes: tf.Tensor,
    config: ModelConfig,
) -> Losses:
    """Few anchors are kept, so only their class losses are differentiated."""
    kept = mine(_ranking_losses(targets, logits), boxes, targets.positive, config)
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
) -> Losses:
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
) -> Losses:
    """Sum the (B, A) losses of boxes over the kept anchors, and the class losses of those.

    `class_losses` holds the kept anchors alone, in any shape.
    """
    positives = tf.maximum(summed(tf.reduce_sum(tf.cast(targets.positive, tf.float32))), 1.0)
    return Losses(
        config.localization_weight * tf.reduce_sum(tf.where(kept, box_losses, 0.0)) / positives,
        config.classification_weight * tf.reduce_sum(class_losses) / positives,
        kept,
    )


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


LOSS_KINDS: dict[str, Callable[..., Losses]] = {"hard_mining": _hard_mining, "focal": _focal}

TRAINING_LOSSES: dict[str, Callable[..., tuple[tf.Tensor, tf.Tensor]]] = {
    **{kind: partial(_of_tf1, kind) for kind in LOSS_KINDS},
    "retinanet": retinanet_loss,
    "efficientdet": efficientdet_loss,
}
