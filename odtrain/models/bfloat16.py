"""Convolutions in bfloat16 whose gradients oneDNN computes slowly, with other gradients of the same value.

Measured with TensorFlow 2.20 on two cores with AMX, beside the same in float32: the gradients of a strided
depthwise convolution run at 1 GFLOPS, a hundredth; that of a pointwise kernel takes twice as long as the
product of the matrices that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def pointwise_conv2d(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """(B, H, W, O) of (B, H, W, I) and a (1, 1, I, O) kernel, both bfloat16."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def conv(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            size, inputs, outputs = tf.shape(x), kernel.shape[2], kernel.shape[3]
            dx = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=size, filter=kernel, out_backprop=dy, strides=[1] * 4, padding="SAME"
            )
            cells = tf.reshape(x, [-1, inputs]), tf.reshape(dy, [-1, outputs])
            return dx, tf.reshape(tf.matmul(*cells, transpose_a=True), kernel.shape)

        return tf.nn.conv2d(x, kernel, 1, "SAME"), gradients

    return conv(x, kernel)


def depthwise_conv2d(
    x: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int], padding: str
) -> tf.Tensor:
    """(B, H, W, C) of (B, h, w, C) and an (m, n, C, 1) kernel, both bfloat16; gradients in float32."""
    settings = {"strides": list(strides), "padding": padding}

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def conv(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            wide, inputs, filters = (tf.cast(each, tf.float32) for each in (dy, x, kernel))
            dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x), filter=filters, out_backprop=wide, **settings
            )
            dk = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=inputs, filter_sizes=tf.shape(kernel), out_backprop=wide, **settings
            )
            return tf.cast(dx, x.dtype), tf.cast(dk, kernel.dtype)

        return tf.nn.depthwise_conv2d(x, kernel, **settings), gradients

    return conv(x, kernel)
