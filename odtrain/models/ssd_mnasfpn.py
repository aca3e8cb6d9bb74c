"""SSD on MobileNet v2 and MnasFPN, as `ssd_mobilenet_v2_mnasfpn` of the TF1 Object Detection API builds it.

Chen et al. 2020, "MnasFPN: Learning Latency-aware Pyramid Architecture for Object Detection on Mobile
Devices": a pyramid of four equal cells that a search found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.errors import ConfigError
from odtrain.models.blocks import divisible
from odtrain.models.layers import Layers
from odtrain.models.ssd import Parts
from odtrain.models.ssd_fpn import doubled, pyramid_parts
from odtrain.models.ssd_mobilenet_v2 import backbone

SCOPE = "FeatureExtractor/MnasFPN"

LEVELS = (3, 4, 5, 6)
"""Of the maps that go into a cell and come out of it: cells of 2^level pixels."""
CELLS = 4

DECAY, EPSILON, INITIALIZER = 0.99, 0.01, "he"
"""Of all layers before the predictors: fixed in the reference, whatever the configuration says."""
PYRAMID_DECAYED = 2.5
"""The L2 regulariser holds the pyramid's kernels by 1e-4, the backbone's and the predictors' by 4e-5."""


@dataclass(frozen=True)
class Node:
    """A map that a cell makes of two others.

    Attributes:
        inputs: which: 0 to 3 are those that come into the cell, 4 is the first that it makes.
        level: of the map.
        expanded: channels in which they are added, before the depth multiplier.
        kernel: side of the convolution behind the sum.
    """

    inputs: tuple[int, int]
    level: int
    expanded: int
    kernel: int = 3


NODES = (
    Node((1, 2), 4, 256),
    Node((0, 4), 3, 128),
    Node((5, 4), 4, 128),
    Node((4, 3), 5, 128, kernel=5),
    Node((4, 3), 6, 96),
)
"""The paper's figure 5; the last four come out of the cell."""


def build(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1.

    Raises:
        ConfigError: other levels than the cells have.
    """
    found = config.pyramid.min_level, config.pyramid.max_level
    if found != (LEVELS[0], LEVELS[-1]):
        raise ConfigError(
            f"model.pyramid.min_level={found[0]}, max_level={found[1]}",
            f"the cells of {config.architecture} have levels {LEVELS[0]} to {LEVELS[-1]}.",
            f"Set model.pyramid.min_level={LEVELS[0]} model.pyramid.max_level={LEVELS[-1]}.",
        )
    base = replace(make, decay=DECAY, epsilon=EPSILON, initializer=INITIALIZER)
    stages, _ = backbone(base, images, config, last_channels=None)
    maps = pyramid(replace(base, decayed=PYRAMID_DECAYED, activation=None), stages[2:], config)
    return pyramid_parts(config, num_classes, make, maps, lite=True)


def pyramid(make: Layers, maps: Sequence[tf.Tensor], config: ModelConfig) -> list[tf.Tensor]:
    """The (B, H, W, depth) maps at `LEVELS`, of the backbone's (B, H, W, C) at the first three of them."""

    def width(channels: int) -> int:
        return divisible(channels * config.depth_multiplier, config.min_depth)

    depth = width(config.pyramid.depth)
    coarsest = _halved(make, maps[-1], f"{SCOPE}/C6_downsample", 2)
    coarsest = replace(make, decayed=0.0).conv(coarsest, f"{SCOPE}/C6_Conv1x1", depth, 1)
    features = [*maps, coarsest]
    for number in range(CELLS):
        scope = f"{SCOPE}/cell_{number}"
        made, levels = list(features), list(LEVELS)
        for index, node in enumerate(NODES):
            expanded = width(node.expanded)
            made.append(_node(make, made, levels, node, f"{scope}/block_{index}", expanded, depth))
            levels.append(node.level)
        outputs = made[-len(LEVELS) :]
        features = [
            make.added(new, old, f"{scope}/residual_{level}") if new.shape == old.shape else new
            for new, old, level in zip(outputs, features, LEVELS, strict=True)
        ]
    return features


def _node(
    make: Layers,
    made: Sequence[tf.Tensor],
    levels: Sequence[int],
    node: Node,
    name: str,
    expanded: int,
    depth: int,
) -> tf.Tensor:
    """(B, H, W, depth): both inputs at the node's size and width, added, filtered."""
    like = made[LEVELS.index(node.level)]
    resized = [
        _resized(make, made[i], node.level - levels[i], like, f"{name}/input_{order}", expanded)
        for order, i in enumerate(node.inputs)
    ]
    x = make.added(resized[0], resized[1], f"{name}/sum")
    x = make.with_activation(tf.nn.relu6).activated(x, f"{name}/sum")
    return make.separable(x, f"{name}/SepConv", depth, node.kernel)


def _resized(
    make: Layers, x: tf.Tensor, coarser: int, like: tf.Tensor, name: str, channels: int
) -> tf.Tensor:
    """`x` with so many channels, `coarser` levels coarser, or one finer where that is -1: cheapest first.

    A finer one has the height and width of `like`.
    """
    if coarser > 0:
        x = _halved(make, x, f"{name}/Downsample", 2**coarser)
    x = make.conv(x, f"{name}/Conv1x1", channels, 1)
    return doubled(make, x, like, f"{name}/up") if coarser < 0 else x


def _halved(make: Layers, x: tf.Tensor, name: str, stride: int) -> tf.Tensor:
    pool = tf_keras.layers.MaxPool2D(3, stride, "same", name=name, dtype=make.dtype)
    return pool(x)
