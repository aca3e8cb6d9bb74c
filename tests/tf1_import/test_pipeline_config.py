"""The TF1 API's pipeline.config: what becomes of every field of it."""

from __future__ import annotations

import re
from dataclasses import asdict

import numpy as np
import pytest
from support.pipeline_configs import TYPES, pipeline_text

from odtrain.config.compose import as_dict, compose_config, flattened
from odtrain.config.schema import Config
from odtrain.errors import DataError
from odtrain.tf1_import.imported import Imported
from odtrain.tf1_import.pipeline_config import read_pipeline
from odtrain.zoo.catalog import model_names

PUBLISHED = [
    name
    for name in model_names()
    if name.endswith("_coco")
    and compose_config([f"model={name}"]).model.architecture.startswith("ssd")
]
TUTORIAL = compose_config(["model=ssd_mobilenet_v1_coco"])
QUIET = "dropout_keep_probability shuffle num_readers".split()


@pytest.fixture
def read(tmp_path):
    def of(text: str) -> Imported:
        (tmp_path / "my.config").write_text(text, encoding="utf-8")
        return read_pipeline(tmp_path / "my.config")

    return of


@pytest.fixture
def edited(read):
    """The tutorial's file with something in it replaced."""

    def of(old: str, new: str, config: Config = TUTORIAL) -> Imported:
        text = pipeline_text(config)
        assert re.search(old, text), old
        return read(re.sub(old, new, text, count=1))

    return of


def told(found: Imported, sentences: list[str]) -> list[str]:
    """The sentences without the line that they name, which must be that of what they begin with."""
    lines = found.file.read_text(encoding="utf-8").splitlines()
    texts = []
    for sentence in sentences:
        number, _, text = sentence.removeprefix("line ").partition(": ")
        name = re.split(r"[:; ]", text)[0]
        if "its default" not in text and name not in ("num_steps", "operations"):
            assert name in lines[int(number) - 1], sentence
        texts.append(text)
    return texts


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_s_own_file_gives_its_own_settings(read, name):
    config = compose_config([f"model={name}"])
    found = read(pipeline_text(config))
    assert (found.lost, found.changed) == ([], [])
    assert found.num_classes == 90
    wanted = flattened(as_dict(config))
    own = {
        key: value
        for key, value in found.values.items()
        if key.startswith("model.") and wanted[key] != value
    }
    # What the YAML leaves to the architecture's builder is said in full here.
    builders = ("model.predictor_kernel", "model.separable_extras")
    assert {key for key in own if wanted[key] is not None or key not in builders} == set()
    for key in ("loss", "optimizer", "learning_rate", "momentum", "batch_size", "warmup_steps"):
        assert found.values[f"train.{key}"] == wanted[f"train.{key}"]


def test_the_tutorial_s_file_comes_to_the_tutorial_s_training(read):
    found = read(pipeline_text(TUTORIAL))
    training = {k: v for k, v in found.values.items() if k.startswith(("train.", "augment."))}
    assert training == {
        "train.batch_norm": "trained",
        "train.loss": "hard_mining",
        "train.batch_size": 24,
        "train.steps": 200000,
        "train.schedule_steps": None,
        "train.freeze": 0,
        "train.precision": "fp32",
        "train.optimizer": "rmsprop",
        "train.momentum": 0.9,
        "train.rmsprop_decay": 0.9,
        "train.rmsprop_epsilon": 1.0,
        "train.warmup_steps": 0,
        "train.warmup_learning_rate": 0.0,
        "train.schedule": "step",
        "train.learning_rate": 0.004,
        "train.decay_steps": 800720,
        "train.decay_factor": 0.95,
        "train.ema_decay": None,
        "train.clip_norm": None,
        "train.restore": "backbone",
        "augment.flip": True,
        "augment.crop": True,
        "augment.crop_area": 0.1,
        "augment.brightness": 0.0,
        "augment.contrast": 0.0,
        "augment.saturation": 0.0,
    }
    assert found.checkpoint == "PATH_TO_BE_CONFIGURED/model.ckpt"
    assert found.train_records == ["PATH_TO_BE_CONFIGURED/mscoco_train.record"]
    assert found.eval_records == ["PATH_TO_BE_CONFIGURED/mscoco_val.record"]
    assert found.label_map == "PATH_TO_BE_CONFIGURED/mscoco_label_map.pbtxt"
    assert found.ignored == QUIET


