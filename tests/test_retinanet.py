"""Model Garden's RetinaNets: their network, preprocessing, labels, losses and checkpoints, to the number."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import exp_factory
from official.vision.dataloaders import retinanet_input
from official.vision.ops import preprocess_ops

from odtrain.config import ModelConfig, SharedPredictorConfig, compose_config
from odtrain.errors import ConfigError
from odtrain.losses import training_loss
from odtrain.models import build_detector, retinanet
from odtrain.models.ssd import SSD
from odtrain.retinanet_loss import labels
from odtrain.tflite_detector import pad
from odtrain.zoo import restore

MODELS = ("retinanet_mobile_coco", "retinanet_resnetfpn_coco")
NAMES = ("open", "close")
EXACT = ("pb", "saved_model", "tflite_fp32")
SIZE = 128


def small(model: str, **changes) -> ModelConfig:
    """A model's configuration at 128 px, with thin and few layers before the predictors."""
    config = compose_config([f"model={model}", f"model.input_size={SIZE}"]).model
    config.shared_predictor = SharedPredictorConfig(depth=16, layers=1)
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def theirs(config: ModelConfig, num_classes: int, sync_bn: bool = False):
    """Model Garden's own model of the same experiment, every layer built."""
    task = retinanet.task(config, num_classes)
    task.task_config.override({"model": {"norm_activation": {"use_sync_bn": sync_bn}}})
    model = task.build_model()
    model(tf.zeros((1, *config.size, 3)), training=True)
    return task, model


