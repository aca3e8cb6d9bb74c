"""What the mobile backbones are built of: inverted residuals, fused ones, Tucker layers, squeeze and excite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain.models.form import Form, form
from odtrain.models.layers import Layers

SIXTH = np.nextafter(np.float32(1 / 6), np.float32(1))
"""One step of float32 above 1/6: what TensorFlow's converter does not make its hard swish operator of."""
FIVE_DIGITS = 0.16667
"""Those of a sixth that the reference multiplies hard sigmoid by."""


@dataclass(frozen=True)
class Excite:
    """How squeeze and excite weighs the channels of a map (Hu et al. 2018, "SENet", section 3).

    Attributes:
        squeezed: channels of the narrow layer, given those of the map.
        inner: activation behind the narrow layer.
        gate: from what the wide layer says to the weights.
    """

    squeezed: Callable[[int], int]
    inner: Callable[[tf.Tensor], tf.Tensor]
    gate: Callable[[tf.Tensor], tf.Tensor]


def hard_swish(x: tf.Tensor) -> tf.Tensor:
    """Hard swish, x relu6(x + 3) / 6: Howard et al. 2019, "Searching for MobileNetV3", section 5.2.

    In int8 the converter moves the factor into the kernel of the convolution that follows.
    """
    if form() is Form.LITE_INT8:
        return x * tf.nn.relu6(x + 3.0) * SIXTH
    return x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0)


def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """relu6(x + 3) times `FIVE_DIGITS`."""
    return tf.nn.relu6(x + 3.0) * FIVE_DIGITS


def divisible(channels: float, minimum: int, by: int = 8) -> int:
    """The multiple of `by` nearest to `channels`, at least `minimum`, at most a tenth smaller.

    slim's `_make_divisible`.
    """
    nearest = max(minimum, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest


def squeeze_excite(make: Layers, x: tf.Tensor, name: str, excite: Excite) -> tf.Tensor:
    """(B, H, W, C) with each channel weighed by what all channels say over the whole map."""
    channels = int(x.shape[-1])
    squeezed = excite.squeezed(channels)
    narrow, wide = f"{name}/Conv", f"{name}/Conv_1"
    y = tf_keras.layers.GlobalAveragePooling2D(
        keepdims=True, name=f"{name}/pool", dtype=make.dtype
    )(x)
    y = make.plain_conv(y, narrow, squeezed, 1, np.zeros(squeezed, np.float32))
    y = tf_keras.layers.Activation(excite.inner, name=f"{narrow}/activation", dtype=make.dtype)(y)
    y = make.plain_conv(y, wide, channels, 1, np.zeros(channels, np.float32))
    y = tf_keras.layers.Activation(excite.gate, name=f"{wide}/activation", dtype=make.dtype)(y)
    return tf_keras.layers.Multiply(name=f"{name}/weighed", dtype=make.dtype)([x, y])


@dataclass(frozen=True)
class Names:
    """slim's names of the layers inside an inverted residual."""

    expand: str = "expand"
    depthwise: str = "depthwise"
    excite: str = "squeeze_excite"
    project: str = "project"


def inverted_residual(
    make: Layers,
    x: tf.Tensor,
    name: str,
    *,
    expanded: int,
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    excite: Excite | None = None,
    residual: bool = True,
    names: Names = Names(),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Expand, filter each channel, project: Sandler et al. 2018, "MobileNetV2", section 3.3.

    Args:
        make: layers of the backbone.
        x: (B, H, W, C).
        name: slim's name of the block.
        expanded: channels in between; C for no expansion.
        channels: that come out.
        kernel: side of the depthwise convolution, in cells.
        stride: of the same.
        excite: weighs the expanded channels, after the depthwise convolution.
        residual: add `x` where shapes allow it.
        names: of the layers inside.

    Returns:
        What comes out, (B, H / stride, W / stride, channels), and the expanded (B, H, W, expanded).
    """
    wide = x
    if expanded != x.shape[-1]:
        wide = make.conv(x, f"{name}/{names.expand}", expanded, 1)
    y = make.depthwise(wide, f"{name}/{names.depthwise}", kernel, stride)
    if excite is not None:
        y = squeeze_excite(make, y, f"{name}/{names.excite}", excite)
    y = make.with_activation(None).conv(y, f"{name}/{names.project}", channels, 1)
    return _shortcut(make, x, y, name, stride, residual), wide


def fused_residual(
    make: Layers,
    x: tf.Tensor,
    name: str,
    *,
    expanded: int,
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    residual: bool = True,
    names: Names = Names(),
) -> tuple[tf.Tensor, tf.Tensor]:
    """An inverted residual whose expansion and depthwise convolution are one dense convolution.

    Xiong et al. 2020, "MobileDets", section 3.1: "fused inverted bottleneck". Arguments are those of
    `inverted_residual`; C for `expanded` leaves the dense convolution, and `kernel`, out.

    Returns:
        What comes out, (B, H / stride, W / stride, channels), and the expanded, of the same height and width.
    """
    wide = x
    if expanded != x.shape[-1]:
        wide = make.conv(x, f"{name}/{names.expand}", expanded, kernel, stride)
    y = make.with_activation(None).conv(wide, f"{name}/{names.project}", channels, 1)
    return _shortcut(make, x, y, name, stride, residual), wide


def tucker(
    make: Layers,
    x: tf.Tensor,
    name: str,
    *,
    ranks: tuple[int, int],
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    residual: bool = True,
) -> tf.Tensor:
    """A convolution between two that narrow and widen: "MobileDets", section 3.2, "Tucker layer".

    Args:
        make: layers of the backbone.
        x: (B, H, W, C).
        name: slim's name of the block.
        ranks: channels that the convolution in the middle takes and gives.
        channels: that come out.
        kernel: side of the convolution in the middle, in cells.
        stride: of the same.
        residual: add `x` where shapes allow it.
    """
    y = make.conv(x, f"{name}/Conv", ranks[0], 1)
    y = make.conv(y, f"{name}/Conv_1", ranks[1], kernel, stride)
    y = make.with_activation(None).conv(y, f"{name}/Conv_2", channels, 1)
    return _shortcut(make, x, y, name, stride, residual)


def _shortcut(
    make: Layers, x: tf.Tensor, y: tf.Tensor, name: str, stride: int, residual: bool
) -> tf.Tensor:
    """What a block makes of `x`, with `x` added where that is asked for and shapes allow it."""
    if residual and stride == 1 and y.shape[-1] == x.shape[-1]:
        return make.added(y, x, f"{name}/sum")
    return y
