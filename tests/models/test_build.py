from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from odtrain.config.compose import section
from odtrain.config.schema import ModelConfig
from odtrain.errors import ConfigError
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.training.target_assigner import encode_boxes

STAGE_BLOCKS = {1: (0, 1), 2: (2, 3), 3: (4, 5), 4: (6, 11), 5: (12, 13)}


def config(**changes) -> ModelConfig:
    options = {"input_size": 64, "depth_multiplier": 0.25, "min_depth": 8} | changes
    return section(ModelConfig, name="small", architecture="ssd_mobilenet_v1", **options)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def small() -> SSD:
    return build_detector(config(), 3)


def test_full_size_has_the_published_number_of_parameters():
    detector = build_detector(config(input_size=300, depth_multiplier=1.0, min_depth=16), 90)
    learned = sum(int(np.prod(v.shape)) for v in detector.trainable_variables)
    everything = sum(int(np.prod(v.shape)) for v in detector.variables_by_name().values())
    assert (learned, everything) == (6_819_839, 6_845_183)


@pytest.mark.parametrize(
    ("size", "depth", "min_depth", "classes"),
    [
        pytest.param([96, 160], 0.25, 8, 3, id="wide"),
        pytest.param([129, 65], 0.35, 8, 1, id="high, odd"),
        pytest.param(160, 0.5, 16, 20, id="half depth"),
        pytest.param(32, 0.1, 8, 2, id="as small as it gets"),
    ],
)
def test_any_size_depth_and_number_of_classes(size, depth, min_depth, classes):
    detector = build_detector(
        config(input_size=size, depth_multiplier=depth, min_depth=min_depth), classes
    )
    encodings, logits = detector.network(noise(2, *detector.config.size, 3))
    anchors = len(detector.anchors)
    assert encodings.shape == (2, anchors, 4)
    assert logits.shape == (2, anchors, classes + 1)


@pytest.mark.parametrize(
    ("depth", "min_depth", "first", "name"),
    [
        pytest.param(0.25, 8, 8, "1x1_16", id="quarter"),
        pytest.param(0.25, 16, 16, "1x1_16", id="quarter, at least 16"),
        pytest.param(0.35, 8, 11, "1x1_22", id="rounded down"),
        pytest.param(1.0, 16, 32, "1x1_64", id="full"),
    ],
)
def test_layers_are_as_wide_as_their_names_say(depth, min_depth, first, name):
    variables = build_detector(
        config(depth_multiplier=depth, min_depth=min_depth), 1
    ).variables_by_name()
    scope = "FeatureExtractor/MobilenetV1"
    assert variables[f"{scope}/Conv2d_0/weights"].shape == (3, 3, 3, first)
    weights = variables[f"{scope}/Conv2d_13_pointwise_1_Conv2d_5_{name}/weights"]
    assert weights.shape[-1] == int(name.split("_")[1])


def test_maps_halve_from_a_sixteenth_on():
    detector = build_detector(config(input_size=[96, 160]), 1)
    shapes = [tuple(x.shape[1:3]) for x in detector.maps]
    assert shapes == [(6, 10), (3, 5), (2, 3), (1, 2), (1, 1), (1, 1)]


def test_the_seed_decides_the_first_weights(small):
    again, other = build_detector(config(), 3), build_detector(config(), 3, seed=1)
    for name, variable in small.variables_by_name().items():
        np.testing.assert_array_equal(variable, again.variables_by_name()[name])
        if name.endswith("weights"):
            assert np.any(variable.numpy() != other.variables_by_name()[name].numpy()), name


@pytest.mark.parametrize(
    ("initializer", "name", "stddev"),
    [
        pytest.param("truncated_normal", "BoxPredictor_1/BoxEncodingPredictor/weights", 0.03),
        pytest.param(
            "truncated_normal", "FeatureExtractor/MobilenetV1/Conv2d_13_pointwise/weights", 0.09
        ),
        pytest.param(
            "he", "FeatureExtractor/MobilenetV1/Conv2d_13_pointwise/weights", (2 / 256) ** 0.5
        ),
        pytest.param(
            "he",
            "FeatureExtractor/MobilenetV1/Conv2d_13_depthwise/depthwise_weights",
            (2 / 9) ** 0.5,
        ),
    ],
)
def test_first_kernels_are_spread_as_the_initializer_says(initializer, name, stddev):
    weights = build_detector(config(initializer=initializer), 3).variables_by_name()[name]
    truncation = 0.88  # the spread left of a normal cut at two standard deviations
    expected = stddev if "pointwise" in name and initializer == "he" else truncation * stddev
    assert float(tf.math.reduce_std(weights)) == pytest.approx(expected, rel=0.05)


