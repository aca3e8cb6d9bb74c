"""SSD on a feature pyramid, as the TF1 Object Detection API builds it.

There it is `ssd_mobilenet_v1_fpn`, `ssd_resnet50_v1_fpn`, and FPNLite: `ssd_mobilenet_v2_fpn` with
`use_depthwise`.

Lin et al. 2017, "Feature Pyramid Networks for Object Detection" and "Focal Loss for Dense Object
Detection": coarse maps are added to finer ones, and one predictor reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.config.schema import ModelConfig
from odtrain.models.anchors import pyramid_anchors, pyramid_shapes
from odtrain.models.heads import SHARED_TOWER, shared_predictors
from odtrain.models.layers import Layers
from odtrain.models.resnet_v1 import SCOPE as RESNET
from odtrain.models.resnet_v1 import backbone as resnet_v1
from odtrain.models.ssd import Parts, depth_scaler, map_shapes
from odtrain.models.ssd_mobilenet_v1 import SCOPE as MOBILENET
from odtrain.models.ssd_mobilenet_v1 import backbone as mobilenet_v1
from odtrain.models.ssd_mobilenet_v2 import SCOPE as MOBILENET_V2
from odtrain.models.ssd_mobilenet_v2 import backbone as mobilenet_v2

BACKBONE_LEVELS = (3, 4, 5)
"""Of the backbones' maps: strides 8, 16 and 32."""
LITE_LAST_CHANNELS = 256
"""Of MobileNet v2's last convolution in TF1's FPNLite; TF2 has left it at 1280."""


def build_mobilenet_v1(
    config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor
) -> Parts:
    """On MobileNet v1, behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    width = depth_scaler(config.depth_multiplier, config.min_depth)
    stages = mobilenet_v1(make, images, width)
    names = [f"bottom_up_Conv2d_{13 + i}" for i in range(1, config.pyramid.max_level - 4)]
    maps = pyramid(make, stages[2:], f"{MOBILENET}/fpn", names, config)
    return pyramid_parts(config, num_classes, make, maps)


def build_resnet50(config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor) -> Parts:
    """On ResNet-50, behind `images`, (B, H, W, 3) float32 from -1 to 1."""
    width = depth_scaler(config.depth_multiplier, config.min_depth)
    stages = resnet_v1(make, images, width)
    names = [f"bottom_up_block{4 + i}" for i in range(1, config.pyramid.max_level - 4)]
    maps = pyramid(make, stages[-3:], f"{RESNET}/fpn", names, config)
    return pyramid_parts(config, num_classes, make, maps)


def build_mobilenet_v2_lite(
    config: ModelConfig, num_classes: int, make: Layers, images: tf.Tensor
) -> Parts:
    """On MobileNet v2 with every convolution behind it split, behind `images`, (B, H, W, 3), -1 to 1."""
    stages, _ = mobilenet_v2(make, images, config, config.last_channels or LITE_LAST_CHANNELS)
    names = [f"bottom_up_Conv2d_{19 + i}" for i in range(1, config.pyramid.max_level - 4)]
    maps = pyramid(make, stages[2:], f"{MOBILENET_V2}/fpn", names, config, separable=True)
    return pyramid_parts(config, num_classes, make, maps, lite=True)


def pyramid(
    make: Layers,
    maps: Sequence[tf.Tensor],
    scope: str,
    coarser: Sequence[str],
    config: ModelConfig,
    separable: bool = False,
) -> list[tf.Tensor]:
    """The pyramid's maps, (B, H, W, depth), finest first.

    Args:
        make: layers of the pyramid's style.
        maps: of the backbone, (B, H, W, C), at `BACKBONE_LEVELS`.
        scope: of the layers' names.
        coarser: names of the convolutions that make the maps behind the backbone's last.
        config: `pyramid.depth` before the depth multiplier.
        separable: the convolutions of 3 x 3 are split into a depthwise and a pointwise one.
    """
    conv: Callable[..., tf.Tensor] = make.separable if separable else make.conv
    depth = depth_scaler(config.depth_multiplier, config.min_depth)(config.pyramid.depth)
    zeros = np.zeros(depth, np.float32)
    first = config.pyramid.min_level - BACKBONE_LEVELS[0]
    x = make.plain_conv(maps[-1], f"{scope}/projection_{len(maps) - first}", depth, 1, zeros)
    outputs = [x]
    for number in range(len(maps) - first - 1, 0, -1):
        finer = maps[first + number - 1]
        lateral = make.plain_conv(finer, f"{scope}/projection_{number}", depth, 1, zeros)
        x = make.added(
            doubled(make, x, lateral, f"{scope}/up_{number}"), lateral, f"{scope}/{number}"
        )
        outputs.insert(0, conv(x, f"{scope}/smoothing_{number}", depth, 3))
        if config.pyramid.from_smoothed:
            x = outputs[0]
    x = outputs[-1]
    for name in coarser:
        x = conv(x, f"{scope}/{name}", depth, 3, stride=2)
        outputs.append(x)
    return outputs


def doubled(make: Layers, x: tf.Tensor, like: tf.Tensor, name: str) -> tf.Tensor:
    """`x` with every cell repeated twice each way, cut to the height and width of `like`.

    The reference leaves sizes for which cutting is needed an error.
    """
    x = tf_keras.layers.UpSampling2D(2, name=name, dtype=make.dtype)(x)
    bottom, right = x.shape[1] - like.shape[1], x.shape[2] - like.shape[2]
    if bottom or right:
        cut = tf_keras.layers.Cropping2D(
            ((0, bottom), (0, right)), name=f"{name}/cut", dtype=make.dtype
        )
        x = cut(x)
    return x


def pyramid_parts(
    config: ModelConfig,
    num_classes: int,
    make: Layers,
    maps: Sequence[tf.Tensor],
    lite: bool = False,
) -> Parts:
    """One predictor for the (B, H, W, C) maps of a pyramid, and their anchors.

    `lite` splits the predictor's convolutions, and boxes and classes share the layers before them.
    """
    anchors = pyramid_anchors(config.pyramid, map_shapes(maps), config.size)
    per_cell = len(pyramid_shapes(config.pyramid))
    style: dict[str, Any] = {"towers": SHARED_TOWER, "separable": True} if lite else {}
    encodings, logits = shared_predictors(make, maps, per_cell, num_classes, config, **style)
    return Parts(encodings, logits, anchors, tuple(maps))