FPN = compose_config(["model=ssd_mobilenet_v1_fpn_coco"])


def test_the_published_cosine_is_the_reference_s(read):
    values = read(pipeline_text(FPN)).values
    assert values["train.schedule"] == "cosine_after_warmup"
    assert values["train.decay_steps"] == 25000
    assert values["train.warmup_steps"] == 2000
    assert values["train.warmup_learning_rate"] == 0.013333


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("height: 300", "height: 240", {"model.input_size": [240, 300]}),
        ("y_scale: 10.0", "y_scale: 8", {"model.box_scales": [8.0, 10.0, 5.0, 5.0]}),
        (
            r"weighted_smooth_l1 \{",
            "weighted_smooth_l1 { delta: 0.5",
            {"model.huber_delta": 0.5, "model.resize": "stretch"},
        ),
        ("num_steps: 200000", "num_steps: 500", {"train.steps": 500}),
        (
            "decay_factor: 0.95",
            "decay_factor: 0.5 staircase: false",
            {"train.schedule": "exponential"},
        ),
        (
            r"(?s)exponential_decay_learning_rate \{.*?\}",
            "constant_learning_rate { learning_rate: .01 }",
            {"train.schedule": "constant", "train.learning_rate": 0.01},
        ),
        (
            r"(?s)exponential_decay_learning_rate \{.*?\}",
            "manual_step_learning_rate { initial_learning_rate: .003 "
            "schedule { step: 900 learning_rate: .0003 } schedule { step: 1200 learning_rate: 3e-5 } }",
            {
                "train.schedule": "manual",
                "train.learning_rate": 0.003,
                "train.manual_steps": [900, 1200],
                "train.manual_rates": [0.0003, 3e-05],
            },
        ),
        (
            r"(?s)rms_prop_optimizer: \{.*?epsilon: 1.0\s+\}",
            "adam_optimizer { learning_rate { constant_learning_rate { } } }",
            {"train.optimizer": "adam", "train.learning_rate": 0.002},
        ),
        (
            r"(?s)data_augmentation_options \{\s+ssd_random_crop \{\s+\}\s+\}",
            "data_augmentation_options { random_adjust_brightness { } }",
            {"augment.crop": False, "augment.brightness": 0.2},
        ),
        (
            r"random_horizontal_flip",
            "random_adjust_contrast { min_delta: 0.7 max_delta: 1.3 } random_horizontal_flip",
            {"augment.contrast": 0.3, "augment.flip": True},
        ),
        (
            "from_detection_checkpoint: true",
            "fine_tune_checkpoint_type: 'detection' load_all_detection_checkpoint_vars: true",
            {"train.restore": "all"},
        ),
        ("num_classes", "freeze_batchnorm: true num_classes", {"train.batch_norm": "frozen"}),
        (
            r"(?s)hard_example_miner \{.*?\}",
            "",
            {
                "train.loss": "focal",
                "model.focal_gamma": 0.0,
                "model.focal_alpha": 0.5,
                "model.classification_weight": 2.0,
            },
        ),
        ("num_examples: 8000", "use_moving_averages: true", {"train.ema_decay": 0.9999}),
        ("batch_size: 24", "batch_size: 24 add_regularization_loss: false", {"model.l2": 0.0}),
        ("num_hard_examples: 3000", "num_hard_examples: 0", {"model.num_hard_examples": 1_000_000}),
    ],
)
def test_a_field_is_carried_over(edited, old, new, expected):
    found = edited(old, new)
    assert {key: found.values[key] for key in expected} == expected
    assert (found.lost, found.changed) == ([], [])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("weighted_smooth_l1", "weighted_iou", "weighted_iou; here the smooth L1 loss."),
        (
            r"(?s)fixed_shape_resizer \{.*?\}",
            "keep_aspect_ratio_resizer { max_dimension: 400 }",
            "keep_aspect_ratio_resizer without padding; here padded to 400 pixels.",
        ),
        (
            "force_match_for_each_row: true",
            "",
            "force_match_for_each_row: false (its default); here true.",
        ),
        ("use_dropout: false", "use_dropout: true", "use_dropout: true; here false."),
        ("activation: RELU_6,", "activation: RELU", "activation: RELU; here RELU_6."),
        (
            "num_steps: 200000",
            "num_stepz: 200000",
            "num_stepz: 200000 is not known here. Did you mean num_steps?",
        ),
        ("ssd_random_crop", "random_rotation90", "random_rotation90: not done here."),
        (
            "batch_size: 24",
            "batch_size: 24 gradient_clipping_by_norm: 10",
            "gradient_clipping_by_norm: 10 for each variable; here for all of them together.",
        ),
        (
            "batch_size: 24",
            "batch_size: 24 freeze_variables: ['.*Conv2d_0', 'x']",
            "freeze_variables: .*Conv2d_0, x; train.freeze keeps whole stages of the backbone.",
        ),
        (
            "weighted_sigmoid ",
            "weighted_softmax ",
            "weighted_softmax; here the sigmoid loss.",
        ),
        (
            "loss_type: CLASSIFICATION",
            "",
            "loss_type: BOTH (its default); here CLASSIFICATION.",
        ),
        (
            "eval_config: ",
            "graph_rewriter { quantization { delay: 250000 } }\neval_config: ",
            "graph_rewriter: quantisation is simulated from step 250000 on, behind the last of 200000.",
        ),
    ],
)
def test_what_cannot_be_carried_over_is_told_by_line(edited, old, new, said):
    found = edited(old, new)
    assert said in told(found, found.lost)


