"""Model Garden's RetinaNets: their network, preprocessing, labels, losses and checkpoints, to the number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import exp_factory
from official.vision.dataloaders import retinanet_input
from official.vision.ops import preprocess_ops
from support.commands import TINY_RUN, odtrain
from support.made_up_model import made_up_model

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import ModelConfig, SharedPredictorConfig
from odtrain.errors import CheckpointError, ConfigError
from odtrain.export.benchmark import BOX_TOLERANCE, SCORE_TOLERANCE, agreement
from odtrain.export.writers import FORMATS, export
from odtrain.models import retinanet
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.training.losses import training_loss
from odtrain.training.retinanet_loss import labels
from odtrain.zoo.restore import restore
from odtrain.zoo.verify import verify_weights
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.resizing import pad

MODELS = ("retinanet_mobile_coco", "retinanet_resnetfpn_coco")
NAMES = ("open", "close")
EXACT = ("pb", "saved_model", "tflite_fp32")
SIZE = 128


def small(model: str, **changes) -> ModelConfig:
    """A model's configuration at 128 px, with thin and few layers before the predictors."""
    config = compose_config([f"model={model}", f"model.input_size={SIZE}"]).model
    thin = section(SharedPredictorConfig, depth=16, layers=1)
    return replace(config, shared_predictor=thin, **changes)


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
    config = made_up_model(name="mine", input_size=64, depth_multiplier=0.1)
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


@pytest.fixture(scope="module")
def changed(model, checkpoint):
    """The network for five classes, in bfloat16, its first two stages frozen, from the checkpoint."""
    network = build_detector(small(model), 5, frozen_stages=2, precision="bf16")
    return network, restore(network, checkpoint)


def test_the_class_predictor_starts_anew_for_another_number_of_classes(changed):
    _, report = changed
    fresh = {row.name: row.reason for row in report.rows if row.status != "restored"}
    assert fresh
    assert all(name.startswith("head/_classifier/") for name in fresh)
    assert set(fresh.values()) == {"2 classes in the checkpoint, 5 here"}
    lines = report.table().splitlines()
    assert lines[2].split()[:2] == ["backbone", "restored"]
    assert any(
        line.split()[:2] == ["head/_classifier", "re-initialised"]
        and line.endswith("2 classes in the checkpoint, 5 here")
        for line in lines
    )


def test_frozen_stages_neither_learn_nor_follow_the_batches(changed):
    network, _ = changed
    learning = {id(variable) for variable in network.trainable_variables}
    names = [name for name, v in network.variables_by_name().items() if id(v) not in learning]
    still = [name for name in names if not name.endswith(("moving_mean", "moving_variance"))]
    assert still
    assert all(name.startswith("backbone/") for name in still)
    owners = {name.rpartition("/")[0] for name in still if name.endswith("/gamma")}
    before = {name: v.numpy() for name, v in network.variables_by_name().items()}
    network.network(noise(2, SIZE, SIZE, 3), training=True)
    follow = {
        name.rpartition("/")[0]
        for name, v in network.variables_by_name().items()
        if name.endswith("/moving_mean") and not np.array_equal(v, before[name])
    }
    assert follow
    assert not follow & owners


def test_bfloat16_keeps_float32_variables_and_outputs(changed, detector):
    network, _ = changed
    assert network.regularization_terms().keys() == detector.regularization_terms().keys()
    assert {v.dtype for v in network.variables_by_name().values()} == {tf.float32}
    encodings, logits = network.network(noise(1, SIZE, SIZE, 3))
    assert (encodings.dtype, logits.dtype) == (tf.float32, tf.float32)
    assert tf_keras.mixed_precision.global_policy().name == "float32"


def test_a_checkpoint_of_another_network_is_refused_by_its_name(tmp_path, checkpoint):
    config = made_up_model(name="mine", input_size=64, depth_multiplier=0.1)
    with pytest.raises(CheckpointError) as error:
        restore(build_detector(config, 2), checkpoint)
    assert "it looks like a RetinaNet of Model Garden" in str(error.value)


# ---- files


def spread(detector: SSD) -> None:
    """Change weights so that scores and boxes differ as after training, no two of them equal."""
    random = np.random.default_rng(5)
    for name, variable in detector.variables_by_name().items():
        if name.endswith(("/gamma", "/beta")):
            variable.assign_add(random.normal(0, 0.2, variable.shape).astype(np.float32))
    encodings, logits = detector.network(noise(2, SIZE, SIZE, 3))
    for name, variable in detector.variables_by_name().items():
        if name.startswith("head/_box_regressor/") and "depthwise" not in name:
            variable.assign(variable / np.std(encodings) * 0.2)
        if name.startswith("head/_classifier/") and name.endswith("kernel"):
            part = 1.0 if "depthwise" in name else 1 / np.std(logits[..., 1:])
            variable.assign(variable * part)
        if name == "head/_classifier/bias":
            variable.assign(np.full(variable.shape, -2, np.float32))


def exported(model, formats, folder):
    detector = build_detector(small(model), len(NAMES), seed=3)
    spread(detector)
    images = [picture(60 + 17 * i, 110, i) for i in range(8)]
    files = export(detector, NAMES, formats, folder, images, "regular", {"run_id": "4f2a"})
    reference = list(map(detector.as_detect(), images[:3]))
    assert max(found.scores.max() for found in reference) > 0.2
    return images[:3], reference, files


def check(images, reference, files):
    for name, file in files.items():
        opened = load_detector(file)
        assert opened.class_names == NAMES
        assert opened.input_size == (SIZE, SIZE)
        found = list(map(opened, images))
        agreed = agreement(reference, found)
        if name in EXACT:
            assert agreed.unmatched == 0, name
            assert agreed.max_box_diff <= BOX_TOLERANCE, name
            assert agreed.max_score_diff <= SCORE_TOLERANCE, name
        else:
            pairs = zip(reference, found, strict=True)
            gaps = [np.abs(a.scores[:50] - b.scores[:50]) for a, b in pairs]
            assert np.mean(gaps) <= 0.05, name


@pytest.mark.long
def test_every_exported_file_finds_what_the_network_finds(model, tmp_path):
    check(*exported(model, [name for name in FORMATS if not name.startswith("onnx")], tmp_path))


# ---- commands


@pytest.mark.long
def test_a_training_from_their_checkpoint_ends_in_files_that_predict(
    model, garden, checkpoint, shapes, tmp_path
):
    done = odtrain(
        [
            "train",
            f"data.images={shapes}",
            f"model={model}",
            f"train.checkpoint={checkpoint}",
            *(word for word in TINY_RUN if not word.startswith("model.")),
            f"model.input_size={SIZE}",
            "model.shared_predictor={depth:16,layers:1}",
            "export.formats=[saved_model,tflite_fp32]",
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "restored" in done.stderr
    (run,) = (tmp_path / "outputs/Default").iterdir()
    again = odtrain(["predict", f"source={run.name}", f"input={shapes}", "output=drawn"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "drawn/predictions.csv").is_file()


@pytest.mark.long
def test_verify_compares_with_what_model_garden_makes_of_the_checkpoint(model, checkpoint):
    config = replace(compose_config([]), model=small(model))
    said = verify_weights(config, Path(checkpoint))
    assert said.startswith(f"{checkpoint}: equal to what Model Garden makes of it on ")
