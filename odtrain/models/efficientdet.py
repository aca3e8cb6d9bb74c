"""EfficientDet-Lite, as google/automl's `efficientdet/tf2` builds it (Apache 2.0).

Tan, Pang and Le 2020, "EfficientDet: Scalable and Efficient Object Detection", on the EfficientNet-Lite
backbones: ReLU6 and no squeeze and excite, so that all of it runs in int8; maps are added without weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.models.anchors import even_pyramid_anchors, pyramid_shapes
from odtrain.models.blocks import divisible
from odtrain.models.efficientdet_layers import EfficientDetLayers, Place, as_objects
from odtrain.models.layers import Layers
from odtrain.models.ssd import Parts, map_shapes
from odtrain_runtime import resizing

ARCHITECTURE = "efficientdet_lite"
COEFFICIENTS = {
    (1.0, 1.0): "lite0",
    (1.0, 1.1): "lite1",
    (1.1, 1.2): "lite2",
    (1.2, 1.4): "lite3",
    (1.4, 1.8): "lite4",
}
"""What a backbone of that width and number of blocks is called (`efficientnet_lite_builder`)."""
STEM = 32
"""Channels of the first convolution, at any width."""
DEVIATION = 128.0
"""What automl divides colours by, after `resizing.GREY` is taken from them."""


class Stage(NamedTuple):
    """Blocks in a row.

    Attributes:
        kernel: side of the depthwise convolutions, in cells.
        stride: of the first block.
        expansion: channels inside the blocks, in multiples of those that go in.
        channels: that come out, at width 1.
        repeats: blocks, of a network of one times the blocks.
    """

    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
"""EfficientNet-B0's (Tan and Le 2019, table 1). The first and the last are never repeated."""

NODES = (
    (6, (3, 4)),
    (5, (2, 5)),
    (4, (1, 6)),
    (3, (0, 7)),
    (4, (1, 7, 8)),
    (5, (2, 6, 9)),
    (6, (3, 5, 10)),
    (7, (4, 11)),
)
"""Of a cell of the pyramid: the level of each node, and what it adds up, counted from the cell's five maps."""
LEVELS = range(3, 8)


