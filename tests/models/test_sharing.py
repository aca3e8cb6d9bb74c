from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from support.made_up_model import made_up_model
from support.often import long_but

from odtrain.errors import ConfigError
from odtrain.models import build
from odtrain.models.build import ARCHITECTURES, build_detector, copy_weights

pytestmark = pytest.mark.slow

PYRAMID = "ssd_mobilenet_v2_fpnlite"


def small(architecture, size=64):
    if architecture.startswith("ssd"):
        narrow = {"depth_multiplier": 0.25, "min_depth": 8, "initializer": "he"}
        return made_up_model(architecture=architecture, input_size=size, **narrow)
    side = 256 if architecture.startswith("retinanet") else 128
    return made_up_model(architecture=architecture, input_size=side)


def other_size(model):
    return (model.size[0] + 128, model.size[1]) if model.size[0] == 256 else (96, 160)


@pytest.mark.parametrize("architecture", long_but(ARCHITECTURES, ["ssd_mobilenet_v1"]))
def test_at_another_size_a_network_has_the_same_variables_and_says_what_one_built_for_it_says(
    architecture,
):
    model = small(architecture)
    detector = build_detector(model, 2)
    before = [variable.ref() for variable in detector.network.variables]
    size = other_size(model)
    other = detector.at_size(size)
    alone = build_detector(replace(model, input_size=list(size)), 2, seed=1)
    copy_weights(detector, alone)

    assert {variable.ref() for variable in other.network.variables} == set(before)
    assert [variable.ref() for variable in detector.network.variables] == before
    np.testing.assert_array_equal(other.anchors, alone.anchors)
    images = np.random.default_rng(0).uniform(-1, 1, (1, *size, 3)).astype(np.float32)
    for mine, theirs in zip(other.network(images), alone.network(images), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_layers_that_compute_in_less_than_float32_share_what_they_cast():
    detector = build_detector(small("ssd_mobilenet_v1"), 2, precision="bf16", frozen_stages=1)
    other = detector.at_size((96, 96))
    assert len(other.network.trainable_variables) == len(detector.network.trainable_variables)
    detector.network.trainable_variables[0].assign_add(
        tf.ones_like(detector.network.trainable_variables[0])
    )
    np.testing.assert_array_equal(
        other.network.trainable_variables[0], detector.network.trainable_variables[0]
    )


def test_the_network_that_is_exported_knows_nothing_of_the_others():
    detector = build_detector(small("ssd_mobilenet_v1"), 2)
    held = len(tf.train.TrackableView(detector).descendants())
    detector.at_size((96, 96))
    assert len(tf.train.TrackableView(detector).descendants()) == held


def wider(first, builder, config, *rest):
    return builder(config if first else replace(config, depth_multiplier=0.5), *rest)


def longer(first, builder, *rest):
    parts = builder(*rest)
    if not first:
        tf.Variable([0.0], name="further")
    return parts


def shorter(first, builder, *rest):
    parts = builder(*rest)
    if first:
        tf.Variable([0.0], name="further")
    return parts


def swapped(first, builder, config, num_classes, make, images):
    parts = builder(config, num_classes, make, images)
    if not first:
        gamma, beta = (
            f"FeatureExtractor/MobilenetV1/Conv2d_0/BatchNorm/{x}" for x in ("gamma", "beta")
        )
        held = make.record.variables
        held[gamma], held[beta] = held[beta], held[gamma]
    return parts


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (wider, "kernel (3, 3, 3, 16), where the first has (3, 3, 3, 8)"),
        (longer, "further (1,) beyond those of the first"),
        (shorter, "variables fewer, 1 in all"),
        (swapped, "another FeatureExtractor/MobilenetV1/Conv2d_0/BatchNorm/beta"),
    ],
)
def test_a_network_that_is_another_at_another_size_is_refused(other, difference, monkeypatch):
    model, builder = small("ssd_mobilenet_v1"), ARCHITECTURES["ssd_mobilenet_v1"]

    def by_size(config, *rest):
        return other(config.size == model.size, builder, config, *rest)

    monkeypatch.setitem(build.ARCHITECTURES, "ssd_mobilenet_v1", by_size)
    detector = build_detector(model, 2)
    with pytest.raises(ConfigError) as caught:
        detector.at_size((96, 96))
    assert str(caught.value) == (
        "train.multi_scale: ssd_mobilenet_v1 at 96x96 is another network than at 64x64: "
        f"it has {difference}.\n  Leave it out."
    )
