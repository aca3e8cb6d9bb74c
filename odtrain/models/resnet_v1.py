"""ResNet-50 v1 as slim builds it: each block halves the map behind its last unit, not in its first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.models.layers import Layers

SCOPE = "FeatureExtractor/resnet_v1_50"

BLOCKS = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Channels of the narrow convolutions before the depth multiplier, and units, of every block.

He et al. 2016, "Deep Residual Learning for Image Recognition", table 1.
"""
WIDENING = 4
"""A unit gives so many times the channels of its narrow convolutions."""
FIRST_CHANNELS = 64
"""Of the first convolution; the depth multiplier leaves it as it is."""
EPSILON = 1e-5
"""Added to batch norm's variance: slim's, whatever the configuration says."""
MEAN_COLOUR = (123.68, 116.779, 103.939)
"""Red, green and blue of ImageNet's pictures, 0-255, as slim's VGG and ResNet subtract them."""


def backbone(make: Layers, images: tf.Tensor, width: Callable[[int], int]) -> list[tf.Tensor]:
    """The (B, H, W, C) outputs of the four blocks, at strides 4, 8, 16 and 32.

    The reference gives it 0-255 less the mean colour; here `images`, -1 to 1 like those of every other
    network, are brought there first, so that all exported files read pictures alike. `width` gives
    the channels of narrow convolutions after the depth multiplier.
    """
    make = replace(make, epsilon=EPSILON)
    colours = tf_keras.layers.Rescaling(
        127.5, 127.5 - np.array(MEAN_COLOUR, np.float32), name=f"{SCOPE}/colours", dtype="float32"
    )
    padding = tf_keras.layers.ZeroPadding2D(3, name=f"{SCOPE}/padding", dtype=make.dtype)
    padded = padding(colours(images))
    stage = make.stage(1)
    x = stage.conv(padded, f"{SCOPE}/conv1", FIRST_CHANNELS, 7, stride=2, padding="valid")
    x = _pooled(make, stage.end_stage(x, f"{SCOPE}/stage_1"), 3, f"{SCOPE}/pool1")
    outputs: list[tf.Tensor] = []
    for number, (channels, units) in enumerate(BLOCKS, start=1):
        if outputs:
            x = _pooled(make, x, 1, f"{SCOPE}/subsample_{number}")
        stage = make.stage(number + 1)
        for unit in range(1, units + 1):
            x = bottleneck(
                stage, x, f"{SCOPE}/block{number}/unit_{unit}/bottleneck_v1", width(channels)
            )
        x = stage.end_stage(x, f"{SCOPE}/stage_{number + 1}")
        outputs.append(x)
    return outputs


def bottleneck(make: Layers, x: tf.Tensor, name: str, narrow: int) -> tf.Tensor:
    """(B, H, W, 4 * `narrow`): narrow, filter, widen, add what came in."""
    plain, channels = make.with_activation(None), narrow * WIDENING
    shortcut = x if x.shape[-1] == channels else plain.conv(x, f"{name}/shortcut", channels, 1)
    y = make.conv(x, f"{name}/conv1", narrow, 1)
    y = make.conv(y, f"{name}/conv2", narrow, 3)
    y = plain.conv(y, f"{name}/conv3", channels, 1)
    y = make.added(y, shortcut, f"{name}/sum")
    return make.with_activation(tf.nn.relu).activated(y, name)


def _pooled(make: Layers, x: tf.Tensor, side: int, name: str) -> tf.Tensor:
    """The largest of `side` x `side` cells, at every other cell."""
    return tf_keras.layers.MaxPool2D(side, 2, "same", name=name, dtype=make.dtype)(x)
