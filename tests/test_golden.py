"""The detector against tensors of the TensorFlow 1 Object Detection API, in ../shared/golden."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from golden_training import GOLDEN_CONFIG, padded_truth, restore, train
from PIL import Image

from odtrain.config import ModelConfig
from odtrain.losses import detection_loss
from odtrain.models import build_detector
from odtrain.targets import assign

PROJECT = Path(__file__).resolve().parents[1]
CHAOS = 0.03
"""How far losses may stray after two updates. The golden network magnifies rounding: moving its
input by 1e-7, one unit in the last place, moves its third loss by 2 %."""

PIPELINE = {
    r"min_scale: (\S+)": lambda config: config.anchors.min_scale,
    r"max_scale: (\S+)": lambda config: config.anchors.max_scale,
    r"anchor_generator {\s+num_layers: (\S+)": lambda config: config.anchors.num_layers,
    r" matched_threshold: (\S+)": lambda config: config.matched_iou,
    r"score_threshold: \S+\s+iou_threshold: (\S+)": lambda config: config.nms_iou,
    r"max_total_detections: (\S+)": lambda config: config.max_detections,
    r"num_hard_examples: (\S+)": lambda config: config.num_hard_examples,
    r"num_hard_examples: \S+\s+iou_threshold: (\S+)": lambda config: config.mining_iou,
    r"max_negatives_per_positive: (\S+)": lambda config: config.max_negatives_per_positive,
    r"min_negatives_per_image: (\S+)": lambda config: config.min_negatives_per_image,
    r"classification_weight: (\S+)": lambda config: config.classification_weight,
    r"localization_weight: (\S+)": lambda config: config.localization_weight,
    r"decay: (\S+)": lambda config: config.batch_norm_decay,
    r"epsilon: (\S+)": lambda config: config.batch_norm_epsilon,
    r"l2_regularizer {\s+weight: (\S+)": lambda config: config.l2,
}
"""Where the reference's configuration has each constant, and where ours."""


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "golden" / "ssd_mobilenet_v1"


@pytest.fixture(scope="module")
def golden(folder):
    return np.load(folder / "golden.npz")


@pytest.fixture(scope="module")
def detector(folder):
    network = build_detector(GOLDEN_CONFIG, 3)
    restore(network, folder / "model.ckpt")
    return network


@pytest.fixture(scope="module")
def predictions(detector, golden):
    return detector.network(golden["preprocessed"], training=False)


@pytest.fixture(scope="module")
def targets(detector, golden):
    return assign(detector.anchors, *padded_truth(golden), 3, GOLDEN_CONFIG)


@pytest.fixture(scope="module")
def trained(folder):
    """What the project's own batch norm makes of the golden training steps."""
    return train(folder, build_detector(GOLDEN_CONFIG, 3))


@pytest.fixture(scope="module")
def trained_as_before(folder, tmp_path_factory):
    """The same with batch norm's sums rounded as TensorFlow 1.15 rounds them."""
    output = tmp_path_factory.mktemp("golden") / "training.npz"
    quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, PROJECT / "tests" / "golden_training.py", folder, output],
        env={**os.environ, **quiet, "PYTHONPATH": str(PROJECT)},
        check=True,
    )
    return np.load(output)


def mined(losses, image):
    return set(np.flatnonzero(np.asarray(losses)[image]).tolist())


@pytest.mark.parametrize("case", ["down", "up", "same"])
def test_resizing_is_exact(shared, case):
    resize = np.load(shared / "golden" / "resize" / "resize.npz")
    small = build_detector(ModelConfig(architecture="ssd_mobilenet_v1", input_size=60), 1)
    np.testing.assert_array_equal(small.resize(resize[f"{case}_in"]), resize[f"{case}_out"])


def test_every_variable_of_the_checkpoint_is_accounted_for(detector, folder, golden):
    reader = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    shapes = reader.get_variable_to_shape_map()
    found = {name: v.shape.as_list() for name, v in detector.variables_by_name().items()}
    assert shapes.pop("global_step") == []
    assert found == shapes
    assert set(found) == set(golden["variable_names"])


