"""What holds of every architecture: published size, any input, frozen stages, bfloat16, exports."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from support.often import long_but

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import AnchorConfig, ModelConfig, PyramidConfig, SharedPredictorConfig
from odtrain.config.shipped import shipped
from odtrain.errors import ConfigError
from odtrain.export.benchmark import BOX_TOLERANCE, SCORE_TOLERANCE, agreement
from odtrain.export.writers import export
from odtrain.export_formats import FORMATS
from odtrain.models.build import ARCHITECTURES, SSD, build_detector
from odtrain.models.retinanet import EXPERIMENTS
from odtrain.structures import UInt8Image
from odtrain.zoo.restore import BACKBONE
from odtrain_runtime.model_files import load_detector

MODELS = sorted(file.stem for file in shipped("conf/model").glob("*.yaml"))
EXACT = ("pb", "saved_model", "tflite_fp32")
NAMES = ("open", "close")
PPN, MNASFPN = "ssd_mobilenet_v1_ppn", "ssd_mobilenet_v2_mnasfpn"


def small(architecture: str, **changes) -> ModelConfig:
    options = {
        "input_size": 96,
        "depth_multiplier": 0.25,
        "min_depth": 8,
        "pyramid": section(PyramidConfig, depth=32),
        "shared_predictor": section(SharedPredictorConfig, depth=16, layers=2),
        "anchors": section(AnchorConfig, reduce_boxes_in_lowest_layer=architecture != PPN),
        **(
            {"pyramid": section(PyramidConfig, depth=32, max_level=6)}
            if architecture == MNASFPN
            else {}
        ),
    }
    return section(
        ModelConfig, **{"name": "small", "architecture": architecture, **options, **changes}
    )


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "learned", "everything"),
    [
        ("ssd_mobilenet_v1_coco", 6_819_839, 6_845_183),
        ("ssd_mobilenet_v2_coco", 16_837_567, None),
        ("ssdlite_mobilenet_v2_coco", 4_500_543, 4_551_295),
        ("ssd_mobilenet_v3_large_coco", 3_248_255, 3_281_199),
        ("ssd_mobilenet_v3_small_coco", 1_785_743, 1_806_207),
        ("ssd_mobiledet_cpu_coco", 4_165_055, 4_205_423),
        pytest.param("ssd_mobiledet_dsp_coco", None, 7_160_000, marks=pytest.mark.long),
        pytest.param("ssd_mobiledet_edgetpu_coco", None, 4_200_000, marks=pytest.mark.long),
        pytest.param("ssd_mobiledet_gpu", None, 13_110_000, marks=pytest.mark.long),
    ],
)
def test_a_published_model_has_the_published_number_of_parameters(model, learned, everything):
    detector = build_detector(compose_config([f"model={model}"]).model, 90)
    sizes = {n: int(np.prod(v.shape)) for n, v in detector.variables_by_name().items()}
    if learned is not None:
        assert sum(size for name, size in sizes.items() if "/moving_" not in name) == learned
    if everything is not None:
        digits = 0 if everything % 10_000 else -4  # some were published in ten thousands
        assert round(sum(sizes.values()), digits) == everything


OF_PACKAGES = ("_pedestrian", "_hands")
"""How names end of models whose weights are in package indexes, of other pictures than COCO's."""


@pytest.mark.parametrize("model", MODELS)
def test_a_model_names_itself_its_architecture_and_where_its_weights_are(model):
    config = compose_config([f"model={model}"])
    assert config.model.name == model
    assert config.model.architecture in ARCHITECTURES
    assert (config.train.checkpoint == "zoo") == (config.model.zoo is not None)
    assert (config.model.zoo is not None) == model.endswith(("_coco", *OF_PACKAGES))
    if model.endswith("_coco"):
        assert config.model.zoo.sources[0].endswith((".tar.gz", ".tgz"))
        assert 10 < config.model.zoo.coco_map < 44
        of_model_garden = config.model.architecture in EXPERIMENTS
        assert (config.model.zoo.speed_ms or 0) > 5 or of_model_garden


NAMES_OF_ALL = [name for name in ARCHITECTURES if name not in EXPERIMENTS]
ALWAYS = ("ssd_mobilenet_v1", "ssdlite_mobilenet_v2", "ssd_mobilenet_v1_ppn")
EACH_OR_LONG = pytest.mark.parametrize(
    "architecture", long_but(NAMES_OF_ALL, ALWAYS), indirect=True
)
"""One of each kind of heads at every run; the others take five to ten seconds each."""


@pytest.fixture(params=NAMES_OF_ALL)
def architecture(request):
    return request.param


def test_any_input_size(architecture):
    detector = build_detector(small(architecture, input_size=[97, 130]), 3)
    encodings, logits = detector.network(noise(1, *detector.config.size, 3))
    anchors = len(detector.anchors)
    assert encodings.shape == (1, anchors, 4)
    assert logits.shape == (1, anchors, 3 + detector.background)


