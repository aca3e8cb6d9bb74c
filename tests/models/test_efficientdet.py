"""EfficientDet-Lite against tensors of google/automl's own code, in ../shared/golden/efficientdet_lite0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from support.golden_efficientdet import (
    CLASSES,
    LEVELS,
    PICTURES,
    assign,
    batch,
    flat,
    golden_model,
    golden_weights,
    losses_and_gradients,
    picture,
)
from support.often import long_but
from support.tf1_checkpoints import write_checkpoint

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.export.writers import export
from odtrain.models.build import build_detector
from odtrain.training.efficientdet_loss import targets
from odtrain.training.losses import training_loss
from odtrain.zoo.restore import restore
from odtrain_runtime import resizing
from odtrain_runtime.resizing import pad

PROJECT = Path(__file__).resolve().parents[2]
LOSSES = {"frozen_bn": 1e-4, "train": 3e-4, "survival": 3e-4}
"""Parts of the golden with losses, and how far ours may stray, as a share (its README, section 10)."""


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "golden" / "efficientdet_lite0"


@pytest.fixture(scope="module")
def golden(folder):
    return np.load(folder / "golden.npz")


@pytest.fixture(scope="module")
def fresh():
    return build_detector(golden_model(), CLASSES)


@pytest.fixture(scope="module")
def values(golden, fresh):
    shapes = {name: v.shape.as_list() for name, v in fresh.variables_by_name().items()}
    return golden_weights(golden, shapes)


@pytest.fixture(scope="module")
def detector(fresh, values):
    assign(fresh, values)
    return fresh


@pytest.fixture(scope="module")
def fed(detector, golden):
    return batch(detector, golden)


@pytest.fixture(scope="module")
def predictions(detector, fed):
    return detector.network(detector.normalize(fed["images"]), training=False)


def listed(folder, member):
    return json.loads((folder / f"variables_lite{member}.json").read_text())


# ---- the network


def test_it_has_the_golden_s_variables_and_values(detector, golden):
    found = detector.variables_by_name()
    assert set(found) == set(golden["variable_names"])
    norms = [np.linalg.norm(found[name].numpy().astype(float)) for name in golden["variable_names"]]
    np.testing.assert_allclose(norms, golden["variable_norms"], rtol=1e-6)
    ours = {id(v) for v in detector.trainable_variables}
    learning = {name for name, v in found.items() if id(v) in ours}
    assert learning == set(golden["trainable_names"])


@pytest.mark.parametrize("member", long_but(range(5), (0,)))
def test_every_member_has_automl_s_variables(folder, member):
    expected = {row[0]: row[1] for row in listed(folder, member)["variables"]}
    detector = build_detector(compose_config([f"model=efficientdet_lite{member}_coco"]).model, 90)
    found = {name: v.shape.as_list() for name, v in detector.variables_by_name().items()}
    assert found == expected


@pytest.mark.parametrize("member", range(5))
def test_the_settings_are_automl_s(folder, member):
    theirs = json.loads((folder / "hparams.json").read_text())[f"efficientdet-lite{member}"]
    config = compose_config([f"model=efficientdet_lite{member}_coco"])
    model, train = config.model, config.train
    expected = {
        "image_size": model.input_size,
        "anchor_scale": model.pyramid.anchor_scale,
        "num_scales": model.pyramid.scales_per_octave,
        "aspect_ratios": model.pyramid.aspect_ratios,
        "min_level": model.pyramid.min_level,
        "max_level": model.pyramid.max_level,
        "fpn_num_filters": model.pyramid.depth,
        "fpn_cell_repeats": model.pyramid.cells,
        "box_class_repeats": model.shared_predictor.layers,
        "alpha": model.focal_alpha,
        "gamma": model.focal_gamma,
        "delta": model.huber_delta,
        "box_loss_weight": model.localization_weight,
        "weight_decay": model.l2,
        "survival_prob": None,
        "mean_rgb": resizing.GREY,
        "clip_gradients_norm": train.clip_norm,
        "moving_average_decay": train.ema_decay,
        "momentum": train.momentum,
    }
    assert {key: theirs[key] for key in expected} == expected
    assert train.clip_each == train.clip_norm
    backbone = theirs["backbone_global_params"]
    assert backbone["survival_prob"] == model.survival_probability
    assert backbone["width_coefficient"] == model.depth_multiplier
    assert backbone["depth_coefficient"] == model.repeat_multiplier
    assert backbone["batch_norm_epsilon"] == model.batch_norm_epsilon
    assert backbone["batch_norm_momentum"] == model.batch_norm_decay


def test_anchors(detector, golden):
    np.testing.assert_allclose(detector.anchors * 320, golden["anchors"], atol=5e-5)


def test_raw_predictions(predictions, golden):
    encodings, logits = predictions
    for found, key, width in ((encodings, "box", 4), (logits, "class", CLASSES)):
        expected = flat(golden, f"infer/{key}_{{}}", width)
        np.testing.assert_allclose(found, expected, atol=3e-3)
        assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)


def test_decoded_boxes_and_scores(detector, golden):
    stored = (flat(golden, "infer/box_{}", 4), flat(golden, "infer/class_{}", CLASSES))
    boxes, scores = detector.decode(tf.constant(stored[0])), detector.scores(stored[1])
    np.testing.assert_allclose(
        boxes[:, ::7] * 320, golden["post/boxes_every_7th"], rtol=1e-5, atol=1e-3
    )
    best = np.max(scores, axis=-1)[:, ::7]
    np.testing.assert_allclose(best, golden["post/scores_every_7th"], atol=1e-6)


# ---- pictures


def test_preprocessing(detector, fed, golden):
    found = detector.normalize(fed["images"])
    # The network's first layer brings -1 to 1 to automl's colours.
    colours = detector.network.get_layer("colours")(found)
    np.testing.assert_allclose(colours, golden["preprocessed"], atol=1e-6)
    enlarged = detector.normalize(detector.resize(picture(3, 97, 143)))
    colours = detector.network.get_layer("colours")(enlarged)
    np.testing.assert_allclose(colours[::3, ::3], golden["enlarged_97x143_every_3rd"], atol=1e-6)


def test_scaled_sizes(detector, golden):
    for height, width, *scaled, _ in golden["scale_table"].astype(int).tolist():
        assert resizing.fitted((height, width), (320, 320), resizing.PAD_GREY) == tuple(scaled)
    sizes = np.array([detector.extent(picture(*which))[:2] * 320 for which in PICTURES])
    np.testing.assert_allclose(sizes, [golden["scaled_size_0"], golden["scaled_size_1"]], rtol=1e-6)


@pytest.mark.parametrize("which", PICTURES)
def test_a_file_frames_as_the_network(detector, which):
    image = picture(*which)
    found = pad(image, (320, 320), resizing.PAD_GREY)
    np.testing.assert_allclose(found, detector.resize(image), atol=1e-3)


# ---- targets, losses, gradients


def test_targets(detector, fed, golden):
    asked = targets(detector, fed)
    matches = np.asarray(asked.matches)
    for index in range(2):
        np.testing.assert_array_equal(matches[index], golden[f"targets/match_{index}"])
    np.testing.assert_array_equal(np.sum(asked.positive, axis=1), golden["num_positives"])
    classes = np.where(asked.positive, np.argmax(asked.class_targets, axis=-1) - 1, -1)
    np.testing.assert_array_equal(classes, flat(golden, "targets/cls_targets_{}", 1)[..., 0])
    boxes = flat(golden, "targets/box_targets_{}", 4)
    np.testing.assert_allclose(asked.box_targets, boxes, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(asked.box_targets) == 0, boxes == 0)


def check_losses(found, regularization, golden, part):
    allowed = LOSSES[part]
    assert float(found[0]) == pytest.approx(50 * float(golden[f"{part}/box_loss"]), rel=allowed)
    assert float(found[1]) == pytest.approx(float(golden[f"{part}/class_loss"]), rel=allowed)
    whole = float(golden[f"{part}/regularization_loss"])
    assert float(regularization) == pytest.approx(whole, rel=1e-6)


def test_losses(detector, fed, predictions, golden):
    found = training_loss(detector, fed, *predictions, "efficientdet")
    check_losses(found, detector.regularization(), golden, "frozen_bn")


def check_gradients(gradients, golden, part):
    names = golden["trainable_names"]
    norms = np.array([np.linalg.norm(gradients[f"gradient/{name}"]) for name in names])
    expected = golden[f"{part}/grad_norm"]
    whole = float(golden[f"{part}/global_grad_norm"])
    assert np.linalg.norm(norms) == pytest.approx(whole, rel=0.03)
    counted = expected > 1e-3 * expected.max()
    away = np.abs(norms / expected - 1)[counted]
    assert away.max() < 0.1
    assert np.median(away) < 0.02
    compared = 0
    for key in golden.files:
        if key.startswith(f"{part}/grad/") and "-predict/" in key:
            stored, found = golden[key], gradients[f"gradient/{key.removeprefix(f'{part}/grad/')}"]
            assert np.linalg.norm(found - stored) < 1e-3 * np.linalg.norm(stored), key
            compared += 1
    assert compared


@pytest.mark.long
def test_gradients_with_frozen_batch_norm(detector, fed, golden):
    found = tf.function(losses_and_gradients)(detector, fed, training=False)
    check_losses(found["losses"][:2], found["losses"][2], golden, "frozen_bn")
    check_gradients(found, golden, "frozen_bn")


@pytest.fixture(scope="module")
def stepped(folder, tmp_path_factory):
    """What the part, `train` or `survival`, of the golden gives without oneDNN's kernels."""

    @cache
    def step(part):
        output = tmp_path_factory.mktemp("golden") / f"{part}.npz"
        script = PROJECT / "tests" / "support" / "golden_efficientdet.py"
        quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(
            [sys.executable, script, folder, part, output],
            env={**os.environ, **quiet, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'runtime'}"},
            check=True,
        )
        return dict(np.load(output))

    return step


