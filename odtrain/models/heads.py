"""What the SSD architectures share behind their backbones: extra maps and box predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.models.layers import Layers

EXTRA_CHANNELS = (512, 256, 256, 128)
"""Channels of the maps behind the backbone's last, before the depth multiplier."""


def extra_maps(
    make: Layers,
    x: tf.Tensor,
    prefix: str,
    width: Callable[[int], int],
    count: int,
    separable: bool = False,
) -> list[tf.Tensor]:
    """`count` maps behind `x`, (B, H, W, C), each half as fine as the one before.

    Their layers' names begin with `prefix`, slim's name of the layer that made `x`; `width` gives
    the channels after the depth multiplier. `separable` splits the halving convolutions into a
    depthwise and a pointwise one.
    """
    maps = []
    for index, channels in enumerate(map(width, EXTRA_CHANNELS[:count]), start=2):
        squeezed = width(EXTRA_CHANNELS[index - 2] // 2)
        x = make.conv(x, f"{prefix}_1_Conv2d_{index}_1x1_{squeezed}", squeezed, 1)
        name = f"{prefix}_2_Conv2d_{index}_3x3_s2_{channels}"
        if separable:
            x = make.depthwise(x, f"{name}_depthwise", stride=2)
            x = make.conv(x, name, channels, 1)
        else:
            x = make.conv(x, name, channels, 3, stride=2)
        maps.append(x)
    return maps


def convolutional_predictors(
    make: Layers,
    maps: Sequence[tf.Tensor],
    per_cell: Sequence[int],
    num_classes: int,
    class_bias: float,
    kernel: int = 1,
    separable: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One plain convolution for boxes and one for classes on every map, `BoxPredictor_i/*`.

    Args:
        make: layers of the predictors' style.
        maps: (B, H, W, C) each.
        per_cell: anchors in a cell of each map.
        num_classes: K, without the background.
        class_bias: first bias of every class but the background.
        kernel: side of the convolutions, in cells.
        separable: SSDLite's way: a depthwise convolution of 3 x 3 with batch norm, then `kernel`.

    Returns:
        (B, A, 4) encodings and (B, A, K + 1) logits, float32, background first.
    """
    encodings, logits = [], []
    columns = num_classes + 1
    biases = np.array([0.0] + [class_bias] * num_classes, np.float32)
    for index, (x, anchors) in enumerate(zip(maps, per_cell, strict=True)):
        name = f"BoxPredictor_{index}"
        predicted = []
        for part, first in (
            ("BoxEncodingPredictor", np.zeros(anchors * 4, np.float32)),
            ("ClassPredictor", np.tile(biases, anchors)),
        ):
            y = make.depthwise(x, f"{name}/{part}_depthwise") if separable else x
            predicted.append(make.plain_conv(y, f"{name}/{part}", len(first), kernel, first))
        boxes, classes = predicted
        encodings.append(tf_keras.layers.Reshape((-1, 4), name=f"{name}/boxes")(boxes))
        logits.append(tf_keras.layers.Reshape((-1, columns), name=f"{name}/classes")(classes))
    return _joined(encodings, "encodings"), _joined(logits, "logits")


SHARED_TOWER = ("PredictionTower", "PredictionTower")
"""Names of the layers before a shared predictor of boxes and of classes, where both have the same ones."""


def shared_predictors(
    make: Layers,
    maps: Sequence[tf.Tensor],
    anchors: int,
    num_classes: int,
    config: ModelConfig,
    kernel: int = 3,
    towers: tuple[str, str] = ("BoxPredictionTower", "ClassPredictionTower"),
    separable: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One predictor for all maps, `WeightSharedConvolutionalBoxPredictor/*`.

    Args:
        make: layers of the predictors' style.
        maps: (B, H, W, C) each, with one C.
        anchors: in a cell of every map.
        num_classes: K, without the background.
        config: depth and number of the layers before the predictors, first class bias.
        kernel: side of all convolutions, in cells.
        towers: of the layers before the boxes' and the classes' predictor; one name for shared ones.
        separable: every convolution is split into a depthwise and a pointwise one.

    Returns:
        (B, A, 4) encodings and (B, A, K + 1) logits, float32, background first.
    """
    scope, columns = "WeightSharedConvolutionalBoxPredictor", num_classes + 1
    built: dict[str, list[tf.Tensor]] = {}
    for tower in dict.fromkeys(towers):
        features = list(maps)
        for i in range(config.shared_predictor.layers):
            name = f"{scope}/{tower}/conv2d_{i}"
            depth = config.shared_predictor.depth
            features = make.shared_conv(features, name, depth, kernel, separable)
        built[tower] = features
    biases = np.array([0.0] + [config.class_bias] * num_classes, np.float32)
    parts = []
    for tower, name, first, width in (
        (towers[0], "BoxPredictor", np.zeros(anchors * 4, np.float32), 4),
        (towers[1], "ClassPredictor", np.tile(biases, anchors), columns),
    ):
        outputs = make.shared_plain_conv(
            built[tower], f"{scope}/{name}", len(first), kernel, first, separable
        )
        flat = [
            tf_keras.layers.Reshape((-1, width), name=f"{scope}/{name}/flat_{i}")(x)
            for i, x in enumerate(outputs)
        ]
        parts.append(_joined(flat, f"{scope}/{name}/joined"))
    return parts[0], parts[1]


def _joined(parts: list[tf.Tensor], name: str) -> tf.Tensor:
    """(B, A, D) float32 of the maps' (B, H*W*anchors, D), in the maps' order."""
    return tf_keras.layers.Concatenate(axis=1, name=name, dtype="float32")(parts)
