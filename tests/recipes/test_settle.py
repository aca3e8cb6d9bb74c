import json
import logging

import pytest
import yaml

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.jobs.fitting import data_to_train_on
from odtrain.recipes.rules import Speed
from odtrain.recipes.settle import settle
from odtrain.zoo.status import Answer

SPEED = Speed(0.01, 4)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """One whose steps take as long as the test says, without a network; measurements are counted."""
    monkeypatch.chdir(tmp_path)
    told = {"speed": SPEED, "measured": 0}

    def measure(config, classes):
        told["measured"] += 1
        return told["speed"]

    monkeypatch.setattr("odtrain.recipes.settle.measure", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "odtrain.zoo.status.ask", lambda source: Answer("not reached", "no connection")
    )
    return told


def settled(*words):
    return settle(compose_config(words), words)


def own(shapes, *words):
    return settled(f"data.images={shapes}", "data.name=shapes", *words)


def test_pictures_of_the_user_s_are_trained_as_the_rules_say(machine, shapes, caplog):
    caplog.set_level(logging.INFO)
    config, words = own(shapes)
    assert config.model.name == "panels_ssdlite_mobilenet_v2"
    assert (config.train.batch_size, config.train.accumulate, config.train.steps) == (8, 2, 1500)
    assert config.data.validation_fraction == 0
    assert config.augment.mosaic == 0.7
    assert words[-2:] == [f"data.images={shapes}", "data.name=shapes"]
    said = caplog.text
    assert "experiment=auto: 16 training pictures, " in said
    assert "those of COCO cannot be had (not reached: no connection)" in said
    assert "about 2 minutes here" in said
    assert "experiment=null composes without them." in said


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="the demo pictures"),
        pytest.param(["experiment=null", "data.images={}"], id="switched off"),
        pytest.param(["model=ssd_mobilenet_v2_coco", "data.images={}"], id="a network"),
        pytest.param(["experiment=small_data", "data.images={}"], id="an experiment"),
        pytest.param(["train.resume=abc", "data.images={}"], id="a run that has its own"),
    ],
)
def test_elsewhere_everything_is_composed_as_before(machine, shapes, words):
    words = [word.format(shapes) for word in words]
    assert settled(*words) == (compose_config(words), words)
    assert machine["measured"] == 0


def test_what_is_given_is_kept_and_the_rest_chosen(machine, shapes):
    config, words = own(
        shapes,
        "experiment=auto",
        "model=ssd_mobilenet_v1_coco",
        "train.steps=7",
        "train.batch_size=6",
    )
    assert config.model.name == "ssd_mobilenet_v1_coco"
    assert (config.train.steps, config.train.batch_size, config.train.accumulate) == (7, 6, 2)
    assert (config.train.loss, config.train.learning_rate) == ("hard_mining", 0.02)
    assert not [word for word in words[:-5] if word.startswith(("model=", "train.steps"))]


def test_the_time_that_there_is_decides_how_many_steps(machine, shapes):
    assert own(shapes, "train.max_minutes=0.5")[0].train.steps == 337


def test_a_batch_alone_can_be_left_to_the_machine(machine, shapes):
    config, words = own(shapes, "model=ssd_mobilenet_v1_coco", "train.batch_size=auto")
    assert (config.train.batch_size, config.train.accumulate) == (24, 6)
    assert "train.batch_size=auto" not in words


def test_the_same_words_find_what_was_chosen_though_the_machine_has_changed(machine, shapes):
    first, _ = own(shapes)
    machine["speed"] = Speed(1.0, 1)
    again, _ = own(shapes, "train.resume=auto")
    assert (again.train.steps, again.train.accumulate) == (first.train.steps, 2)
    assert machine["measured"] == 1
    fresh, _ = own(shapes)
    assert fresh.train.accumulate == 8


def test_cfg_prints_what_was_chosen(machine, shapes, capsys):
    assert main(["train", f"data.images={shapes}", "data.name=shapes", "--cfg"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["train"]["steps"], printed["train"]["accumulate"]) == (1500, 2)


def test_what_cannot_be_measured_is_said(machine, shapes, caplog):
    caplog.set_level(logging.INFO)
    machine["speed"] = None
    assert own(shapes)[0].train.accumulate == 1
    assert "A step could not be measured here: no end is foretold." in caplog.text


def test_a_kept_file_that_is_torn_is_settled_anew(machine, shapes, tmp_path):
    own(shapes)
    (file,) = tmp_path.glob("outputs/.auto/*.json")
    assert json.loads(file.read_text())[0] == "model=panels_ssdlite_mobilenet_v2"
    file.write_text("{")
    own(shapes, "train.resume=auto")
    assert machine["measured"] == 2


def test_other_commands_refuse_a_batch_that_nobody_has_settled(shapes):
    with pytest.raises(ConfigError) as caught:
        data_to_train_on(compose_config(["train.batch_size=auto"]))
    assert str(caught.value) == (
        "train.batch_size=auto: is `odtrain train`'s alone.\n  Give a number."
    )


@pytest.mark.long
def test_a_step_is_measured_in_a_process_of_its_own():
    from odtrain.recipes.probe import measure

    found = measure(compose_config(["model.input_size=64"]), 2)
    assert found is not None
    assert 1e-5 < found.seconds < 10
    assert found.pictures > 8