@pytest.mark.parametrize(("pattern", "ours"), PIPELINE.items(), ids=PIPELINE.keys())
def test_constants_that_are_not_configured_are_the_reference_s(folder, pattern, ours):
    (value, *_) = re.findall(pattern, (folder / "pipeline.config").read_text())
    assert ours(ModelConfig()) == float(value)


def test_aspect_ratios_that_are_not_configured_are_the_reference_s(folder):
    values = re.findall(r"aspect_ratios: (\S+)", (folder / "pipeline.config").read_text())
    assert ModelConfig().anchors.aspect_ratios == [float(value) for value in values]


def test_anchors(detector, golden):
    np.testing.assert_allclose(detector.anchors, golden["anchors"], atol=1e-6)


def test_preprocessing(detector, golden):
    found = detector.normalize(detector.resize(golden["images"]))
    np.testing.assert_allclose(found, golden["preprocessed"], atol=1e-6)


@pytest.mark.parametrize("index", range(6))
def test_feature_maps(detector, golden, index):
    taps = tf_keras.Model(detector.network.inputs, list(detector.maps))
    maps = taps(golden["preprocessed"][:1])
    np.testing.assert_allclose(maps[index][0], golden[f"feature_map_{index}_image0"], atol=2e-4)


def test_raw_predictions(predictions, golden):
    encodings, logits = predictions
    np.testing.assert_allclose(encodings, golden["box_encodings"], atol=1e-4)
    np.testing.assert_allclose(logits, golden["class_predictions_with_background"], atol=1e-4)


def test_targets(targets, golden):
    np.testing.assert_array_equal(targets.matches, golden["targets/match"])
    np.testing.assert_array_equal(targets.positive, golden["targets/reg_weights"])
    np.testing.assert_array_equal(targets.class_targets, golden["targets/cls_targets"])
    np.testing.assert_allclose(targets.box_targets, golden["targets/reg_targets"], atol=1e-5)


def test_mined_examples_and_both_losses(detector, targets, predictions, golden):
    boxes = detector.decode(predictions[0])
    losses = detection_loss(targets, *predictions, boxes, GOLDEN_CONFIG, "hard_mining")
    for image in range(2):
        assert mined(losses.kept, image) == set(golden[f"infer/hem_selected_{image}"].tolist())
    expected = golden["infer/Loss/localization_loss"], golden["infer/Loss/classification_loss"]
    assert float(losses.localization) == pytest.approx(float(expected[0]), abs=1e-4)
    assert float(losses.classification) == pytest.approx(float(expected[1]), abs=1e-4)


def test_regularisation_term_by_term(folder, golden):
    detector = build_detector(GOLDEN_CONFIG, 3)
    restore(detector, folder / "model.ckpt")
    found = sorted(float(term) for term in detector.regularization_terms().values())
    np.testing.assert_allclose(found, sorted(golden["reg_values"]), rtol=1e-5)
    total = float(golden["infer/regularization_loss"])
    assert float(detector.regularization()) == pytest.approx(total, abs=1e-6)


def test_detections(detector, golden):
    boxes, scores, classes, number = detector.detect_batch(golden["images"])
    np.testing.assert_allclose(boxes, golden["detection_boxes"], atol=1e-5)
    np.testing.assert_allclose(scores, golden["detection_scores"], atol=1e-4)
    np.testing.assert_array_equal(classes, golden["detection_classes"])
    np.testing.assert_array_equal(number, golden["num_detections"])


def test_training_losses_and_mined_examples(trained, golden):
    for image in range(2):
        assert mined(trained["kept"], image) == set(golden[f"train/hem_selected_{image}"].tolist())
    for name in ("localization", "classification"):
        expected = float(golden[f"train/Loss/{name}_loss"])
        assert float(trained[name]) == pytest.approx(expected, abs=1e-4)
    assert float(trained["total"]) == pytest.approx(float(golden["train/total_loss"]), abs=2e-4)


def test_moving_statistics_after_one_update(trained, golden):
    names = [key for key in golden.files if key.startswith("bn_after_1_update/")]
    assert len(names) == 70
    for name in names:
        found = trained[name.replace("bn_after_1_update", "after")]
        np.testing.assert_allclose(found, golden[name], atol=1e-5, err_msg=name)