@pytest.mark.long
@pytest.mark.parametrize("part", ["train", "survival"])
def test_losses_in_training(stepped, golden, part):
    first = stepped(part)["losses"][0]
    check_losses(first[:2], first[2], golden, part)


@pytest.mark.long
def test_gradients_in_training(stepped, golden):
    check_gradients(stepped("train"), golden, "train")


@pytest.mark.long
def test_gradients_with_stochastic_depth(stepped, golden):
    found = stepped("survival")
    norm = np.linalg.norm([np.linalg.norm(v) for k, v in found.items() if k.startswith("gradient")])
    assert norm == pytest.approx(float(golden["survival/global_grad_norm"]), rel=0.03)


@pytest.mark.long
def test_blocks_survive_as_often_as_automl_s(golden):
    network = build_detector(golden_model(survival_probability=0.8), CLASSES).network
    survivals = [x.probability for x in network.layers if "survival" in x.name]
    expected = golden["survival/block_p_u0_u1_keep0_keep1"][:, 1]
    np.testing.assert_allclose(survivals, expected, rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("key", "output", "width"), [("box", "encodings", 4), ("class", "logits", CLASSES)]
)
def test_raw_predictions_in_training(stepped, golden, key, output, width):
    found, first = stepped("train")[output], 0
    for level, side in zip(LEVELS, (40, 20, 10, 5, 3), strict=True):
        cells = found[:, first : first + side**2 * 9].reshape(2, side, side, 9 * width)
        thinned = cells[:, ::3, ::3] if level < 5 else cells
        stored = golden[f"train/{key}_{level}"]
        np.testing.assert_allclose(thinned, stored, atol=2e-2)
        assert np.linalg.norm(thinned - stored) < 1e-2 * np.linalg.norm(stored)
        first += side**2 * 9