def test_foreground_classes_begin_with_the_class_bias():
    biases = build_detector(config(class_bias=-2.0), 2).variables_by_name()
    np.testing.assert_array_equal(
        biases["BoxPredictor_0/ClassPredictor/biases"], np.tile([0.0, -2.0, -2.0], 3)
    )


@pytest.mark.parametrize("stages", [0, 3, 5])
def test_frozen_stages_learn_nothing_and_cost_no_backward_pass(stages):
    detector = build_detector(config(), 2, frozen_stages=stages)
    images = noise(2, 64, 64, 3)
    before = {name: v.numpy() for name, v in detector.variables_by_name().items()}
    trainable = {id(v) for v in detector.trainable_variables}

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            encodings, logits = detector.network(images, training=True)
            loss = tf.reduce_sum(encodings**2) + tf.reduce_sum(logits**2)
        return tape.gradient(loss, detector.trainable_variables)

    assert all(g is not None for g in gradients())
    operations = gradients.get_concrete_function().graph.get_operations()
    backward = [op for op in operations if op.type == "DepthwiseConv2dNativeBackpropFilter"]
    learning_blocks = 13 - (STAGE_BLOCKS[stages][1] if stages else 0)
    assert len(backward) == learning_blocks
    for name, variable in detector.variables_by_name().items():
        frozen = is_in_stage(name, stages)
        if "moving" in name:
            assert np.array_equal(variable, before[name]) == frozen, name
        else:
            assert (id(variable) in trainable) != frozen, name


def is_in_stage(name: str, last: int) -> bool:
    layer = name.split("/")[2].split("_") if name.startswith("Feature") else []
    if not layer or len(layer) > 3:
        return False
    return last > 0 and int(layer[1]) <= STAGE_BLOCKS[last][1]


def test_batch_norm_that_is_not_trained_keeps_its_statistics_and_learns_its_scale():
    detector = build_detector(config(), 2, batch_norm_trained=False)
    images = noise(2, 64, 64, 3)
    trained = detector.network(images, training=True)[0]
    np.testing.assert_array_equal(trained, detector.network(images, training=False)[0])
    names = {id(v): name for name, v in detector.variables_by_name().items()}
    assert sum("gamma" in names[id(v)] for v in detector.trainable_variables) == 35


def test_bfloat16_keeps_float32_variables_and_outputs():
    fast, exact = build_detector(config(), 3, precision="bf16"), build_detector(config(), 3)
    assert {v.dtype for v in fast.variables_by_name().values()} == {tf.float32}
    images = noise(2, 64, 64, 3)
    (encodings, logits), (expected, _) = fast.network(images), exact.network(images)
    assert (encodings.dtype, logits.dtype) == (tf.float32, tf.float32)
    assert (
        0
        < float(tf.reduce_max(tf.abs(encodings - expected)))
        < 0.05 * float(tf.reduce_max(tf.abs(expected)))
    )
    convolution = fast.network.get_layer("FeatureExtractor/MobilenetV1/Conv2d_0")
    assert convolution.compute_dtype == "bfloat16"


def test_a_checkpoint_fits_a_network_that_is_frozen_differently(tmp_path):
    source = build_detector(config(), 3, seed=5)
    prefix = tf.train.Checkpoint(model=source).save(tmp_path / "ckpt")
    target = build_detector(config(), 3, frozen_stages=3, batch_norm_trained=False)
    tf.train.Checkpoint(model=target).restore(prefix).assert_consumed()
    for name, variable in source.variables_by_name().items():
        np.testing.assert_array_equal(variable, target.variables_by_name()[name])


def test_checkpoints_name_variables_as_slim_did(small, tmp_path):
    prefix = tf.train.Checkpoint(model=small).save(tmp_path / "ckpt")
    keys = {key for key, _ in tf.train.list_variables(prefix)}
    assert "model/weights/BoxPredictor_0.SClassPredictor.Sbiases/.ATTRIBUTES/VARIABLE_VALUE" in keys


def test_convolutions_are_regularised_and_nothing_else(small):
    terms = small.regularization_terms()
    kernels = {name for name in small.variables_by_name() if name.endswith("weights")}
    assert set(terms) == kernels
    name = "BoxPredictor_0/ClassPredictor/weights"
    squares = np.sum(small.variables_by_name()[name].numpy() ** 2)
    assert float(terms[name]) == pytest.approx(0.5 * 4e-5 * squares, rel=1e-5)
    assert float(small.regularization()) == pytest.approx(sum(map(float, terms.values())), rel=1e-5)