def test_simulated_quantisation_begins_at_the_step_that_the_file_gives(edited):
    rewriter = (
        "graph_rewriter { quantization { delay: 48000 weight_bits: 8 activation_bits: 8 } }\n"
    )
    found = edited("eval_config: ", f"{rewriter}eval_config: ")
    assert found.values["train.quantize_from"] == 48000
    assert not found.lost


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "score_threshold: 1e-8",
            "score_threshold: 0.3",
            "score_threshold: 0.3; "
            "here files and evaluation keep detections from 1e-8 on, and predict.threshold is what people see.",
        ),
        (
            "num_steps: 200000",
            "",
            "num_steps is not given, which means without end; train.steps is what ends a training.",
        ),
        (
            "random_horizontal_flip",
            "random_adjust_saturation { } random_horizontal_flip",
            "random_adjust_saturation: factors 0.8 to 1.25; here 0.75 to 1.25.",
        ),
        (
            "ssd_random_crop",
            "random_crop_image",
            "random_crop_image: here a crop of the same least area, by the rules of ssd_random_crop.",
        ),
    ],
)
def test_what_is_done_in_another_way_is_told_by_line(edited, old, new, said):
    found = edited(old, new)
    assert told(found, found.changed) == [said]


def test_a_base_network_with_batch_norm_of_its_own_is_told(edited):
    old = "override_base_feature_extractor_hyperparams: true"
    (said,) = edited(old, "", FPN).lost
    assert said.endswith(
        ": batch_norm of the base network keeps its own decay, not 0.997; here one for all layers."
    )


