"""SSD and SSDLite on MobileNet v2, as the TF1 Object Detection API builds `ssd_mobilenet_v2`.

Both split the convolutions of their extra maps, unless the configuration says otherwise; SSDLite
splits its predictors' too.
"""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.models.blocks import divisible, inverted_residual
from odtrain.models.layers import Layers
from odtrain.models.ssd import Ends, Parts, with_extra_maps

SCOPE = "FeatureExtractor/MobilenetV2"

BLOCKS = ((16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1))
"""Channels before the depth multiplier, and repetitions (Sandler et al. 2018, table 2)."""
HALVING = (24, 32, 64, 160)
"""The first block of these channels halves the map."""
EXPANSION = 6
"""Of the channels inside a block, but of the first, which does not expand."""
LAST_CHANNELS = 1280

BACKBONE_STDDEV = 0.09
"""slim's `mobilenet.training_scope` initialises its kernels wider than SSD its own."""


def build_ssd(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """SSD: plain convolutions as predictors, behind `images`, (B, H, W, 3), -1 to 1."""
    ends = replace(_ends(config, make, images), kernel=config.predictor_kernel or 3)
    return with_extra_maps(ends, config, num_classes, make)


def build_ssdlite(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """SSDLite: predictors split into a depthwise and a pointwise convolution."""
    ends = replace(_ends(config, make, images), separable_predictors=True)
    return with_extra_maps(ends, config, num_classes, make)


def _ends(config: ModelConfig, make: Layers, images: tf.Tensor) -> Ends:
    base = replace(make, stddev=BACKBONE_STDDEV, depthwise_decayed=False)
    stages, inside = backbone(base, images, config, LAST_CHANNELS)
    split = config.separable_extras is not False
    return Ends(inside, stages[-1], f"{SCOPE}/layer_19", separable_extras=split)


def backbone(
    make: Layers, images: tf.Tensor, config: ModelConfig, last_channels: int | None
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """What the stages make of the pictures.

    Args:
        make: layers of the backbone's style.
        images: (B, H, W, 3) float32 from -1 to 1.
        config: depth multiplier and least width.
        last_channels: of the convolution behind the blocks, before the depth multiplier; None for none.

    Returns:
        The (B, H, W, C) outputs at strides 2, 4, 8, 16 and 32, and the expansion inside the block that
        halves to stride 32, at stride 16.
    """

    def width(channels: int) -> int:
        return divisible(channels * config.depth_multiplier, config.min_depth)

    stage = make.stage(1)
    outputs: list[tf.Tensor] = []
    x = stage.conv(images, f"{SCOPE}/Conv", width(32), kernel=3, stride=2)
    inside = x
    blocks = [(channels, i) for channels, times in BLOCKS for i in range(times)]
    for index, (channels, repetition) in enumerate(blocks):
        halves = repetition == 0 and channels in HALVING
        if halves:
            outputs.append(stage.end_stage(x, f"{SCOPE}/stage_{len(outputs) + 1}"))
            x, stage = outputs[-1], make.stage(len(outputs) + 1)
        x, wide = inverted_residual(
            stage,
            x,
            f"{SCOPE}/expanded_conv_{index}" if index else f"{SCOPE}/expanded_conv",
            expanded=int(x.shape[-1]) * (EXPANSION if index else 1),
            channels=width(channels),
            stride=2 if halves else 1,
        )
        inside = wide if halves else inside
    if last_channels is not None:
        x = stage.conv(x, f"{SCOPE}/Conv_1", width(last_channels), kernel=1)
    return [*outputs, stage.end_stage(x, f"{SCOPE}/stage_{len(outputs) + 1}")], inside
