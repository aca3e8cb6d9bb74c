"""SSDLite on MobileNet v3, as `ssd_mobilenet_v3_large|small` of the TF1 Object Detection API build it."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.models.blocks import Excite, divisible, hard_sigmoid, hard_swish, inverted_residual
from odtrain.models.layers import Layers
from odtrain.models.ssd import Ends, Parts, with_extra_maps

SCOPE = "FeatureExtractor/MobilenetV3"

EXCITE = Excite(lambda channels: divisible(channels / 4, 8), tf.nn.relu, hard_sigmoid)


@dataclass(frozen=True)
class Block:
    """One inverted residual.

    Attributes:
        expansion: of the channels inside, times those that come in.
        channels: that come out, before the depth multiplier.
        kernel: side of the depthwise convolution.
        stride: of the same.
        swish: hard swish instead of ReLU.
        excite: whether squeeze and excite weighs the channels inside.
    """

    expansion: float
    channels: int
    kernel: int = 3
    stride: int = 1
    swish: bool = True
    excite: bool = True


@dataclass(frozen=True)
class Size:
    """One of the two networks for detection, whose last stage is half as wide as for classification.

    Attributes:
        blocks: behind the first convolution.
        last_channels: of the convolution behind them, before the depth multiplier.
        prefix: slim's name of the last map, which begins the names of the extra ones.
    """

    blocks: tuple[Block, ...]
    last_channels: int
    prefix: str


LARGE = Size(
    (
        Block(1, 16, swish=False, excite=False),
        Block(4, 24, stride=2, swish=False, excite=False),
        Block(3, 24, swish=False, excite=False),
        Block(3, 40, 5, 2, swish=False),
        Block(3, 40, 5, swish=False),
        Block(3, 40, 5, swish=False),
        Block(6, 80, stride=2, excite=False),
        Block(2.5, 80, excite=False),
        Block(184 / 80, 80, excite=False),
        Block(184 / 80, 80, excite=False),
        Block(6, 112),
        Block(6, 112),
        Block(6, 80, 5, 2),
        Block(6, 80, 5),
        Block(6, 80, 5),
    ),
    480,
    "layer_17",
)
"""Howard et al. 2019, "Searching for MobileNetV3", table 1, and section 6.3 for detection."""

SMALL = Size(
    (
        Block(1, 16, stride=2, swish=False),
        Block(72 / 16, 24, stride=2, swish=False, excite=False),
        Block(88 / 24, 24, swish=False, excite=False),
        Block(4, 40, 5, 2),
        Block(6, 40, 5),
        Block(6, 40, 5),
        Block(3, 48, 5),
        Block(3, 48, 5),
        Block(6, 48, 5, 2),
        Block(6, 48, 5),
        Block(6, 48, 5),
    ),
    288,
    "layer_13",
)
"""The same, table 2."""


def build_large(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The large network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    return _build(LARGE, config, num_classes, make, images)


def build_small(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The small network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    return _build(SMALL, config, num_classes, make, images)


def _build(
    size: Size, config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor
) -> Parts:
    finest, last = backbone(size, make, images, config)
    ends = Ends(finest, last, f"{SCOPE}/{size.prefix}", True, separable_predictors=True)
    return with_extra_maps(ends, config, num_classes, make)


def backbone(
    size: Size, make: Layers, images: tf.Tensor, config: ModelConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """The (B, H, W, C) maps that SSD reads: inside the block that halves to stride 32, and the last.

    The first is that block's expansion, at stride 16.
    """

    def width(channels: float) -> int:
        return divisible(channels * config.depth_multiplier, config.min_depth)

    stage, number = make.stage(1).with_activation(hard_swish), 1
    x = stage.conv(images, f"{SCOPE}/Conv", width(16), kernel=3, stride=2)
    finest = x
    for index, block in enumerate(size.blocks):
        if block.stride == 2:
            x = stage.end_stage(x, f"{SCOPE}/stage_{number}")
            number += 1
            stage = make.stage(number)
        x, wide = inverted_residual(
            stage.with_activation(hard_swish if block.swish else tf.nn.relu),
            x,
            f"{SCOPE}/expanded_conv_{index}" if index else f"{SCOPE}/expanded_conv",
            expanded=divisible(int(x.shape[-1]) * block.expansion, 8) if index else x.shape[-1],
            channels=width(block.channels),
            kernel=block.kernel,
            stride=block.stride,
            excite=EXCITE if block.excite else None,
        )
        finest = wide if block.stride == 2 else finest
    last = stage.with_activation(hard_swish)
    x = last.conv(x, f"{SCOPE}/Conv_1", width(size.last_channels), kernel=1)
    return finest, last.end_stage(x, f"{SCOPE}/stage_{number}")
