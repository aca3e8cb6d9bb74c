"""SSD on Inception v2, as `ssd_inception_v2` of the TF1 Object Detection API builds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.models.layers import Layers
from odtrain.models.ssd import Ends, Parts, depth_scaler, with_extra_maps

SCOPE = "FeatureExtractor/InceptionV2"

MOST_FILTERS = 8
"""Outputs for each colour of the first depthwise convolution, at most."""


@dataclass(frozen=True)
class Module:
    """Four branches side by side, (B, H, W, C) each, joined by channels.

    Attributes:
        name: slim's.
        one: channels of the 1 x 1 convolution.
        three: of a 1 x 1 and a 3 x 3 convolution.
        double: of a 1 x 1 and of both 3 x 3 convolutions.
        pooled: of the 1 x 1 convolution behind the pool.
        pool: `avg` or `max`.
    """

    name: str
    one: int
    three: tuple[int, int]
    double: tuple[int, int]
    pooled: int
    pool: str = "avg"


@dataclass(frozen=True)
class Halving:
    """Three branches that halve the map: convolutions of `three` and `double`, and a pool."""

    name: str
    three: tuple[int, int]
    double: tuple[int, int]


STAGES: tuple[tuple[Module | Halving, ...], ...] = (
    (
        Module("Mixed_3b", 64, (64, 64), (64, 96), 32),
        Module("Mixed_3c", 64, (64, 96), (64, 96), 64),
    ),
    (
        Halving("Mixed_4a", (128, 160), (64, 96)),
        Module("Mixed_4b", 224, (64, 96), (96, 128), 128),
        Module("Mixed_4c", 192, (96, 128), (96, 128), 128),
        Module("Mixed_4d", 160, (128, 160), (128, 160), 96),
        Module("Mixed_4e", 96, (128, 192), (160, 192), 96),
    ),
    (
        Halving("Mixed_5a", (128, 192), (192, 256)),
        Module("Mixed_5b", 352, (192, 320), (160, 224), 128),
        Module("Mixed_5c", 352, (192, 320), (192, 224), 128, "max"),
    ),
)
"""At strides 8, 16 and 32: Ioffe and Szegedy 2015, "Batch Normalization", figure 5, as slim has it."""
FINEST, LAST = "Mixed_4c", "Mixed_5c"
"""The modules whose maps SSD reads."""


def build(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    outputs = backbone(make, images, depth_scaler(config.depth_multiplier, config.min_depth))
    ends = Ends(
        finest=outputs[FINEST],
        last=outputs[LAST],
        prefix=f"{SCOPE}/{LAST}",
        separable_extras=bool(config.separable_extras),
        kernel=config.predictor_kernel or 3,
    )
    return with_extra_maps(ends, config, num_classes, make)


def backbone(make: Layers, images: tf.Tensor, width: Callable[[int], int]) -> dict[str, tf.Tensor]:
    """The (B, H, W, C) outputs of the modules by name; `width` gives channels after the multiplier."""
    first, second = make.stage(1), make.stage(2)
    filters = min(width(64) // 3, MOST_FILTERS)
    x = first.separable(images, f"{SCOPE}/Conv2d_1a_7x7", width(64), 7, 2, filters)
    x = first.end_stage(x, f"{SCOPE}/stage_1")
    x = _pool(make, x, "max", 2, f"{SCOPE}/MaxPool_2a_3x3")
    x = second.conv(x, f"{SCOPE}/Conv2d_2b_1x1", width(64), 1)
    x = second.conv(x, f"{SCOPE}/Conv2d_2c_3x3", width(192), 3)
    x = second.end_stage(x, f"{SCOPE}/stage_2")
    x = _pool(make, x, "max", 2, f"{SCOPE}/MaxPool_3a_3x3")
    outputs: dict[str, tf.Tensor] = {}
    for number, modules in enumerate(STAGES, start=3):
        stage = make.stage(number)
        for module in modules:
            x = _module(stage, x, module, width)
            if module is modules[-1]:
                x = stage.end_stage(x, f"{SCOPE}/stage_{number}")
            outputs[module.name] = x
    return outputs


def _module(
    make: Layers, x: tf.Tensor, module: Module | Halving, width: Callable[[int], int]
) -> tf.Tensor:
    name = f"{SCOPE}/{module.name}"
    halves = isinstance(module, Halving)
    branches = []
    if isinstance(module, Module):
        branches.append(make.conv(x, f"{name}/Branch_0/Conv2d_0a_1x1", width(module.one), 1))
    for convolutions in (module.three, (*module.double, module.double[-1])):
        branch = f"{name}/Branch_{len(branches)}"
        branches.append(_chain(make, x, branch, [width(n) for n in convolutions], halves))
    branch = f"{name}/Branch_{len(branches)}"
    if isinstance(module, Module):
        pooled = _pool(make, x, module.pool, 1, f"{branch}/pool")
        branches.append(make.conv(pooled, f"{branch}/Conv2d_0b_1x1", width(module.pooled), 1))
    else:
        branches.append(_pool(make, x, "max", 2, f"{branch}/pool"))
    return tf_keras.layers.Concatenate(name=f"{name}/concat", dtype=make.dtype)(branches)


def _chain(make: Layers, x: tf.Tensor, name: str, channels: list[int], halves: bool) -> tf.Tensor:
    """A 1 x 1 convolution and 3 x 3 ones behind it; the last one halves the map if asked to."""
    x = make.conv(x, f"{name}/Conv2d_0a_1x1", channels[0], 1)
    for letter, filters in zip("bc", channels[1:], strict=False):
        last = halves and letter == "abc"[len(channels) - 1]
        place = "1a" if last else f"0{letter}"
        x = make.conv(x, f"{name}/Conv2d_{place}_3x3", filters, 3, stride=2 if last else 1)
    return x


def _pool(make: Layers, x: tf.Tensor, kind: str, stride: int, name: str) -> tf.Tensor:
    layer = {"avg": tf_keras.layers.AveragePooling2D, "max": tf_keras.layers.MaxPool2D}[kind]
    return layer(3, stride, "same", name=name, dtype=make.dtype)(x)