def test_training_stays_near_the_reference_s_through_five_steps(trained, folder):
    expected = np.load(folder / "optimizer_trajectory.npz")["losses_loc_cls_reg_total"][:, 3]
    np.testing.assert_allclose(trained["totals"], expected, rtol=CHAOS)


@pytest.mark.slow
def test_training_predictions_rounded_as_before(trained_as_before, golden):
    logits = golden["train/class_predictions_with_background"]
    np.testing.assert_allclose(
        trained_as_before["encodings"], golden["train/box_encodings"], atol=1e-3
    )
    np.testing.assert_allclose(trained_as_before["logits"], logits, atol=1e-3)
    total = float(golden["train/total_loss"])
    assert float(trained_as_before["total"]) == pytest.approx(total, abs=1e-4)


@pytest.mark.slow
def test_gradient_norms_rounded_as_before(trained_as_before, golden):
    expected = golden["train/grad_norm"]
    found = [trained_as_before[f"gradient/{name}"] for name in golden["train/grad_names"]]
    whole = float(golden["train/global_grad_norm"])
    assert np.linalg.norm(found) == pytest.approx(whole, rel=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * whole)


@pytest.mark.slow
def test_moving_statistics_rounded_as_before(trained_as_before, golden):
    for name in (key for key in golden.files if key.startswith("bn_after_1_update/")):
        found = trained_as_before[name.replace("bn_after_1_update", "after")]
        np.testing.assert_allclose(found, golden[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_rmsprop_steps_rounded_as_before(trained_as_before, folder):
    trajectory = np.load(folder / "optimizer_trajectory.npz")
    for name in (key for key in trajectory.files if key.startswith("after_step_1/")):
        found = trained_as_before[name.replace("after_step_1", "after")]
        np.testing.assert_allclose(found, trajectory[name], atol=1e-3, err_msg=name)
    expected = trajectory["losses_loc_cls_reg_total"][:, 3]
    np.testing.assert_allclose(trained_as_before["totals"][:2], expected[:2], rtol=1e-3)
    np.testing.assert_allclose(trained_as_before["totals"], expected, rtol=CHAOS)


def frozen_graph(file: Path):
    """A frozen graph of TensorFlow 1 as a function of (1, H, W, 3) uint8 pictures."""
    definition = tf.compat.v1.GraphDef.FromString(file.read_bytes())
    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.compat.v1.import_graph_def(definition, name=""), []
    )
    outputs = ["detection_boxes", "detection_scores", "detection_classes", "num_detections"]
    return wrapped.prune("image_tensor:0", [f"{name}:0" for name in outputs])


ZOO = {
    "ssd_mobilenet_v1_0.75_depth_coco_dequantized": (
        {"input_size": 300, "depth_multiplier": 0.75, "encode_background_as_zeros": True},
        90,
    ),
    "ssd_mobilenet_v1_widerface_2018": ({"input_size": 512}, 1),
}


@pytest.mark.parametrize("name", ZOO)
def test_published_weights_detect_what_their_frozen_graph_detects(shared, tmp_path, name):
    options, classes = ZOO[name]
    with tarfile.open(shared / "zoo" / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    detector = build_detector(ModelConfig(architecture="ssd_mobilenet_v1", **options), classes)
    restore(detector, tmp_path / name / "model.ckpt")
    reference = frozen_graph(tmp_path / name / "frozen_inference_graph.pb")
    for picture in ("raccoon-1.jpg", "raccoon-5.jpg", "raccoon-17.jpg"):
        with Image.open(shared / "data" / "raccoon" / "images" / picture) as opened:
            pixels = np.asarray(opened.convert("RGB"))[None]
        boxes, scores, ids, number = detector.detect_batch(pixels)
        expected = reference(tf.constant(pixels))
        np.testing.assert_allclose(boxes, expected[0], atol=1e-5)
        np.testing.assert_allclose(scores, expected[1], atol=1e-5)
        np.testing.assert_array_equal(ids, expected[2])
        np.testing.assert_array_equal(number, expected[3])
