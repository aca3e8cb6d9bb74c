"""What bounds training: operations counted, and a product timed. How fast it is, no test asserts."""

import pytest
import tf_keras

from odtrain.training.bound import gflop_of_training, time_matrix_product


def test_operations_of_a_trained_network_are_counted_three_times():
    images = tf_keras.Input((10, 8, 3))
    x = tf_keras.layers.Conv2D(16, 3, 2, padding="same", trainable=False)(images)  # (5, 4, 16)
    x = tf_keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = tf_keras.layers.Conv2D(7, 1)(tf_keras.layers.ReLU()(x))
    cells = 5 * 4
    expected = 2 * cells * (9 * 3 * 16 + 3 * (9 * 16) + 3 * (16 * 7))
    assert gflop_of_training(tf_keras.Model(images, x)) * 1e9 == pytest.approx(expected)


def test_a_layer_that_maps_share_is_counted_for_each_and_a_separable_one_with_both_kernels():
    large, small = tf_keras.Input((4, 4, 8)), tf_keras.Input((2, 2, 8))
    shared = tf_keras.layers.SeparableConv2D(5, 3, padding="same")
    network = tf_keras.Model([large, small], [shared(large), shared(small)])
    expected = 3 * 2 * (4 * 4 + 2 * 2) * (9 * 8 + 8 * 5)
    assert gflop_of_training(network) * 1e9 == pytest.approx(expected)


def test_convolutions_inside_other_layers_are_not_taken_for_none():
    class Head(tf_keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = tf_keras.layers.Conv2D(4, 3)

        def call(self, x):
            return self.inner(x)

    images = tf_keras.Input((8, 8, 3))
    assert gflop_of_training(tf_keras.Model(images, Head()(images))) is None


def test_the_product_of_matrices_is_timed_by_the_clock_and_by_the_processor():
    product = time_matrix_product(size=128, seconds=0.0)
    assert product.gflops > 0
    assert product.gflop_per_cpu_second > 0
