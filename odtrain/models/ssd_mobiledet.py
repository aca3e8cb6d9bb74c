"""SSDLite on MobileDet for CPUs, as `ssd_mobiledet_cpu` of the TF1 Object Detection API builds it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.models.blocks import Excite, Names, hard_swish, inverted_residual
from odtrain.models.layers import Layers
from odtrain.models.ssd import Ends, Parts, with_extra_maps

SCOPE = "FeatureExtractor/MobileDetCPU"

BACKBONE_DECAY, BACKBONE_EPSILON = 0.99, 0.01
"""Of the backbone's batch norm: fixed in the reference, whatever the configuration says."""


@dataclass(frozen=True)
class Block:
    """One inverted residual with squeeze and excite.

    Attributes:
        expansion: of the channels inside, times those that come in; 1 for none.
        channels: that come out, before the depth multiplier.
        kernel: side of the depthwise convolution.
        stride: of the same.
        residual: add what comes in.
    """

    expansion: int
    channels: int
    kernel: int = 3
    stride: int = 1
    residual: bool = True


BLOCKS = (
    Block(1, 8, residual=False),
    Block(4, 16, stride=2),
    Block(8, 32, stride=2),
    *(Block(4, 32),) * 3,
    Block(8, 72, 5, 2),
    Block(8, 72),
    Block(4, 72, 5),
    Block(4, 72),
    Block(8, 72, residual=False),
    *(Block(8, 72),) * 3,
    Block(8, 104, 5, 2),
    *(Block(4, 104, 5),) * 2,
    Block(4, 104),
    Block(8, 144, residual=False),
)
"""Xiong et al. 2020, "MobileDets", figure 7: the network found for CPUs."""


EXCITE = Excite(lambda channels: rounded(channels * 0.25), hard_swish, tf.sigmoid)


def build(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    base = replace(make, decay=BACKBONE_DECAY, epsilon=BACKBONE_EPSILON, activation=hard_swish)
    finest, last = backbone(base, images, config.depth_multiplier)
    ends = Ends(finest, last, f"{SCOPE}/C5", True, separable_predictors=True)
    return with_extra_maps(ends, config, num_classes, make)


def backbone(
    make: Layers, images: tf.Tensor, depth_multiplier: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """The (B, H, W, C) outputs of the stages at strides 16 and 32."""
    stage = make.stage(1)
    outputs: list[tf.Tensor] = []
    x = stage.conv(images, f"{SCOPE}/Conv", rounded(16 * depth_multiplier), kernel=3, stride=2)
    for index, block in enumerate(BLOCKS):
        if block.stride == 2:
            outputs.append(stage.end_stage(x, f"{SCOPE}/stage_{len(outputs) + 1}"))
            x, stage = outputs[-1], make.stage(len(outputs) + 1)
        x, _ = inverted_residual(
            stage,
            x,
            f"{SCOPE}/{_scope(index)}",
            expanded=int(x.shape[-1]) * block.expansion,
            channels=rounded(block.channels * depth_multiplier),
            kernel=block.kernel,
            stride=block.stride,
            excite=EXCITE,
            residual=block.residual,
            names=_names(block),
        )
    return outputs[-1], stage.end_stage(x, f"{SCOPE}/stage_{len(outputs) + 1}")


def rounded(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, halves upwards, at least 8."""
    return max(8, int(channels / 8 + 0.5) * 8)


def _scope(index: int) -> str:
    """The name of a block: those with expansion are counted by themselves, the first has no number."""
    if index == 0:
        return "IBNNoExpansion"
    return "IBN" if index == 1 else f"IBN_{index - 1}"


def _names(block: Block) -> Names:
    project = "Conv" if block.expansion == 1 else "Conv_1"
    return Names("Conv", "SeparableConv2d", "SqueezeExcite", project)
