"""Published weights in our networks: every variable accounted for, proven by the frozen graph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.tf1_checkpoints import write_checkpoint

from odtrain.config.compose import section
from odtrain.config.schema import ModelConfig, ZooEntry
from odtrain.errors import CheckpointError, ConfigError
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.zoo import restore as zoo
from odtrain.zoo.checkpoints import kind_of
from odtrain.zoo.restore import LoadReport, VariableRow

FACES = "ssd_mobilenet_v1_widerface_2018.tar.gz"
COCO = "ssd_mobilenet_v1_0.75_depth_coco_dequantized.tar.gz"


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def detector(num_classes: int, depth: float = 0.25, size: int = 96, seed: int = 0) -> SSD:
    config = section(
        ModelConfig,
        name="mine",
        architecture="ssd_mobilenet_v1",
        input_size=size,
        depth_multiplier=depth,
        min_depth=8,
    )
    return build_detector(config, num_classes, seed=seed)


@pytest.fixture(scope="module")
def small() -> SSD:
    """Three classes; tests only read its variables."""
    return detector(3)


@pytest.fixture(scope="module")
def wide() -> SSD:
    """A network that no checkpoint of depth 0.25 fits."""
    return detector(3, depth=1.0)


@pytest.fixture(scope="module")
def _other() -> tuple[SSD, dict[str, np.ndarray]]:
    of = detector(3, seed=1)
    return of, values(of)


@pytest.fixture
def other(_other) -> SSD:
    """Three classes and other first weights than `small`, for a test to change."""
    of, first = _other
    for name, variable in of.variables_by_name().items():
        variable.assign(first[name])
    return of


def values(of: SSD) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in of.variables_by_name().items()}


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one | two)


def test_all_variables_come_back(tmp_path, small, other):
    prefix = write_checkpoint(tmp_path / "model.ckpt", values(small))
    report = zoo.restore(other, prefix)
    assert same(values(other), values(small))
    assert {row.status for row in report.rows} == {"restored"}
    assert report.unused == {}


def test_of_another_number_of_classes_all_but_the_class_predictor_comes_back(tmp_path, small):
    prefix = write_checkpoint(tmp_path / "model.ckpt", values(small))
    other = detector(5, seed=1)
    before = values(other)
    report = zoo.restore(other, prefix)
    after, given = values(other), values(small)
    for row in report.rows:
        if "ClassPredictor" in row.name:
            assert (row.status, row.reason) == (
                "re-initialised",
                "3 classes in the checkpoint, 5 here",
            )
            assert np.array_equal(after[row.name], before[row.name])
        else:
            assert row.status == "restored"
            assert np.array_equal(after[row.name], given[row.name])


def test_backbone_leaves_the_predictors_as_they_are(tmp_path, small, other):
    prefix = write_checkpoint(tmp_path / "model.ckpt", values(small))
    before = values(other)
    report = zoo.restore(other, prefix, "backbone")
    after, given = values(other), values(small)
    for row in report.rows:
        backbone = row.name.startswith("FeatureExtractor/")
        assert row.status == ("restored" if backbone else "re-initialised")
        assert np.array_equal(after[row.name], (given if backbone else before)[row.name])


def test_the_table_is_one_screen_that_accounts_for_everything(tmp_path, small):
    tensors = values(small)
    del tensors["BoxPredictor_5/BoxEncodingPredictor/biases"]
    tensors["global_step"] = np.array(7, np.int64)
    name = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"
    for slot in ("RMSProp", "RMSProp_1", "Momentum", "ExponentialMovingAverage"):
        tensors[f"{name}/{slot}"] = tensors[name]
    for quant in ("act_quant/min", "act_quant/max", "weights_quant/min"):
        tensors[f"FeatureExtractor/MobilenetV1/Conv2d_0/{quant}"] = np.float32(0)
    tensors["novelty"] = np.float32(0)
    prefix = write_checkpoint(tmp_path / "model.ckpt", tensors)
    assert zoo.restore(detector(1), prefix).table() == (
        f"weights from {prefix}\n"
        "  part                                 status          variables  parameters  why\n"
        "  FeatureExtractor                     restored              175     359,024\n"
        "  BoxPredictor_*/BoxEncodingPredictor  restored               11      14,700\n"
        "  BoxPredictor_*/ClassPredictor        re-initialised         12       7,362"
        "  3 classes in the checkpoint, 1 here\n"
        "  BoxPredictor_*/BoxEncodingPredictor  missing                 1          24"
        "  not in the checkpoint\n"
        "restored 186 of 199 variables, 98.1% of the parameters; unused in the checkpoint: "
        "fake-quantisation ranges (3), optimizer slots (3), moving averages (1), "
        "step counter (1), other variables (1)\n"
        "The fake-quantisation ranges are not used: weights are trained as floats, and int8 files get "
        "ranges measured\non your pictures (export.calibration_pictures). train.quantize_from=0 takes them."
    )


@pytest.mark.parametrize(
    "name",
    [
        # As TensorFlow 1's contrib.quantize names them.
        "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/act_quant/max",
        "FeatureExtractor/MobilenetV1/MobilenetV1/Conv2d_0/weights_quant/min/biased",
        "FeatureExtractor/MobilenetV2/MobilenetV2/expanded_conv_3/project/conv_quant/max/local_step",
        "FeatureExtractor/MobilenetV2/MobilenetV2/expanded_conv_3/add/add_quant/min",
        "BoxPredictor_0/ClassPredictor/act_quant/ClassPredictor/act_quant/max/biased",
    ],
)
def test_ranges_of_simulated_quantisation_are_told_as_such(name):
    assert kind_of(name) == "fake-quantisation ranges"


def test_moving_averages_serve_where_there_is_nothing_else(tmp_path, small, other):
    tensors = {f"{name}/ExponentialMovingAverage": value for name, value in values(small).items()}
    zoo.restore(other, write_checkpoint(tmp_path / "model.ckpt", tensors))
    assert same(values(other), values(small))


def test_raw_weights_go_before_their_moving_averages(tmp_path, small, other):
    raw = values(small)
    averages = {f"{name}/ExponentialMovingAverage": value + 1 for name, value in raw.items()}
    report = zoo.restore(other, write_checkpoint(tmp_path / "model.ckpt", raw | averages))
    assert same(values(other), raw)
    assert report.unused == {"moving averages": 199}


def test_a_classification_checkpoint_gives_its_backbone(tmp_path, small, other):
    base = re.compile(r"FeatureExtractor/(MobilenetV1/Conv2d_\d+(_(depth|point)wise)?/.*)")
    tensors = {m[1]: v for k, v in values(small).items() if (m := base.fullmatch(k))}
    tensors["MobilenetV1/Logits/Conv2d_1c_1x1/biases"] = np.zeros(1001, np.float32)
    report = zoo.restore(other, write_checkpoint(tmp_path / "mobilenet_v1.ckpt", tensors))
    assert report.count("restored") == 27 * 5
    assert report.count("missing") == 199 - 27 * 5
    assert report.unused == {"other variables": 1}


def test_a_checkpoint_that_training_wrote_is_read_too(tmp_path, small, other):
    optimizer = tf.Variable(1.0, name="rate")
    written = tf.train.Checkpoint(network=small.network, optimizer=optimizer)
    manager = tf.train.CheckpointManager(written, str(tmp_path / "best"), max_to_keep=1)
    manager.save(checkpoint_number=20)
    report = zoo.restore(other, tmp_path / "best")
    assert same(values(other), values(small))
    assert report.unused == {"training state": 3}


@pytest.mark.parametrize(
    ("tensors", "looks", "remedy"),
    [
        pytest.param(
            {"FeatureExtractor/MobilenetV1/Conv2d_13_pointwise/weights": (1, 1, 768, 768)},
            "ssd_mobilenet_v1 of depth 0.75",
            "Set model.depth_multiplier=0.75, or give another train.checkpoint.",
            id="another depth",
        ),
        pytest.param(
            {"FeatureExtractor/MobilenetV2/expanded_conv_16/project/weights": (1, 1, 960, 320)},
            "ssd_mobilenet_v2 of depth 1",
            "Choose the model that it is of (model=NAME), or give another train.checkpoint.",
            id="another architecture",
        ),
        pytest.param(
            {"FeatureExtractor/resnet_v1_50/conv1/weights": (7, 7, 3, 64), "F/fpn/a": (1,)},
            "ssd_resnet50_v1_fpn",
            "Choose the model that it is of (model=NAME), or give another train.checkpoint.",
            id="no depth to see",
        ),
        pytest.param(
            {"model/_feature_extractor/layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE": (1,)},
            "another network of the TensorFlow 2 Object Detection API",
            "Choose the model that it is of (model=NAME), or give another train.checkpoint.",
            id="TensorFlow 2 Object Detection API",
        ),
        pytest.param(
            {"model/layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE": (1,)},
            "a TensorFlow 2 checkpoint of another program",
            "Choose the model that it is of (model=NAME), or give another train.checkpoint.",
            id="TensorFlow 2",
        ),
        pytest.param(
            {"dense/kernel": (4, 4)},
            "no network known here",
            "Give the published weights of this model: train.checkpoint=zoo.",
            id="something else",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, small, tensors, looks, remedy):
    arrays = {name: np.zeros(shape, np.float32) for name, shape in tensors.items()}
    prefix = write_checkpoint(tmp_path / "model.ckpt", arrays)
    before = values(small)
    with pytest.raises(CheckpointError) as raised:
        zoo.restore(small, prefix)
    assert str(raised.value) == (
        f"{prefix}: it fits 0% of the backbone's parameters: it looks like {looks}, and "
        f"model=mine is ssd_mobilenet_v1 of depth 0.25.\n  {remedy}"
    )
    assert same(values(small), before)


@pytest.mark.parametrize(
    "name",
    [
        "ssd_mobilenet_v1_fpn",
        "ssd_mobilenet_v1_ppn",
        "ssd_mobilenet_v2",
        "ssdlite_mobilenet_v2",
        "ssd_inception_v2",
        "ssd_resnet50_v1_fpn",
        "ssd_mobilenet_v2_fpnlite",
        "ssd_mobilenet_v2_mnasfpn",
        "ssdlite_mobilenet_edgetpu",
        "ssdlite_mobiledet_cpu",
        "ssdlite_mobiledet_dsp",
    ],
)
def test_a_network_is_recognised_by_its_variables(shared, wide, name):
    with pytest.raises(CheckpointError, match=f"it looks like {name}( of depth 0.25)?, and"):
        zoo.restore(wide, shared / "golden" / name)


def test_weights_that_are_not_numbers_are_refused_and_nothing_is_changed(tmp_path, small, other):
    tensors = values(small)
    name = "BoxPredictor_5/ClassPredictor/biases"
    tensors[name] = np.full_like(tensors[name], np.nan)
    prefix = write_checkpoint(tmp_path / "model.ckpt", tensors)
    before = values(other)
    with pytest.raises(CheckpointError) as raised:
        zoo.restore(other, prefix)
    assert str(raised.value) == (
        f"{prefix}: {name} is not finite: the training that wrote it had diverged.\n"
        "  Take an earlier checkpoint, or the published weights again."
    )
    assert same(values(other), before)


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_truncated_file_is_refused_and_nothing_is_changed(tmp_path, small, suffix, other):
    prefix = write_checkpoint(tmp_path / "model.ckpt", values(small))
    file = prefix.with_name(f"{prefix.name}.{suffix}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    before = values(other)
    with pytest.raises(CheckpointError) as raised:
        zoo.restore(other, prefix)
    assert re.fullmatch(
        rf"{re.escape(str(prefix))}: cannot be read: .+\.\n"
        r"  Its files are truncated or not a checkpoint's. Unpack or download them again\.",
        str(raised.value),
    )
    assert same(values(other), before)


def test_a_wrong_choice_of_what_to_restore(small, tmp_path):
    with pytest.raises(ConfigError) as raised:
        zoo.restore(small, tmp_path, "head")
    assert str(raised.value) == 'train.restore: unknown "head".\n  Choose one of: all, backbone.'


def test_a_report_of_an_empty_network_has_a_table():
    assert (
        LoadReport(Path("x"), Path("x"), (VariableRow("a", "missing", "", 0),), {})
        .table()
        .endswith(
            "restored 0 of 1 variables, 0.0% of the parameters; unused in the checkpoint: nothing"
        )
    )


def pictures(shared: Path, count: int) -> list[np.ndarray]:
    files = sorted((shared / "data" / "raccoon").rglob("*.jpg"))[:count]
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


@pytest.mark.parametrize(
    ("archive", "num_classes", "depth", "size"),
    [
        pytest.param(FACES, 1, 1.0, 512, id="faces"),
        pytest.param(COCO, 90, 0.75, 300, id="COCO"),
    ],
)
def test_zoo_weights_in_our_network_are_the_frozen_graph(shared, archive, num_classes, depth, size):
    found = zoo.verify(
        shared / "zoo" / archive, detector(num_classes, depth, size), pictures(shared, 3)
    )
    assert found.pictures == 3
    assert found.max_box_diff < 1e-5
    assert found.max_score_diff < 1e-5
    assert found.agrees


def test_coco_weights_for_two_classes_keep_all_but_the_class_predictor(shared):
    report = zoo.restore(detector(2, 0.75, 300), shared / "zoo" / COCO)
    assert report.table() == (
        f"weights from {shared / 'zoo' / COCO}\n"
        "  part                                 status          variables  parameters  why\n"
        "  FeatureExtractor                     restored              175   3,086,928\n"
        "  BoxPredictor_*/BoxEncodingPredictor  restored               12      43,908\n"
        "  BoxPredictor_*/ClassPredictor        re-initialised         12      32,931"
        "  90 classes in the checkpoint, 2 here\n"
        "restored 187 of 199 variables, 99.0% of the parameters; unused in the checkpoint: "
        "step counter (1)"
    )


def test_faces_do_not_fit_a_narrower_network(shared):
    archive = shared / "zoo" / FACES
    with pytest.raises(CheckpointError) as raised:
        zoo.restore(detector(1, 0.75), archive)
    assert str(raised.value) == (
        f"{archive}: it fits 0% of the backbone's parameters: it looks like ssd_mobilenet_v1 of "
        "depth 1, and model=mine is ssd_mobilenet_v1 of depth 0.75.\n"
        "  Set model.depth_multiplier=1, or give another train.checkpoint."
    )


def test_verify_needs_every_variable(tmp_path, small):
    prefix = write_checkpoint(tmp_path / "model.ckpt", values(small))
    with pytest.raises(CheckpointError, match="it does not fill every variable of the network:\nw"):
        zoo.verify(prefix, detector(2), [])


def test_verify_needs_a_frozen_graph(tmp_path, small, other):
    write_checkpoint(tmp_path / "model.ckpt", values(small))
    with pytest.raises(CheckpointError, match=r"frozen_inference_graph\.pb: no frozen graph: "):
        zoo.verify(tmp_path, other, [])


def test_verify_notices_weights_that_are_not_those_of_the_graph(shared, tmp_path):
    of = detector(90, 0.75, 300)
    zoo.restore(of, shared / "zoo" / COCO)
    tensors = values(of)
    tensors["BoxPredictor_0/ClassPredictor/biases"] += 0.01
    write_checkpoint(tmp_path / "model.ckpt", tensors)
    prefix = zoo.locate(shared / "zoo" / COCO)
    graph = prefix.with_name("frozen_inference_graph.pb")
    (tmp_path / graph.name).symlink_to(graph)
    found = zoo.verify(tmp_path, of, pictures(shared, 1))
    assert found.max_score_diff > 1e-4
    assert not found.agrees


def test_zoo_means_the_published_weights_of_the_model(monkeypatch, tmp_path):
    entry = ZooEntry(sources=["https://example.org/m.tar.gz"], sha256="0" * 64)
    asked = []
    monkeypatch.setattr(zoo, "download", lambda wanted: asked.append(wanted) or tmp_path)
    config = section(
        ModelConfig, name="mine", architecture="ssd_mobilenet_v1", input_size=96, zoo=entry
    )
    assert zoo.resolve("zoo", config) == tmp_path
    assert zoo.resolve("https://example.org/other.tgz", config) == tmp_path
    assert [(*w.sources, w.sha256, w.file.name) for w in asked] == [
        ("https://example.org/m.tar.gz", "0" * 64, "m.tar.gz"),
        ("https://example.org/other.tgz", None, "other.tgz"),
    ]
    assert asked[0].by_hand == (
        "To get mine by hand: download https://example.org/m.tar.gz on a machine that reaches it, copy it\n"
        "  here and give train.checkpoint=PATH, or zoo.mirrors=[FOLDER] with the folder it is in. Or "
        "start from\n  random weights: train.checkpoint=null."
    )


def test_zoo_of_a_model_without_published_weights(small):
    with pytest.raises(CheckpointError) as raised:
        zoo.resolve("zoo", small.config)
    assert str(raised.value) == (
        "train.checkpoint=zoo: mine has no published weights.\n"
        "  Give train.checkpoint=PATH, or null to start from random weights."
    )


def test_a_path_is_a_path(small, tmp_path):
    assert zoo.resolve(str(tmp_path), small.config) == tmp_path
