"""RetinaNet's losses, computed by Model Garden: its labeller, its focal loss, its Huber loss."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from odtrain.errors import ConfigError
from odtrain.models import retinanet
from odtrain.models.ssd import SSD
from odtrain.training.loss_parts import Sums, Way


def retinanet_sums(
    detector: SSD,
    batch: Mapping[str, tf.Tensor],
    encodings: tf.Tensor,
    logits: tf.Tensor,
    way: Way,
) -> Sums:
    """The losses of boxes and of classes, weighted; Model Garden's own division is undone.

    Args:
        detector: one of Model Garden's.
        batch: `boxes`, `classes` and `counts`, as `inputs.Batch` has them.
        encodings: (B, A, 4) of the network.
        logits: (B, A, K + 1) of the network.
        way: the published one, which is all that there is.

    Raises:
        ConfigError: another kind of detector.
    """
    config = detector.config
    if config.architecture not in retinanet.EXPERIMENTS:
        raise ConfigError(
            "train.loss=retinanet",
            f"{config.name} is not one of Model Garden's models.",
            "Give train.loss=hard_mining or train.loss=focal.",
        )
    task = retinanet.task(config, detector.num_classes)
    asked = labels(detector, batch)
    _, classification, localization, _ = task.build_losses(
        outputs={"box_outputs": {"all": encodings}, "cls_outputs": {"all": logits}}, labels=asked
    )
    positives = tf.reduce_sum(asked["box_weights"])
    return Sums(
        config.localization_weight * localization * (positives + 1),
        config.classification_weight * classification * (positives + 1),
        positives,
    )


def labels(detector: SSD, batch: Mapping[str, tf.Tensor]) -> dict[str, object]:
    """What Model Garden's labeller asks of every anchor of a batch.

    Returns:
        `cls_targets` (B, A), the class id or -1 for the background; `box_targets` (B, A, 4);
        `cls_weights` and `box_weights`, (B, A), 1 where an anchor counts.
    """
    from official.vision.ops.anchor import AnchorLabeler

    config = detector.config
    anchors = retinanet.pixel_anchors(config)
    labeler = AnchorLabeler(config.matched_iou, config.matched_iou, list(config.box_scales))
    sides = tf.constant([*config.size, *config.size], tf.float32)

    def of_picture(picture: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        boxes, classes, count = picture
        classes_asked, boxes_asked, _, class_weights, box_weights = labeler.label_anchors(
            anchors, boxes[:count] * sides, tf.cast(classes[:count], tf.int32)[:, None]
        )
        flat = [tf.reshape(level, [-1]) for level in classes_asked.values()]
        codes = [tf.reshape(level, [-1, 4]) for level in boxes_asked.values()]
        return tf.concat(flat, 0), tf.concat(codes, 0), class_weights, box_weights

    # One picture after the other: the labeller would match padded boxes too.
    asked, codes, class_weights, box_weights = tf.map_fn(
        of_picture,
        (batch["boxes"], batch["classes"], batch["counts"]),
        fn_output_signature=(tf.int32, tf.float32, tf.float32, tf.float32),
    )
    return {
        "cls_targets": {"all": asked},
        "box_targets": {"all": codes},
        "cls_weights": class_weights,
        "box_weights": box_weights,
    }