@pytest.fixture(scope="module", params=[MODELS[0], pytest.param(MODELS[1], marks=pytest.mark.long)])
def model(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def detector(model) -> SSD:
    return build_detector(small(model), len(NAMES), seed=3)


@pytest.fixture(scope="module")
def garden(model):
    """Their task and model, with two classes."""
    return theirs(small(model), len(NAMES))


@pytest.fixture(scope="module")
def checkpoint(garden, tmp_path_factory) -> str:
    """A checkpoint of their model, as their trainer writes it."""
    _, model = garden
    optimizer = tf_keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    everything = tf.train.Checkpoint(
        model=model, optimizer=optimizer, global_step=tf.Variable(7), **model.checkpoint_items
    )
    return everything.save(str(tmp_path_factory.mktemp("garden") / "ckpt"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours, as in photographs: resizing is then the same wherever pixels are taken from."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3))
    return np.asarray(tf.image.resize(coarse, (height, width))).astype(np.uint8)


# ---- configuration


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_numbers_of_model_gardens_experiment(name):
    config = compose_config([f"model={name}"])
    experiment = exp_factory.get_exp_config(name)
    published, ours = experiment.task, retinanet.task(config.model, 90).task_config
    ours.model.norm_activation.use_sync_bn = published.model.norm_activation.use_sync_bn
    ours.model.detection_generator.box_coder_weights = None  # all 1, the same
    assert config.model.box_scales == [1.0, 1.0, 1.0, 1.0]
    assert ours.model.as_dict() == published.model.as_dict()
    assert ours.losses.as_dict() == published.losses.as_dict()
    assert config.model.localization_weight == published.losses.box_loss_weight
    parser = published.train_data.parser
    assert config.model.matched_iou == parser.match_threshold == parser.unmatched_threshold
    generator = published.model.detection_generator
    assert config.model.nms_iou == generator.nms_iou_threshold
    assert config.model.max_detections == generator.max_num_detections
    assert config.model.input_multiple == 2**published.model.max_level
    assert config.train.schedule_steps == experiment.trainer.train_steps
    optimizer = experiment.trainer.optimizer_config
    assert config.train.warmup_steps == optimizer.warmup.linear.warmup_steps
    assert config.train.momentum == optimizer.optimizer.sgd.momentum
    batch = published.train_data.global_batch_size
    rate = optimizer.learning_rate.stepwise.values[0]
    assert config.train.learning_rate == pytest.approx(rate * config.train.batch_size / batch)


def test_a_size_that_its_maps_do_not_divide_is_refused_before_anything_begins():
    with pytest.raises(ConfigError) as error:
        compose_config(["model=retinanet_mobile_coco", "model.input_size=300"])
    assert str(error.value) == (
        "model.input_size=300: retinanet_mobile_coco takes multiples of 128 pixels alone: its coarsest "
        "map has cells that large.\n  Give 256 or 384, for example."
    )


def test_a_depth_multiplier_is_refused():
    with pytest.raises(ConfigError) as error:
        build_detector(small(MODELS[0], depth_multiplier=0.5), 2)
    assert str(error.value) == (
        "model.depth_multiplier=0.5: retinanet_mobile_coco has one width.\n"
        "  Leave it out; model.input_size makes the network quicker."
    )


def test_their_loss_is_for_their_models():
    config = ModelConfig(name="mine", architecture="ssd_mobilenet_v1", input_size=64)
    config.depth_multiplier = 0.1
    ssd = build_detector(config, 2)
    with pytest.raises(ConfigError) as error:
        training_loss(ssd, {}, tf.zeros((1, 1, 4)), tf.zeros((1, 1, 3)), "retinanet")
    assert str(error.value) == (
        "train.loss=retinanet: mine is not one of Model Garden's models.\n"
        "  Give train.loss=hard_mining or train.loss=focal."
    )


# ---- preprocessing, labels and losses


SHAPES = [(60, 110), (110, 60), (97, 97), (300, 211), (128, 128)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_pads_as_the_network_and_as_model_garden(shape):
    config = small(MODELS[0])
    image = picture(*shape)
    padded = pad(image, config.size)
    colours = (padded - preprocess_ops.MEAN_RGB) / preprocess_ops.STDDEV_RGB
    expected, _ = preprocess_ops.resize_and_crop_image(
        preprocess_ops.normalize_image(image), list(config.size), padded_size=list(config.size)
    )
    np.testing.assert_allclose(colours, expected, atol=1e-4)


def objects(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 0.6, (count, 2))
    sides = random.uniform(0.1, 0.4, (count, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return boxes, random.integers(1, len(NAMES) + 1, count)


PICTURES = [((60, 110), 3), ((110, 61), 0), ((200, 200), 5)]
"""Shape, and number of objects."""


@pytest.fixture(scope="module")
def both(detector):
    """A batch as odtrain feeds it, and images and labels as Model Garden's parser makes them."""
    config = detector.config
    parser = retinanet_input.Parser(
        output_size=list(config.size),
        min_level=3,
        max_level=7,
        num_scales=config.pyramid.scales_per_octave,
        aspect_ratios=list(config.pyramid.aspect_ratios),
        anchor_size=config.pyramid.anchor_scale,
        dtype="float32",
    )
    batch = {"images": [], "boxes": [], "classes": [], "counts": []}
    images, parsed = [], []
    for seed, (shape, count) in enumerate(PICTURES):
        image, (boxes, classes) = picture(*shape, seed), objects(seed, count)
        example = {
            "image": tf.constant(image),
            "groundtruth_classes": tf.constant(classes, tf.int64),
            "groundtruth_boxes": tf.constant(boxes.reshape(-1, 4)),
            "groundtruth_is_crowd": tf.zeros([count], tf.bool),
        }
        fed, asked = parser._parse_train_data(example)
        images.append(fed)
        parsed.append(asked)
        batch["images"].append(detector.resize(image))
        batch["boxes"].append(np.pad(boxes * detector.extent(image), [(0, 5 - count), (0, 0)]))
        batch["classes"].append(np.pad(classes, (0, 5 - count)))
        batch["counts"].append(count)
    stacked = tf.nest.map_structure(lambda *x: tf.stack(x), *parsed)
    return {key: tf.stack(value) for key, value in batch.items()}, tf.stack(images), stacked


def flat(levels, *width: int) -> np.ndarray:
    return np.concatenate(
        [np.reshape(levels[key], (len(PICTURES), -1, *width)) for key in sorted(levels)], axis=1
    )


def test_pictures_reach_the_network_as_model_gardens_parser_brings_them(detector, both):
    batch, images, _ = both
    colours = retinanet.Normalised()(detector.normalize(batch["images"]))
    np.testing.assert_allclose(colours, images, atol=1e-4)


def test_anchors_are_labelled_as_model_gardens_parser_labels_them(detector, both):
    batch, _, parsed = both
    asked = labels(detector, batch)
    np.testing.assert_array_equal(asked["cls_targets"]["all"], flat(parsed["cls_targets"]))
    np.testing.assert_array_equal(asked["cls_weights"], parsed["cls_weights"])
    np.testing.assert_array_equal(asked["box_weights"], parsed["box_weights"])
    assert 0 < np.sum(asked["box_weights"])
    counted = np.asarray(asked["box_weights"]) > 0
    np.testing.assert_allclose(
        np.asarray(asked["box_targets"]["all"])[counted],
        flat(parsed["box_targets"], 4)[counted],
        atol=1e-4,
    )


def test_anchors_are_model_gardens(detector, both):
    _, _, parsed = both
    pixels = flat(parsed["anchor_boxes"], 4)[0]
    np.testing.assert_allclose(detector.anchors * SIZE, pixels, rtol=1e-6, atol=1e-5)


def test_the_loss_is_what_model_gardens_task_computes(detector, garden, both, checkpoint):
    restore(detector, checkpoint)
    task, model = garden
    batch, images, parsed = both
    outputs = model(images, training=False)  # in training SpineNet leaves blocks out at random
    _, classes, boxes, total = task.build_losses(outputs, parsed)
    encodings, logits = detector.network(detector.normalize(batch["images"]), training=False)
    found = training_loss(detector, batch, encodings, logits, "retinanet")
    np.testing.assert_allclose(found[0], 50 * boxes, rtol=1e-3)
    np.testing.assert_allclose(found[1], classes, rtol=1e-3)
    np.testing.assert_allclose(sum(found), total, rtol=1e-3)


def test_the_regulariser_is_model_gardens(detector, garden, checkpoint):
    restore(detector, checkpoint)
    _, model = garden
    np.testing.assert_allclose(detector.regularization(), tf.add_n(model.losses), rtol=1e-5)


# ---- weights


def test_a_checkpoint_of_model_garden_gives_every_variable(detector, garden, checkpoint):
    report = restore(detector, checkpoint)
    assert {row.status for row in report.rows} == {"restored"}
    assert report.unused.keys() == {"training state", "step counter"}
    _, model = garden
    images = noise(2, SIZE, SIZE, 3)
    outputs = model(retinanet.Normalised()(images), training=False)
    encodings, logits = detector.network(images, training=False)
    boxes = np.concatenate(
        [np.reshape(outputs["box_outputs"][level], (2, -1, 4)) for level in "34567"], axis=1
    )
    classes = np.concatenate(
        [np.reshape(outputs["cls_outputs"][level], (2, -1, 3)) for level in "34567"], axis=1
    )
    np.testing.assert_allclose(encodings, boxes, atol=1e-5)
    np.testing.assert_allclose(logits, classes, atol=1e-5)
