import pytest

from odtrain.config.compose import as_dict, as_yaml, compose_config, flattened, from_yaml, shipped
from odtrain.errors import ConfigError


def message(*overrides, config_dir=None):
    with pytest.raises(ConfigError) as caught:
        compose_config(list(overrides), config_dir)
    return str(caught.value)


def test_without_overrides_it_is_the_quickstart_on_the_shipped_panels():
    config = compose_config([])
    assert config.data.images == str(shipped("data/panels/images"))
    assert config.model.name == "panels_ssd_mobilenet_v1"
    assert config.train.checkpoint is None
    assert config.registry.name == "panels"


@pytest.mark.parametrize("name", ["ssd_mobilenet_v1_coco", "ssd_mobilenet_v1_0.75_depth_coco"])
def test_a_zoo_model_brings_its_weights_and_hyper_parameters(name):
    config = compose_config([f"model={name}"])
    assert config.model.name == name
    assert config.train.checkpoint == "zoo"
    assert config.model.zoo is not None
    assert config.model.zoo.url.startswith("http")


@pytest.mark.parametrize(
    "choice",
    [
        f"{group.name}={file.stem}"
        for group in sorted(shipped("conf").iterdir())
        if group.is_dir()
        for file in sorted(group.glob("*.yaml"))
    ],
)
def test_every_choice_composes(choice):
    compose_config([choice])


def test_an_experiment_comes_after_the_model_and_an_override_after_both(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: ssd_mobilenet_v1_coco\n  - _self_\n"
        "train:\n  steps: 7\n  batch_size: 3\n"
    )
    config = compose_config(["experiment=mine", "train.batch_size=5"], str(tmp_path))
    assert (config.model.name, config.train.steps) == ("ssd_mobilenet_v1_coco", 7)
    assert config.train.batch_size == 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        pytest.param(
            "train.stepz=5",
            "train.stepz=5: no such key.\n  Did you mean: train.steps, train.seed, train.restore",
            id="key",
        ),
        pytest.param(
            "train.steps=abc",
            "train.steps=abc: Value 'abc' of type 'str' could not be converted to Integer\n"
            "  Give a value of that type; odtrain --help names where every key is explained.",
            id="type",
        ),
        pytest.param(
            "train.loss=bar",
            "train.loss=bar: no such choice.\n  Choose one of: hard_mining, focal, retinanet.",
            id="choice of a key",
        ),
        pytest.param(
            "train=foo", "train=foo: no such choice.\n  Choose one of: default.", id="group"
        ),
        pytest.param(
            "+train.foo=3",
            "+train.foo=3: no such key.\n  Did you mean: train.loss, train.freeze, train.restore",
            id="added key",
        ),
        pytest.param(
            "model.input_size=[160,0]",
            "model.input_size=[160, 0]: not a size in pixels.\n"
            "  Give one number from 32 to 4096, or [height,width].",
            id="size",
        ),
        pytest.param(
            "export.formats=[pb,tflight]",
            "export.formats: tflight: no such choice.\n  Choose one of: pb, saved_model, "
            "tflite_fp32, tflite_fp16, tflite_dynamic, tflite_int8.",
            id="export format",
        ),
        pytest.param(
            "steps",
            "steps: not a setting.\n  Settings are given as key=value, for example train.steps=500.",
            id="no value",
        ),
        pytest.param(
            "train.batch_size=0",
            "train.batch_size=0: too small.\n  Give at least 1.",
            id="range",
        ),
        pytest.param(
            "data.test_fraction=1.5",
            "data.test_fraction=1.5: not a fraction.\n  Give 0 or more, and less than 1.",
            id="fraction",
        ),
    ],
)
def test_a_wrong_override_is_told_with_what_would_have_been_right(override, expected):
    assert message(override) == expected


def test_a_config_folder_that_is_not_there_is_told():
    assert message(config_dir="/nowhere/at/all") == (
        "--config-dir /nowhere/at/all: no such folder.\n  Give a folder."
    )


@pytest.mark.parametrize(
    "value", ["a (1),b=c.jpg", "/d/사진 1.jpg", "don't", 'say "hi"', "C:\\pictures", "a,b", "x y"]
)
def test_text_needs_no_quoting(value):
    assert compose_config([f"input={value}"]).input == value


def test_input_size_is_one_number_or_height_and_width():
    assert compose_config(["model.input_size=300"]).model.size == (300, 300)
    assert compose_config(["model.input_size=[160,200]"]).model.size == (160, 200)


def test_yaml_of_a_configuration_reads_back_the_same():
    config = compose_config(["model=ssd_mobilenet_v1_coco", "train.max_minutes=2"])
    assert from_yaml(as_yaml(config)) == config


def test_every_key_is_explained_in_conf():
    explained = "\n".join(path.read_text() for path in shipped("conf").rglob("*.yaml"))
    for key in flattened(as_dict(compose_config([]))):
        assert f"{key.split('.')[-1]}:" in explained, key
