"""Losses of single numbers, which the losses of whole networks are made of."""

from __future__ import annotations

import tensorflow as tf


def focal_cross_entropy(
    class_targets: tf.Tensor, logits: tf.Tensor, alpha: float, gamma: float
) -> tf.Tensor:
    """Sigmoid losses of the shape of `logits`, small where the network is already right.

    Lin et al., "Focal Loss for Dense Object Detection" (2017), equation 5: `alpha` weighs what is
    there, `1 - alpha` what is not, and `gamma` is the power of the missing probability.
    """
    probabilities = tf.sigmoid(logits)
    missing = class_targets * (1 - probabilities) + (1 - class_targets) * probabilities
    balance = class_targets * alpha + (1 - class_targets) * (1 - alpha)
    return balance * missing**gamma * tf.nn.sigmoid_cross_entropy_with_logits(class_targets, logits)


def huber(error: tf.Tensor, delta: float) -> tf.Tensor:
    """Losses of the shape of `error`: half its square, which turns into a line of that slope at `delta`.

    Huber 1964, "Robust Estimation of a Location Parameter"; with `delta` 1 it is called smooth L1.
    """
    size = tf.abs(error)
    inside = tf.minimum(size, delta)
    return inside * (size - 0.5 * inside)
