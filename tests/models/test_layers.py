"""What the layers of every network compute."""

import pytest
import tensorflow as tf
import tf_keras
from support.made_up_model import made_up_model

from odtrain.models.layers import layers_for

CALLS = {
    "conv": lambda layers, x: layers.conv(x, "conv", 32, 3, 2),
    "separable": lambda layers, x: layers.separable(x, "separable", 32, 3, 2, 1),
    "depthwise": lambda layers, x: layers.depthwise(x, "depthwise", 3, 2),
}


def gradients(call, precision, picture):
    """The gradients of all kernels where the outputs are wanted as large as can be."""
    layers = layers_for(
        made_up_model(), frozen_stages=0, batch_norm_trained=False, precision=precision, seed=0
    )
    layers = layers.with_activation(None)
    inputs = tf_keras.Input(picture.shape[1:])
    network = tf_keras.Model(inputs, call(layers, inputs))
    with tf.GradientTape() as tape:
        outputs = tf.cast(network(picture, training=True), tf.float32)
        wanted = tf.reduce_sum(outputs * tf.sin(tf.range(tf.size(outputs[0]), dtype=tf.float32)))
    return outputs.shape, tape.gradient(wanted, network.trainable_variables)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_bfloat16_gradients_of_a_stride_over_a_single_cell_are_those_of_float32(call):
    picture = tf.random.stateless_normal([8, 1, 1, 32], [0, 0])
    shape, expected = gradients(call, "fp32", picture)
    assert shape[1:3] == (1, 1)
    for _ in range(8):
        tf.random.normal([1000, 1000]) * 1e30  # what memory given back may hold
        _, found = gradients(call, "bf16", picture)
        for one, other in zip(found, expected, strict=True):
            scale = float(tf.reduce_max(tf.abs(other)))
            assert one.numpy() == pytest.approx(other.numpy(), abs=0.05 * scale + 1e-6)