@pytest.mark.long
@pytest.mark.parametrize(
    ("ours", "theirs", "allowed"),
    [
        ("variable", "train/bn_after_1_update", 1e-3),
        ("variable", "steps/after_1/variable", 1e-3),
        ("average", "steps/after_1/average", 1e-3),
        ("momentum", "steps/after_1/momentum", 1e-3),
    ],
)
def test_one_step_of_batch_norm_clipping_momentum_and_averages(
    stepped, golden, ours, theirs, allowed
):
    found = stepped("train")
    keys = [key for key in golden.files if key.startswith(f"{theirs}/")]
    assert keys
    for key in keys:
        value = found[f"{ours}{key.removeprefix(theirs)}"]
        np.testing.assert_allclose(value, golden[key], rtol=1e-3, atol=allowed, err_msg=key)


@pytest.mark.long
def test_the_losses_of_three_steps(stepped, golden):
    whole = stepped("train")["losses"].sum(axis=1)
    np.testing.assert_allclose(whole, golden["steps/loss"], rtol=0.01)


# ---- weights


def moved(values):
    """Plain values that are none of the network's: it is to get the averages."""
    return {name: value + 1 for name, value in values.items()}


def test_of_a_checkpoint_that_names_variables_it_gets_the_averages(values, tmp_path):
    averages = {f"{name}/ExponentialMovingAverage": value for name, value in values.items()}
    step = {"global_step": np.int64(7)}
    prefix = write_checkpoint(tmp_path / "model.ckpt-7", moved(values) | averages | step)
    network = build_detector(golden_model(), CLASSES)
    report = restore(network, prefix)
    assert {row.status for row in report.rows} == {"restored"}
    assert report.unused == {"other variables": len(values), "step counter": 1}
    for name, variable in network.variables_by_name().items():
        np.testing.assert_array_equal(variable, values[name], err_msg=name)


