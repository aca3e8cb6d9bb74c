"""SSDLite on the four MobileDets, as the TF1 Object Detection API's `ssd_mobiledet_*` build them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import tensorflow as tf

from odtrain.config.schema import ModelConfig
from odtrain.models.blocks import (
    Excite,
    Names,
    fused_residual,
    hard_swish,
    inverted_residual,
    tucker,
)
from odtrain.models.layers import Layers
from odtrain.models.ssd import Ends, Parts, with_extra_maps

BACKBONE_DECAY, BACKBONE_EPSILON = 0.99, 0.01
"""Of the backbone's batch norm: fixed in the reference, whatever the configuration says."""
BACKBONE_INITIALIZER = "he"
"""Fixed there too."""


@dataclass(frozen=True)
class Inverted:
    """One inverted residual.

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

    @property
    def scope(self) -> str:
        """Slim's name of such a block."""
        return "IBNNoExpansion" if self.expansion == 1 else "IBN"


@dataclass(frozen=True)
class Fused(Inverted):
    """One fused inverted residual; `kernel` and `stride` are of the dense convolution."""

    @property
    def scope(self) -> str:
        """Slim's name of such a block."""
        return "FusedConv"


@dataclass(frozen=True)
class Tucker:
    """One Tucker layer with a convolution of 3 x 3 and stride 1 inside.

    Attributes:
        narrowed: channels that it takes, times those that come in.
        widened: channels that it gives, times those that come out.
        channels: that come out, before the depth multiplier.
        residual: add what comes in.
    """

    narrowed: float
    widened: float
    channels: int
    residual: bool = True
    stride: int = 1
    scope: str = "TuckerConv"


Block = Inverted | Tucker


@dataclass(frozen=True)
class Kind:
    """The network that was found for one kind of processor.

    Attributes:
        scope: slim's name of it.
        first_channels: of the convolution before the blocks.
        blocks: in order; one of stride 2 begins a stage.
        activation: behind each batch norm that is not at a block's end.
        excite: of every inverted residual; None for none.
    """

    scope: str
    first_channels: int
    blocks: tuple[Block, ...]
    activation: Callable[[tf.Tensor], tf.Tensor] = tf.nn.relu6
    excite: Excite | None = None


