"""SSD on a pooling pyramid, as `ssd_mobilenet_v1_ppn` of the TF1 Object Detection API builds it.

Jin et al. 2018, "Pooling Pyramid Network for Object Detection": coarser maps are pooled, not
computed, and one predictor reads them all.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.errors import ConfigError
from odtrain.models.anchors import anchors_per_cell, ssd_anchors
from odtrain.models.heads import SHARED_TOWER, shared_predictors
from odtrain.models.layers import Beside, Layers
from odtrain.models.ssd import Parts, depth_scaler, map_shapes
from odtrain.models.ssd_mobilenet_v1 import backbone


def build(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1.

    Raises:
        ConfigError: the maps' cells do not all have the same number of anchors.
    """
    per_cell = _same_everywhere(config)
    width = depth_scaler(config.depth_multiplier, config.min_depth)
    *_, finest, unread = backbone(make, images, width)
    maps = [Beside(name="finest")([finest, unread])]
    for number in range(1, config.anchors.num_layers):
        pool = tf_keras.layers.MaxPool2D(2, 2, "same", name=f"pool_{number}", dtype=make.dtype)
        maps.append(pool(maps[-1]))
    encodings, logits = shared_predictors(
        make, maps, per_cell, num_classes, config, kernel=1, towers=SHARED_TOWER
    )
    anchors = ssd_anchors(config.anchors, map_shapes(maps), config.size)
    return Parts(encodings, logits, anchors, tuple(maps))


def _same_everywhere(config: ModelConfig) -> int:
    per_cell = anchors_per_cell(config.anchors)
    if len(set(per_cell)) > 1:
        raise ConfigError(
            "model.anchors.reduce_boxes_in_lowest_layer=true",
            f"{config.architecture} has one predictor for all maps, which need "
            f"{', '.join(map(str, per_cell))} anchors in a cell.",
            "Set it to false.",
        )
    return per_cell[0]