def test_a_checkpoint_that_names_objects_gives_every_variable(values, folder, tmp_path):
    root = tf.Module()
    for name, _, _, key in listed(folder, 0)["variables"]:
        *owners, last = key.split("/")
        owner = root
        for part in owners:
            if not hasattr(owner, part):
                setattr(owner, part, tf.Module())
            owner = getattr(owner, part)
        setattr(owner, last, tf.Variable(values[name]) if name in values else None)
    prefix = tf.train.Checkpoint(**vars_of(root)).write(str(tmp_path / "ckpt"))
    network = build_detector(golden_model(), 5)
    report = restore(network, prefix)
    fresh = {row.name: row.reason for row in report.rows if row.status != "restored"}
    why = "3 classes in the checkpoint, 5 here"
    last = "class_net/class-predict"
    assert fresh == {f"{last}/pointwise_kernel": why, f"{last}/bias": why}
    for name, variable in network.variables_by_name().items():
        if name not in fresh:
            np.testing.assert_array_equal(variable, values[name], err_msg=name)


def vars_of(root):
    parts = ("backbone", "resample_layers", "fpn_cells", "class_net", "box_net")
    return {part: getattr(root, part) for part in parts}


# ---- files


@pytest.mark.long
@pytest.mark.parametrize("nms", ["builtin", "fast"])
def test_every_operator_before_suppression_is_int8(detector, tmp_path, nms):
    images = [picture(*which) for which in PICTURES]
    file = export(detector, ("a", "b", "c"), ["tflite_int8"], tmp_path, images, nms, {})
    interpreter = Interpreter(str(file["tflite_int8"]))
    types = {each["index"]: each["dtype"] for each in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    names = [each["op_name"] for each in operators]
    handed = [place for place, name in enumerate(names) if name == "DEQUANTIZE"]
    assert len(handed) == 2  # boxes and scores, to suppression
    assert not {"CONV_2D", "DEPTHWISE_CONV_2D", "LOGISTIC"} & set(names[handed[-1] :])
    floats = [
        names[place]
        for place, each in enumerate(operators[: handed[-1]])
        if any(types.get(i) == np.float32 for i in (*each["inputs"], *each["outputs"]))
    ]
    assert floats == ["DEQUANTIZE"]


def test_another_loss_is_refused(detector, fed, predictions):
    with pytest.raises(ConfigError) as error:
        training_loss(detector, fed, *predictions, "focal")
    assert str(error.value) == (
        "train.loss=focal: efficientdet_lite0_coco has no background, which this loss needs.\n"
        "  Give train.loss=efficientdet."
    )