def rounded(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, halves upwards, at least 8."""
    return max(8, int(channels / 8 + 0.5) * 8)


CPU = Kind(
    "FeatureExtractor/MobileDetCPU",
    16,
    (
        Inverted(1, 8, residual=False),
        Inverted(4, 16, stride=2),
        Inverted(8, 32, stride=2),
        *(Inverted(4, 32),) * 3,
        Inverted(8, 72, 5, 2),
        Inverted(8, 72),
        Inverted(4, 72, 5),
        Inverted(4, 72),
        Inverted(8, 72, residual=False),
        *(Inverted(8, 72),) * 3,
        Inverted(8, 104, 5, 2),
        *(Inverted(4, 104, 5),) * 2,
        Inverted(4, 104),
        Inverted(8, 144, residual=False),
    ),
    hard_swish,
    Excite(lambda channels: rounded(channels * 0.25), hard_swish, tf.sigmoid),
)
"""Xiong et al. 2020, "MobileDets", figure 7."""

DSP = Kind(
    "FeatureExtractor/MobileDetDSP",
    32,
    (
        Inverted(1, 24, residual=False),
        Fused(4, 32, stride=2),
        Fused(4, 32),
        Inverted(4, 32),
        Tucker(0.25, 0.75, 32),
        Fused(8, 64, stride=2),
        Inverted(4, 64),
        *(Fused(4, 64),) * 2,
        Fused(8, 120, stride=2),
        Inverted(4, 120),
        *(Inverted(8, 120),) * 2,
        Fused(8, 144, residual=False),
        *(Inverted(8, 144),) * 3,
        Inverted(4, 160, stride=2),
        Inverted(4, 160),
        Fused(4, 160),
        Tucker(0.75, 0.75, 160),
        Inverted(8, 240, residual=False),
    ),
)
"""The same, figure 9: found for the digital signal processor of a Pixel 4."""

EDGETPU = Kind(
    "FeatureExtractor/MobileDetEdgeTPU",
    32,
    (
        Tucker(0.25, 0.75, 16, residual=False),
        Fused(8, 16, stride=2),
        Fused(4, 16),
        Fused(8, 16),
        Fused(4, 16),
        Fused(8, 40, 5, 2),
        *(Fused(4, 40),) * 3,
        Inverted(8, 72, stride=2),
        Inverted(8, 72),
        *(Fused(4, 72),) * 2,
        Inverted(8, 96, 5, residual=False),
        Inverted(8, 96, 5),
        *(Inverted(8, 96),) * 2,
        Inverted(8, 120, 5, 2),
        Inverted(8, 120),
        Inverted(4, 120, 5),
        Inverted(8, 120),
        Inverted(8, 384, 5, residual=False),
    ),
)
"""The same, figure 8: found for the Edge TPU of a Pixel 4."""

GPU = Kind(
    "FeatureExtractor/MobileDetGPU",
    32,
    (
        Tucker(0.25, 0.25, 16, residual=False),
        Fused(8, 32, stride=2),
        *(Tucker(0.25, 0.25, 32),) * 3,
        Fused(8, 64, stride=2),
        *(Fused(8, 64),) * 2,
        Fused(4, 64),
        Fused(8, 128, stride=2),
        *(Fused(4, 128),) * 3,
        Fused(8, 128, residual=False),
        *(Fused(8, 128),) * 3,
        Fused(4, 128, stride=2),
        *(Fused(4, 128),) * 3,
        Inverted(8, 384, residual=False),
    ),
)
"""Found for the graphics processor of a Jetson Xavier; the table is in the reference's code alone."""


def build(
    kind: Kind, config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor
) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    base = replace(
        make,
        decay=BACKBONE_DECAY,
        epsilon=BACKBONE_EPSILON,
        initializer=BACKBONE_INITIALIZER,
        activation=kind.activation,
    )
    finest, last = backbone(kind, base, images, config.depth_multiplier)
    ends = Ends(finest, last, f"{kind.scope}/C5", True, separable_predictors=True)
    return with_extra_maps(ends, config, num_classes, make)


build_cpu = partial(build, CPU)
build_dsp = partial(build, DSP)
build_edgetpu = partial(build, EDGETPU)
build_gpu = partial(build, GPU)


def backbone(
    kind: Kind, make: Layers, images: tf.Tensor, depth_multiplier: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """The (B, H, W, C) outputs of the stages at strides 16 and 32."""
    stage = make.stage(1)
    outputs: list[tf.Tensor] = []
    first = rounded(kind.first_channels * depth_multiplier)
    x = stage.conv(images, f"{kind.scope}/Conv", first, kernel=3, stride=2)
    seen: Counter[str] = Counter()
    for block in kind.blocks:
        if block.stride == 2:
            outputs.append(stage.end_stage(x, f"{kind.scope}/stage_{len(outputs) + 1}"))
            x, stage = outputs[-1], make.stage(len(outputs) + 1)
        count = seen[block.scope]
        name = f"{kind.scope}/{block.scope}" + (f"_{count}" if count else "")
        x = _applied(block, kind, stage, x, name, rounded(block.channels * depth_multiplier))
        seen[block.scope] += 1
    return outputs[-1], stage.end_stage(x, f"{kind.scope}/stage_{len(outputs) + 1}")


def _applied(
    block: Block, kind: Kind, make: Layers, x: tf.Tensor, name: str, channels: int
) -> tf.Tensor:
    """(B, H / stride, W / stride, channels) behind `x`, (B, H, W, C); slim counts a block's layers by kind."""
    taken = int(x.shape[-1])
    if isinstance(block, Tucker):
        ranks = rounded(taken * block.narrowed), rounded(channels * block.widened)
        return tucker(make, x, name, ranks=ranks, channels=channels, residual=block.residual)
    project = "Conv" if block.expansion == 1 else "Conv_1"
    apply: Callable[..., tuple[tf.Tensor, tf.Tensor]] = (
        fused_residual
        if isinstance(block, Fused)
        else partial(inverted_residual, excite=kind.excite)
    )
    y, _ = apply(
        make,
        x,
        name,
        expanded=taken * block.expansion,
        channels=channels,
        kernel=block.kernel,
        stride=block.stride,
        residual=block.residual,
        names=Names("Conv", "SeparableConv2d", "SqueezeExcite", project),
    )
    return y