def test_resizing_takes_pixels_as_tensorflow_1_did(small):
    ramp = np.repeat(np.arange(128, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(128, axis=0)
    resized = small.resize(ramp).numpy()
    assert resized.shape == (64, 64, 3)
    np.testing.assert_array_equal(resized[0, :, 0], np.arange(0, 128, 2))


def test_resizing_does_not_round(small):
    resized = small.resize(np.arange(48, dtype=np.uint8).reshape(1, 48, 1).repeat(3, axis=2))
    assert float(resized[0, 1, 0]) == 0.75


def test_pictures_are_normalised_to_minus_one_to_one(small):
    found = small.normalize(np.array([0, 127.5, 255]))
    assert found.numpy().tolist() == [-1.0, 0.0, 1.0]
    assert found.dtype == tf.float32


def encodings_of(detector: SSD, boxes: dict[int, list[float]]) -> tf.Tensor:
    """Encodings that decode to the anchors, but for the given anchors to the given boxes."""
    wanted = detector.anchors.copy()
    for anchor, box in boxes.items():
        wanted[anchor] = box
    return encode_boxes(tf.constant(wanted), detector.anchors)[None]


def test_postprocessing_suppresses_per_class_and_drops_what_is_outside(small):
    near, nearer = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.51]
    outside, half = [1.1, 1.1, 1.4, 1.4], [0.5, 0.8, 0.7, 1.2]
    encodings = encodings_of(small, {0: near, 1: nearer, 2: nearer, 3: outside, 4: half})
    logits = np.full((1, len(small.anchors), 4), -50.0, np.float32)
    for anchor, (column, logit) in enumerate([(1, 3.0), (1, 2.0), (2, 1.0), (3, 4.0), (3, 0.0)]):
        logits[0, anchor, column] = logit
    boxes, scores, classes, number = small.postprocess(encodings, tf.constant(logits))
    assert number.numpy().tolist() == [3]
    expected = [near, nearer, [0.5, 0.8, 0.7, 1.0]]
    np.testing.assert_allclose(boxes[0, :3], expected, atol=1e-6)
    np.testing.assert_allclose(scores[0, :3], tf.sigmoid([3.0, 1.0, 0.0]), rtol=1e-5)
    assert classes[0, :4].numpy().tolist() == [1, 2, 3, 1]
    assert boxes.shape == (1, 100, 4)
    assert not boxes[0, 3:].numpy().any()
    assert not scores[0, 3:].numpy().any()


def test_a_network_with_few_anchors_still_gives_full_rows():
    detector = build_detector(replace(config(), input_size=16), 1)
    boxes, *_ = detector.detect_batch(np.zeros((2, 20, 30, 3), np.uint8))
    assert boxes.shape == (2, 100, 4)


def test_a_detector_takes_pictures_of_any_size_and_follows_its_weights():
    detector = build_detector(config(), 3)
    detect = detector.as_detect()
    picture = np.random.default_rng(0).integers(0, 256, (70, 50, 3), np.uint8)
    before = detect(picture)
    assert before.boxes.dtype == before.scores.dtype == np.float32
    assert before.classes.dtype == np.int64
    assert set(before.classes) <= {1, 2, 3}
    assert len(before) == len(before.boxes) <= 100
    assert np.all(np.diff(before.scores) <= 0)
    for name, variable in detector.variables_by_name().items():
        if name.endswith("ClassPredictor/biases"):
            variable.assign(variable - 3.0)
    assert detect(picture[:40]).scores.max() < 0.1 < before.scores.max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"config": replace(config(), initializer="xavier")},
            'model.initializer: unknown "xavier".\n  Choose one of: he, random_normal, truncated_normal.',
            id="initializer",
        ),
        pytest.param(
            {"precision": "fp16"},
            'train.precision: unknown "fp16".\n  Choose one of: bf16, fp32.',
            id="precision",
        ),
    ],
)
def test_an_unknown_choice_is_refused_with_the_choices(options, message):
    with pytest.raises(ConfigError) as error:
        build_detector(**({"config": config(), "num_classes": 1} | options))
    assert str(error.value) == message


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError) as error:
        build_detector(section(ModelConfig, name="x", architecture="yolo", input_size=64), 1)
    first, second = str(error.value).split("\n")
    assert first == 'model.architecture: unknown "yolo".'
    assert second.startswith("  Choose one of: ")
    assert "ssd_mobilenet_v1" in second