def test_one_predictor_for_all_maps_needs_as_many_anchors_everywhere():
    config = small(PPN, anchors=section(AnchorConfig, reduce_boxes_in_lowest_layer=True))
    with pytest.raises(ConfigError) as error:
        build_detector(config, 1)
    assert str(error.value) == (
        "model.anchors.reduce_boxes_in_lowest_layer=true: ssd_mobilenet_v1_ppn has one predictor for "
        "all maps, which need 3, 6, 6, 6, 6, 6 anchors in a cell.\n  Set it to false."
    )


@EACH_OR_LONG
def test_frozen_stages_neither_learn_nor_follow_the_batches(architecture):
    free = build_detector(small(architecture), 2)
    detector = build_detector(small(architecture), 2, frozen_stages=3)
    learning = {id(v) for v in detector.trainable_variables}
    names = {n for n, v in detector.variables_by_name().items() if id(v) not in learning}
    all_learning = {id(v) for v in free.trainable_variables}
    frozen = names - {n for n, v in free.variables_by_name().items() if id(v) not in all_learning}
    assert frozen
    assert all(name.startswith(BACKBONE) for name in frozen)
    before = {n: v.numpy() for n, v in detector.variables_by_name().items()}
    detector.network(noise(2, 96, 96, 3), training=True)
    for name in frozen:
        scope = name.rpartition("/")[0]
        for statistic in ("moving_mean", "moving_variance"):
            if f"{scope}/{statistic}" in before:
                now = detector.variables_by_name()[f"{scope}/{statistic}"]
                np.testing.assert_array_equal(now, before[f"{scope}/{statistic}"], err_msg=name)


def test_bfloat16_keeps_float32_variables_and_outputs(architecture):
    detector = build_detector(small(architecture), 2, precision="bf16")
    assert {v.dtype for v in detector.variables_by_name().values()} == {tf.float32}
    encodings, logits = detector.network(noise(1, 96, 96, 3))
    assert (encodings.dtype, logits.dtype) == (tf.float32, tf.float32)
    assert np.all(np.isfinite(encodings))


def pictures(count: int) -> list[UInt8Image]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (60 + 7 * i, 110, 3), np.uint8) for i in range(count)]


BOXES = (
    "BoxEncodingPredictor/weights",
    "/BoxPredictor/weights",
    "/BoxPredictor/pointwise_weights",
    "box-predict/pointwise_kernel",
)
CLASSES = (
    "ClassPredictor/weights",
    "ClassPredictor/pointwise_weights",
    "class-predict/pointwise_kernel",
)
"""How names of the predictors' kernels end."""


def spread(detector: SSD) -> None:
    """Change weights so that scores and boxes differ as after training, no two of them equal."""
    random = np.random.default_rng(5)
    for name, variable in detector.variables_by_name().items():
        if name.endswith(("/gamma", "/beta")):
            variable.assign_add(random.normal(0, 0.2, variable.shape).astype(np.float32))
    encodings, logits = detector.network(noise(2, 96, 96, 3))
    for name, variable in detector.variables_by_name().items():
        if name.endswith(BOXES):
            variable.assign(variable / np.std(encodings))
        if name.endswith(CLASSES):
            variable.assign(variable / np.std(logits))
        if name.endswith(("ClassPredictor/biases", "class-predict/bias")):
            variable.assign(np.full(variable.shape, -2, np.float32))


NEAR_EQUAL = ("ssd_mobilenet_v1_fpn", "ssd_mobilenet_v2_fpnlite", MNASFPN)
"""One predictor for all maps gives near-equal scores, whose order the operator alone keeps."""


def exported(architecture, formats, folder):
    detector = build_detector(small(architecture, initializer="he"), len(NAMES), seed=3)
    spread(detector)
    nms = "regular" if architecture in NEAR_EQUAL else "builtin"
    files = export(detector, NAMES, formats, folder, pictures(8), nms, {"run_id": "4f2a"})
    return detector, files


@pytest.mark.slow
@EACH_OR_LONG
def test_a_tflite_finds_what_the_network_finds(architecture, tmp_path):
    detector, files = exported(architecture, ["tflite_fp32"], tmp_path)
    check(detector, files)


@pytest.mark.long
def test_every_exported_file_finds_what_the_network_finds(architecture, tmp_path):
    detector, files = exported(
        architecture, [name for name in FORMATS if not name.startswith("onnx")], tmp_path
    )
    check(detector, files)


def check(detector, files):
    images = pictures(3)
    reference = list(map(detector.as_detect(), images))
    assert any(len(found) and found.scores.max() > 0.1 for found in reference)
    for name, file in files.items():
        found = list(map(load_detector(file), images))
        agreed = agreement(reference, found)
        if name in EXACT:
            assert agreed.unmatched == 0, name
            assert agreed.max_box_diff <= BOX_TOLERANCE, name
            assert agreed.max_score_diff <= SCORE_TOLERANCE, name
        else:
            gaps = [
                np.abs(a.scores[:50] - b.scores[:50]) for a, b in zip(reference, found, strict=True)
            ]
            assert np.mean(gaps) <= 0.05, name
