"""What the layers of every network compute."""

import pytest
import tensorflow as tf
import tf_keras
from support.made_up_model import made_up_model

from odtrain.models import bfloat16
from odtrain.models.layers import FoldedBatchNorm, layers_for

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


# ---- convolutions whose gradients are computed otherwise in bfloat16


def check_gradients(ours, reference, kernel_shape, side):
    """Output and both gradients, beside those of the same bfloat16 values in float32."""
    values = [tf.random.stateless_normal([2, side, 10, 16], [0, 1])]
    values.append(tf.random.stateless_normal(kernel_shape, [0, 2]))
    values = [tf.cast(each, tf.bfloat16) for each in values]
    found = with_gradients(ours, *values)
    for one, other in zip(
        found,
        with_gradients(reference, *(tf.cast(each, tf.float32) for each in values)),
        strict=True,
    ):
        assert one.numpy() == pytest.approx(
            other.numpy(), abs=0.02 * float(tf.reduce_max(abs(other)))
        )


def with_gradients(conv, x, kernel):
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = conv(x, kernel)
        wanted = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
    return [tf.cast(each, tf.float32) for each in (y, *tape.gradient(wanted, [x, kernel]))]


@pytest.mark.parametrize("side", [9, 10])
def test_gradients_of_a_strided_depthwise_convolution_in_bfloat16_are_those_of_float32(side):
    settings = (1, 2, 2, 1), "SAME"
    check_gradients(
        lambda x, kernel: bfloat16.depthwise_conv2d(x, kernel, *settings),
        lambda x, kernel: tf.nn.depthwise_conv2d(x, kernel, *settings),
        [3, 3, 16, 1],
        side,
    )


def test_gradients_of_a_pointwise_convolution_in_bfloat16_are_those_of_float32():
    check_gradients(
        bfloat16.pointwise_conv2d,
        lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"),
        [1, 1, 16, 24],
        7,
    )


# ---- batch norm whose statistics stay


@pytest.mark.parametrize("call", [CALLS["conv"], CALLS["depthwise"]], ids=["conv", "depthwise"])
def test_batch_norm_that_stays_is_folded_and_computes_the_same(call):
    picture = tf.random.stateless_normal([2, 9, 9, 32], [0, 0])
    found, expected = (outcome(call, picture, folded) for folded in (True, False))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(tf.reduce_max(abs(value)))
        assert found[name].numpy() == pytest.approx(value.numpy(), abs=1e-5 * scale), name


def outcome(call, picture, folded):
    """Outputs in training, gradients by name and the statistics after it, of a layer with its batch norm."""
    layers = layers_for(
        made_up_model(), frozen_stages=0, batch_norm_trained=not folded, precision="fp32", seed=0
    )
    inputs = tf_keras.Input(picture.shape[1:])
    network = tf_keras.Model(inputs, call(layers, inputs))
    for number, (name, variable) in enumerate(layers.record.variables.items()):
        drawn = tf.random.stateless_uniform(variable.shape, [0, number], 0.5, 1.5)
        if "BatchNorm" in name:
            variable.assign(drawn)
    assert any(isinstance(layer, FoldedBatchNorm) for layer in network.layers) is folded
    with tf.GradientTape() as tape:
        outputs = network(picture, training=folded)
        wanted = tf.reduce_sum(outputs**2)
    names = [variable.name for variable in network.trainable_variables]
    gradients = dict(zip(names, tape.gradient(wanted, network.trainable_variables), strict=True))
    statistics = {name: v for name, v in layers.record.variables.items() if "/moving_" in name}
    return {"outputs": outputs, **gradients, **statistics}