def build(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """The network behind `images`, (B, H, W, 3) float32 from -1 to 1.

    Its logits are of the classes alone, (B, A, K): there is no background.
    """
    layers = EfficientDetLayers.like(make)
    colours = tf_keras.layers.Rescaling(
        127.5 / DEVIATION, (127.5 - resizing.GREY) / DEVIATION, name="colours", dtype="float32"
    )
    maps = pyramid(layers, backbone(layers, colours(images), config), config)
    shapes = map_shapes(maps)
    encodings = head(layers, maps, config, "box", 4, 0.0)
    logits = head(layers, maps, config, "class", num_classes, config.class_bias)
    anchors = even_pyramid_anchors(config.pyramid, shapes, config.size)
    return Parts(encodings, logits, anchors, tuple(maps), as_objects(layers.paths))


def backbone(make: EfficientDetLayers, images: tf.Tensor, config: ModelConfig) -> list[tf.Tensor]:
    """The (B, H, W, C) outputs of the blocks before a halving and of the last, at strides 8, 16, 32."""
    member = COEFFICIENTS.get((config.depth_multiplier, config.repeat_multiplier), "lite")
    scope, stage = f"efficientnet-{member}", make.stage(1)
    blocks = blocks_of(config)
    stem, path = f"{scope}/stem", "backbone/_stem"
    norm = Place(f"{stem}/tpu_batch_normalization", f"{path}/_bn")
    x = stage.filtered(images, Place(f"{stem}/conv2d", f"{path}/_conv_stem"), norm, STEM, 3, 2)
    outputs: list[tf.Tensor] = []
    for index, block in enumerate(blocks):
        if block.stride == 2:
            outputs.append(stage.end_stage(x, f"{scope}/stage_{len(outputs) + 1}"))
            x, stage = outputs[-1], make.stage(len(outputs) + 1)
        survival = 1 - (1 - config.survival_probability) * index / len(blocks)
        x = _block(
            stage, x, f"{scope}/blocks_{index}", f"backbone/_blocks/{index}", block, survival
        )
    outputs.append(stage.end_stage(x, f"{scope}/stage_{len(outputs) + 1}"))
    return outputs[-3:]


def blocks_of(config: ModelConfig) -> list[Stage]:
    """The blocks one by one, with their channels at the configured width."""
    found: list[Stage] = []
    for stage in STAGES:
        fixed = stage in (STAGES[0], STAGES[-1])
        count = stage.repeats if fixed else math.ceil(stage.repeats * config.repeat_multiplier)
        channels = divisible(stage.channels * config.depth_multiplier, 8)
        first = stage._replace(channels=channels, repeats=1)
        found += [first, *[first._replace(stride=1)] * (count - 1)]
    return found


def _block(
    make: EfficientDetLayers, x: tf.Tensor, name: str, path: str, block: Stage, survival: float
) -> tf.Tensor:
    """Expand, filter each channel, project, and add what came in where shapes allow it."""
    norms = iter(("", "_1", "_2"))
    y, project = x, "conv2d"

    def norm(number: int) -> Place:
        return Place(f"{name}/tpu_batch_normalization{next(norms)}", f"{path}/_bn{number}")

    if block.expansion != 1:
        place = Place(f"{name}/conv2d", f"{path}/_expand_conv")
        y = make.filtered(y, place, norm(0), int(x.shape[-1]) * block.expansion, 1)
        project = "conv2d_1"
    place = Place(f"{name}/depthwise_conv2d", f"{path}/_depthwise_conv")
    y = make.filtered_by_channel(y, place, norm(1), block.kernel, block.stride)
    place = Place(f"{name}/{project}", f"{path}/_project_conv")
    y = _plain(make).filtered(y, place, norm(2), block.channels, 1)
    if block.stride == 1 and x.shape[-1] == block.channels:
        y = make.added(make.surviving(y, survival, f"{name}/survival"), x, f"{name}/sum")
    return y


def pyramid(
    make: EfficientDetLayers, maps: Sequence[tf.Tensor], config: ModelConfig
) -> list[tf.Tensor]:
    """The (B, H, W, depth) maps of levels 3 to 7 of the last cell of the pyramid.

    `maps`: of the backbone, at levels 3 to 5.
    """
    features, depth = list(maps), config.pyramid.depth
    for index, level in enumerate((6, 7)):
        x, size = features[-1], tuple((side + 1) // 2 for side in features[-1].shape[1:3])
        name, path = f"resample_p{level}", f"resample_layers/{index}"
        features.append(_joining(make, x, name, path, size, depth))
    for cell in range(config.pyramid.cells):
        features = _cell(make, features, cell, depth)
    return features


def _cell(
    make: EfficientDetLayers, maps: Sequence[tf.Tensor], cell: int, depth: int
) -> list[tf.Tensor]:
    features = list(maps)
    sizes = dict(zip(LEVELS, map_shapes(maps), strict=True))
    for number, (level, inputs) in enumerate(NODES):
        node, path = (
            f"fpn_cells/cell_{cell}/fnode{number}",
            f"fpn_cells/cells/{cell}/fnodes/{number}",
        )
        count = len(features)
        joined = [
            _joining(
                make,
                features[offset],
                f"{node}/resample_{index}_{offset}_{count}",
                f"{path}/resample_layers/{index}",
                sizes[level],
                depth,
            )
            for index, offset in enumerate(inputs)
        ]
        x = tf_keras.layers.Add(name=f"{node}/sum", dtype=make.dtype)(joined)
        x = make.activated(x, f"{node}/sum")
        after, place = f"{node}/op_after_combine{count}", f"{path}/op_after_combine"
        (x,) = make.separated([x], Place(f"{after}/conv", f"{place}/conv_op"), depth)
        features.append(_plain(make).normalised(x, Place(f"{after}/bn", f"{place}/bn")))
    last = {level: features[5 + number] for number, (level, _) in enumerate(NODES)}
    return [last[level] for level in LEVELS]


def _joining(
    make: EfficientDetLayers,
    x: tf.Tensor,
    name: str,
    path: str,
    size: tuple[int, int],
    depth: int,
) -> tf.Tensor:
    """`x` with `depth` channels at (height, width) `size`."""
    if x.shape[-1] != depth:
        place, norm = Place(f"{name}/conv2d", f"{path}/conv2d"), Place(f"{name}/bn", f"{path}/bn")
        x = _plain(make).projected(x, place, norm, depth)
    return make.resized(x, size, f"{name}/resized")


def head(
    make: EfficientDetLayers,
    maps: Sequence[tf.Tensor],
    config: ModelConfig,
    kind: str,
    width: int,
    bias: float,
) -> tf.Tensor:
    """(B, A, `width`) float32: convolutions shared by the levels, each of which has its own batch norm.

    `kind`: `class` or `box`; `bias`: first value of the last layer's biases.
    """
    net, features = f"{kind}_net", list(maps)
    for layer in range(config.shared_predictor.layers):
        place = Place(f"{net}/{kind}-{layer}", f"{net}/conv_ops/{layer}")
        features = [
            make.normalised(
                x,
                Place(f"{net}/{kind}-{layer}-bn-{level}", f"{net}/bns/{layer}/{level - 3}"),
                of_level=True,
            )
            for level, x in zip(
                LEVELS, make.separated(features, place, config.pyramid.depth, 0.0), strict=True
            )
        ]
    last = Place(f"{net}/{kind}-predict", f"{net}/{'classes' if kind == 'class' else 'boxes'}")
    per_cell = len(pyramid_shapes(config.pyramid))
    outputs = make.separated(features, last, per_cell * width, bias)
    flat = [
        tf_keras.layers.Reshape((-1, width), name=f"{net}/flat_{level}")(x)
        for level, x in zip(LEVELS, outputs, strict=True)
    ]
    joined = tf_keras.layers.Concatenate(axis=1, name=f"{net}/joined", dtype="float32")
    return joined(flat)


def _plain(make: EfficientDetLayers) -> EfficientDetLayers:
    return replace(make, activation=None)
