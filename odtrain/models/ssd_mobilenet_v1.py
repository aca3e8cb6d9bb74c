"""SSD on MobileNet v1, as `ssd_mobilenet_v1` of the TF1 Object Detection API builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.models.layers import Layers
from odtrain.models.ssd import Ends, Parts, depth_scaler, with_extra_maps

SCOPE = "FeatureExtractor/MobilenetV1"

STAGES = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))
"""Output channels of each stage's separable blocks, before the depth multiplier. The first block of
every stage but the first halves the map."""

BACKBONE_STDDEV = 0.09
"""slim's `mobilenet_v1_arg_scope` initialises its kernels wider than SSD its own."""


def build(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    width = depth_scaler(config.depth_multiplier, config.min_depth)
    stages = backbone(replace(make, stddev=BACKBONE_STDDEV), images, width)
    ends = Ends(
        finest=stages[-2],
        last=stages[-1],
        prefix=f"{SCOPE}/Conv2d_13_pointwise",
        separable_extras=bool(config.separable_extras),
        kernel=config.predictor_kernel or 1,
    )
    return with_extra_maps(ends, config, num_classes, make)


def backbone(make: Layers, images: tf.Tensor, width: Callable[[int], int]) -> list[tf.Tensor]:
    """The (B, H, W, C) output of every stage, at strides 2, 4, 8, 16 and 32.

    `width` gives the channels after the depth multiplier.
    """
    x = make.stage(1).conv(images, f"{SCOPE}/Conv2d_0", width(32), kernel=3, stride=2)
    outputs, block = [], 0
    for number, channels in enumerate(STAGES, start=1):
        stage = make.stage(number)
        for position, filters in enumerate(channels):
            block += 1
            stride = 2 if number > 1 and position == 0 else 1
            x = stage.depthwise(x, f"{SCOPE}/Conv2d_{block}_depthwise", stride=stride)
            x = stage.conv(x, f"{SCOPE}/Conv2d_{block}_pointwise", width(filters), kernel=1)
        x = stage.end_stage(x, f"{SCOPE}/stage_{number}")
        outputs.append(x)
    return outputs
