"""What a network costs, counted and kept."""

from __future__ import annotations

import pytest
import tf_keras

from odtrain.config.compose import shipped_model
from odtrain.zoo.catalog import model_names
from odtrain.zoo.costs import Cost, cost_of, count, kept_cost

QUICK = ["panels_ssd_mobilenet_v1", "ssdlite_mobilenet_v2_0.35_depth_224"]


def settings(name: str) -> dict:
    return shipped_model(name)


def test_every_cell_of_every_convolution_counts():
    layers = tf_keras.layers
    images = tf_keras.Input((8, 6, 3))
    x = layers.Conv2D(10, 3, 2, padding="same")(images)  # 4 x 3 cells
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(7, 5, padding="same", use_bias=False)(x)
    network = tf_keras.Model(images, layers.Reshape((-1, 7))(x))
    assert cost_of(network) == Cost(
        parameters=(3 * 3 * 3 * 10 + 10) + 3 * 3 * 10 + 2 * 10 + (5 * 5 * 10 + 10 * 7),
        macs=4 * 3 * (3 * 3 * 3 * 10 + 3 * 3 * 10 + 5 * 5 * 10 + 10 * 7),
    )


def test_a_layer_that_several_maps_share_counts_for_each():
    fine, coarse = tf_keras.Input((4, 4, 3)), tf_keras.Input((2, 2, 3))
    shared = tf_keras.layers.Conv2D(5, 1, use_bias=False)
    network = tf_keras.Model([fine, coarse], [shared(fine), shared(coarse)])
    assert cost_of(network) == Cost(parameters=15, macs=(16 + 4) * 15)


@pytest.mark.parametrize("name", model_names())
def test_what_is_kept_was_counted_for_these_settings(name):
    assert kept_cost(name, settings(name)) is not None, "run python -m odtrain.zoo.costs"


def test_after_a_change_of_settings_nothing_is_kept():
    changed = settings(QUICK[0]) | {"input_size": 100}
    assert kept_cost(QUICK[0], changed) is None
    assert kept_cost("unknown", changed) is None


@pytest.mark.parametrize("name", QUICK)
def test_what_is_kept_is_what_the_network_has(name):
    assert kept_cost(name, settings(name)) == count(name)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in model_names() if name not in QUICK])
def test_what_is_kept_is_what_every_network_has(name):
    assert kept_cost(name, settings(name)) == count(name)


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        # Said of these models by the comments in their published configurations.
        ("ssd_mobilenet_v3_large_coco", 1.02e9 / 2),
        ("ssd_mobiledet_cpu_coco", 0.45e9),
        ("ssd_mobiledet_dsp_coco", 2.82e9),
        ("ssd_mobiledet_edgetpu_coco", 1.53e9),
        ("ssd_mobiledet_gpu", 5.07e9),
        ("ssd_mobilenet_v2_mnasfpn_coco", 0.92e9),
    ],
)
def test_published_counts_are_met(name, macs):
    found = kept_cost(name, settings(name))
    assert found is not None
    assert found.macs == pytest.approx(macs, rel=0.02)