def test_padding_to_one_size_is_carried_over(edited):
    new = "keep_aspect_ratio_resizer { max_dimension: 400 pad_to_max_dimension: true }"
    found = edited(r"(?s)fixed_shape_resizer \{.*?\}", new)
    assert (found.values["model.resize"], found.values["model.input_size"]) == ("pad", 400)
    (said,) = found.changed
    assert said.endswith(": keep_aspect_ratio_resizer pads with black; here with the mean colour.")


def test_other_metrics_are_told(edited):
    (said,) = edited("num_examples: 8000", "metrics_set: 'pascal_voc_detection_metrics'").changed
    assert said.endswith(": metrics_set: pascal_voc_detection_metrics; here COCO's metrics.")


def test_a_warm_up_that_would_be_cut_is_told(edited):
    (said,) = edited("num_steps: 25000", "num_steps: 5000", FPN).changed
    assert said.endswith(": warmup_steps: 2000; here a fifth of the steps at most, 1000.")


def test_the_line_of_a_field_is_told(edited):
    (said,) = edited("ignore_thresholds: false", "ignore_thresholds: true").lost
    assert said == "line 17: ignore_thresholds: true; here false."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model {\n  faster_rcnn {\n  }\n}",
            ":2:3: faster_rcnn: odtrain builds SSDs alone.\n  Start from an SSD: odtrain zoo lists them.",
        ),
        (
            "train_config { }",
            ": holds no model { }.\n  It is the file whose first lines are: model { ssd { num_classes: 90",
        ),
        (
            "model { ssd { num_classes: '90' } }",
            ':1:28: num_classes is a whole number without quotes, not "90".\n  num_classes: 1',
        ),
        (
            "model { ssd { num_classes: 1 } }",
            ":1:9: ssd has no feature_extractor { }.\n"
            "  It is the file whose first lines are: model { ssd { num_classes: 90",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(read, tmp_path, text, said):
    with pytest.raises(DataError) as error:
        read(text)
    assert str(error.value) == f"{tmp_path}/my.config{said}"


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("ssd_mobilenet_v1_keras", "Did you mean ssd_mobilenet_v1? Known: "),
        ("ssd_mobilenet_v3_large", "Known: "),
    ],
)
def test_a_network_that_is_not_built_here_is_refused(edited, new, said):
    with pytest.raises(DataError) as error:
        edited("type: 'ssd_mobilenet_v1'", f"type: '{new}'")
    first, second = str(error.value).splitlines()
    assert first.endswith(f'no network here is a "{new}" with plain predictors.')
    assert second.startswith(f"  {said}")


def test_the_files_of_the_real_tarballs_are_carried_over_whole(shared, tmp_path):
    import tarfile

    for archive in sorted((shared / "zoo").glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            (member,) = [name for name in tar.getnames() if name.endswith("pipeline.config")]
            tar.extract(member, tmp_path, filter="data")
        found = read_pipeline(tmp_path / member)
        assert (found.lost, found.changed) == ([], [])
        assert found.values["model.architecture"] == "ssd_mobilenet_v1"


FIRST_VALUES = ("model.class_bias", "model.initializer", "model.initializer_stddev")
"""Of weights, which the goldens' networks take from their checkpoints."""


@pytest.mark.parametrize("name", TYPES)
def test_the_reference_s_own_file_gives_the_network_that_its_golden_proves(shared, name):
    from support.golden_training import golden_config, loss_kind

    found = read_pipeline(shared / "golden" / name / "pipeline.config")
    assert (found.lost, found.changed, found.num_classes) == ([], [], 3)
    wanted = flattened({"model": asdict(golden_config(name))})
    model = {key: value for key, value in found.values.items() if key.startswith("model.")}
    other = {key for key, value in model.items() if wanted[key] not in (None, value)}
    assert other <= set(FIRST_VALUES)
    with np.load(shared / "golden" / name / "golden.npz") as golden:
        assert found.values["train.loss"] == loss_kind(golden)
