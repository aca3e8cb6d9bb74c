"""EfficientDet's losses, as google/automl's `efficientdet/tf2/train_lib.py` defines them."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.errors import ConfigError
from odtrain.models.anchors import even_pyramid_pixels
from odtrain.models.ssd import SSD, have_area, map_shapes
from odtrain.training.elementwise_losses import focal_cross_entropy, huber
from odtrain.training.loss_parts import Sums, Way
from odtrain.training.quality_losses import smoothed
from odtrain.training.target_assigner import Targets, assign

CODES = 4
"""Numbers of a box, by which its loss is divided."""


def efficientdet_sums(
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    way: Way,
) -> Sums:
    """The losses of boxes and of classes, weighted.

    Args:
        detector: one without a background.
        batch: `boxes`, `classes` and `counts`, as `inputs.Batch` has them.
        encodings: (B, A, 4) of the network.
        logits: (B, A, K) of the network.
        way: of which labels may be smoothed.

    Raises:
        ConfigError: another kind of detector.
    """
    config = detector.config
    if detector.background:
        raise ConfigError(
            "train.loss=efficientdet",
            f"{config.name} is not an EfficientDet.",
            "Give train.loss=hard_mining or train.loss=focal.",
        )
    asked = targets(detector, batch)
    wanted = asked.class_targets[..., 1:]
    if way.label_smoothing:
        wanted = smoothed(wanted, asked.positive, way.label_smoothing)
    classes = focal_cross_entropy(wanted, logits, config.focal_alpha, config.focal_gamma)
    boxes = _box_losses(asked.box_targets, encodings, config)
    return Sums(
        config.localization_weight * tf.reduce_sum(boxes) / CODES,
        config.classification_weight * tf.reduce_sum(classes),
        tf.reduce_sum(tf.cast(asked.positive, tf.float32)),
    )


def targets(detector: SSD, batch: Mapping[str, tf.Tensor]) -> Targets:
    """What a batch asks of every anchor: boxes end in the input's last pixel, those without area are none."""
    config, sides = detector.config, tf.constant([*detector.config.size] * 2, tf.float32)
    boxes = tf.clip_by_value(
        batch["boxes"] * sides, 0.0, sides - 1
    )  # pixels: what is 0 is exactly 0
    counted = tf.sequence_mask(batch["counts"], tf.shape(boxes)[1])
    kept = have_area(boxes) & counted
    first = tf.argsort(tf.cast(~kept, tf.int32), axis=1, stable=True)
    return assign(
        even_pyramid_pixels(config.pyramid, map_shapes(detector.maps), config.size),
        tf.gather(boxes, first, batch_dims=1),
        tf.gather(batch["classes"], first, batch_dims=1),
        tf.reduce_sum(tf.cast(kept, tf.int32), axis=1),
        detector.num_classes,
        config,
    )


def _box_losses(asked: tf.Tensor, encodings: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """(B, A, 4) Huber losses; of codes that are to be exactly 0 none, also of anchors with an object."""
    return tf.where(asked != 0, huber(encodings - asked, config.huber_delta), 0.0)
