"""SSDLite on MobileNet v3 and MobileNetEdgeTPU, as the TF1 Object Detection API builds them.

There they are `ssd_mobilenet_v3_large`, `ssd_mobilenet_v3_small` and `ssd_mobilenet_edgetpu`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.models.blocks import (
    Excite,
    divisible,
    fused_residual,
    hard_sigmoid,
    hard_swish,
    inverted_residual,
)
from odtrain.models.layers import Layers
from odtrain.models.ssd import Ends, Parts, with_extra_maps

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
        fused: whether expansion and depthwise convolution are one dense convolution.
        residual: add what comes in where shapes allow it.
    """

    expansion: float
    channels: int
    kernel: int = 3
    stride: int = 1
    swish: bool = True
    excite: bool = True
    fused: bool = False
    residual: bool = True


@dataclass(frozen=True)
class Size:
    """One of the networks, MobileNet v3's with a last stage half as wide as for classification.

    Attributes:
        blocks: behind the first convolution.
        prefix: slim's name of the last map, which begins the names of the extra ones.
        last_channels: of the convolution behind them, before the depth multiplier; None for none.
        finest: the block inside which the predictors' first map is, at stride 16.
        scope: slim's name of the network.
        first_channels: of the first convolution, before the depth multiplier.
        activation: of the convolutions outside the blocks.
    """

    blocks: tuple[Block, ...]
    prefix: str
    last_channels: int | None
    finest: int
    scope: str = "FeatureExtractor/MobilenetV3"
    first_channels: int = 16
    activation: Callable[[tf.Tensor], tf.Tensor] = hard_swish


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
    "layer_17",
    480,
    finest=12,
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
    "layer_13",
    288,
    finest=8,
)
"""The same, table 2."""


def _fused(expansion: float, channels: int, stride: int = 1) -> Block:
    return Block(expansion, channels, 3, stride, swish=False, excite=False, fused=True)


def _plain(
    expansion: float, channels: int, kernel: int = 3, stride: int = 1, residual: bool = True
) -> Block:
    return Block(expansion, channels, kernel, stride, swish=False, excite=False, residual=residual)


EDGETPU = Size(
    (
        _fused(1, 16),
        _fused(8, 32, 2),
        *(_fused(4, 32),) * 3,
        _fused(8, 48, 2),
        *(_fused(4, 48),) * 3,
        _plain(8, 96, stride=2),
        *(_plain(4, 96),) * 3,
        _plain(8, 96, residual=False),
        *(_plain(4, 96),) * 3,
        _plain(8, 160, 5, 2),
        *(_plain(4, 160, 5),) * 3,
        _plain(8, 192),
    ),
    "layer_23",
    None,
    finest=16,
    scope="FeatureExtractor/MobilenetEdgeTPU",
    first_channels=32,
    activation=tf.nn.relu,
)
"""Gupta and Akin 2019, "Accelerator-aware Neural Network Design using AutoML": the table is in slim's code."""


def build_large(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The large network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    return _build(LARGE, config, num_classes, make, images)


def build_small(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The small network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    return _build(SMALL, config, num_classes, make, images)


def build_edgetpu(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """MobileNetEdgeTPU behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    return _build(EDGETPU, config, num_classes, make, images)


def _build(
    size: Size, config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor
) -> Parts:
    finest, last = backbone(size, make, images, config)
    ends = Ends(finest, last, f"{size.scope}/{size.prefix}", True, separable_predictors=True)
    return with_extra_maps(ends, config, num_classes, make)


def backbone(
    size: Size, make: Layers, images: tf.Tensor, config: ModelConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """The (B, H, W, C) maps that SSD reads: the expansion in block `size.finest`, and the last."""

    def width(channels: float) -> int:
        return divisible(channels * config.depth_multiplier, config.min_depth)

    stage, number = make.stage(1).with_activation(size.activation), 1
    x = stage.conv(images, f"{size.scope}/Conv", width(size.first_channels), kernel=3, stride=2)
    finest = x
    for index, block in enumerate(size.blocks):
        if block.stride == 2:
            x = stage.end_stage(x, f"{size.scope}/stage_{number}")
            number += 1
            stage = make.stage(number)
        excite = EXCITE if block.excite else None
        plain = partial(inverted_residual, excite=excite)
        apply: Callable[..., tuple[tf.Tensor, tf.Tensor]] = fused_residual if block.fused else plain
        x, wide = apply(
            stage.with_activation(hard_swish if block.swish else tf.nn.relu),
            x,
            f"{size.scope}/expanded_conv_{index}" if index else f"{size.scope}/expanded_conv",
            expanded=divisible(int(x.shape[-1]) * block.expansion, 8) if index else x.shape[-1],
            channels=width(block.channels),
            kernel=block.kernel,
            stride=block.stride,
            residual=block.residual,
        )
        finest = wide if index == size.finest else finest
    last = stage.with_activation(size.activation)
    if size.last_channels is not None:
        x = last.conv(x, f"{size.scope}/Conv_1", width(size.last_channels), kernel=1)
    return finest, last.end_stage(x, f"{size.scope}/stage_{number}")
