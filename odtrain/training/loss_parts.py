"""What every loss is told and returns: sums, so that those of shares of a batch add up to the whole's."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from odtrain.config.schema import TrainConfig


class Sums(NamedTuple):
    """Scalars of a share of a batch.

    Attributes:
        localization: weighted.
        classification: weighted.
        positives: anchors with objects, or what they count for.
    """

    localization: tf.Tensor
    classification: tf.Tensor
    positives: tf.Tensor


class Way(NamedTuple):
    """How a training departs from its loss's reference.

    Attributes:
        box_loss: `huber` or a key of `box_overlap_losses.OVERLAP_LOSSES`.
        overlap_weight: factor of the latter, in place of the model's.
        assigner: `iou` or a key of `assigners.ASSIGNERS`.
        label_smoothing: of anchors with an object, 0-1.
        jit: whether XLA compiles the loss; the numbers are the same.
    """

    box_loss: str
    overlap_weight: float
    assigner: str
    label_smoothing: float
    jit: bool = False

    @classmethod
    def of(cls, config: TrainConfig) -> Way:
        """What a training is asked for."""
        return cls(*(getattr(config, name) for name in cls._fields))


AS_PUBLISHED = Way("huber", 1.0, "iou", 0.0)
