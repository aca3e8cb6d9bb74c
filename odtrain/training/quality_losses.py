"""Class losses whose targets say how well an anchor's box fits, not only that something is there."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

QUALITY_POWER = 2.0
VARIFOCAL_ALPHA, VARIFOCAL_GAMMA = 0.75, 2.0


def quality_focal(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """|y - p|^2 times the cross entropy of y and p, of the shape of `logits`; `targets` y are 0-1.

    Li et al., "Generalized Focal Loss" (2020), equation 3, with its beta.
    """
    missing = tf.abs(targets - tf.sigmoid(logits))
    return missing**QUALITY_POWER * _cross_entropy(targets, logits)


def varifocal(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Where y > 0, y times the cross entropy of y and p; elsewhere 0.75 p^2 times that of 0 and p.

    Zhang et al., "VarifocalNet: An IoU-aware Dense Object Detector" (2021), equation 2, with its alpha and
    gamma.
    """
    few = VARIFOCAL_ALPHA * tf.sigmoid(logits) ** VARIFOCAL_GAMMA
    weights = tf.where(targets > 0, targets, few)
    return weights * _cross_entropy(targets, logits)


QUALITY_LOSSES: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "quality_focal": quality_focal,
    "varifocal": varifocal,
}


def smoothed(class_targets: tf.Tensor, positive: tf.Tensor, share: float) -> tf.Tensor:
    """(B, A, K) targets of 0 and 1, those of anchors with an object brought to share / 2 and 1 - share / 2.

    Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7, for classes that are each there
    or not. Anchors without an object are far more than those with one, and stay at 0.
    """
    softer = class_targets * (1.0 - share) + 0.5 * share
    return tf.where(positive[..., None], softer, class_targets)


def _cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
