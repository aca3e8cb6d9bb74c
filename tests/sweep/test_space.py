from __future__ import annotations

import pytest

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.sweep.space import as_overrides, check_space, draw, read_space


class Lowest:
    """A trial whose sampler always takes the first choice, or the lower end."""

    def __init__(self, **wanted):
        self.wanted, self.asked = wanted, {}

    def suggest_categorical(self, name, choices):
        self.asked[name] = tuple(choices)
        return self.wanted.get(name, choices[0])

    def suggest_int(self, name, low, high, *, step, log):
        self.asked[name] = ("int", low, high, step, log)
        return low

    def suggest_float(self, name, low, high, *, step, log):
        self.asked[name] = ("float", low, high, step, log)
        return low


SPACE = {
    "train.decay_factor": {"low": 0.3, "high": 0.9, "when": {"train.schedule": ["exponential"]}},
    "train.schedule": {"choices": ["cosine", "exponential"]},
    "train.freeze": {"low": 0, "high": 4, "step": 2},
    "train.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
    "model": {"choices": ["ssd_mobilenet_v1_coco", "ssd_mobilenet_v2_coco"]},
}


def test_choices_and_ranges_are_drawn_as_they_are_written():
    trial = Lowest()
    assert draw(read_space(SPACE), trial) == {
        "model": "ssd_mobilenet_v1_coco",
        "train.schedule": "cosine",
        "train.freeze": 0,
        "train.learning_rate": 0.001,
    }
    assert trial.asked == {
        "model": ("ssd_mobilenet_v1_coco", "ssd_mobilenet_v2_coco"),
        "train.schedule": ("cosine", "exponential"),
        "train.freeze": ("int", 0, 4, 2, False),
        "train.learning_rate": ("float", 0.001, 0.1, None, True),
    }


def test_a_key_with_a_condition_is_drawn_only_where_it_holds():
    drawn = draw(read_space(SPACE), Lowest(**{"train.schedule": "exponential"}))
    assert drawn["train.decay_factor"] == 0.3


def test_groups_come_first_among_the_overrides():
    point = {"train.steps": 5, "model": "a", "train.crop": True, "model.input_size": [96, 128]}
    assert as_overrides(point) == [
        "model=a",
        "train.steps=5",
        "train.crop=true",
        "model.input_size=[96,128]",
    ]


@pytest.mark.parametrize(
    "name", ["quick", "training", pytest.param("speed_accuracy", marks=pytest.mark.long)]
)
def test_every_corner_of_a_shipped_space_composes(name):
    config = compose_config([f"sweep={name}"])
    dimensions = read_space(config.sweep.space)
    composed = list(check_space(dimensions, config.sweep.overrides))
    assert len(composed) >= 3
    for baseline in config.sweep.baselines:
        compose_config([*config.sweep.overrides, *as_overrides(baseline)])


def test_speed_and_accuracy_are_sought_in_model_size_depth_and_precision():
    sweep = compose_config(["sweep=speed_accuracy"]).sweep
    assert sweep.formats == ["tflite_fp32", "tflite_fp16", "tflite_dynamic", "tflite_int8"]
    dimensions = read_space(sweep.space)
    small = draw(dimensions, Lowest(model="ssdlite_mobilenet_v2_0.35_depth_224"))
    assert small["model.depth_multiplier"] == 0.25
    composed = compose_config([*sweep.overrides, *as_overrides(small)])
    assert (composed.train.steps, composed.train.checkpoint) == (1500, None)
    published = draw(dimensions, Lowest())
    assert "model.depth_multiplier" not in published
    composed = compose_config([*sweep.overrides, *as_overrides(published)])
    assert (composed.train.steps, composed.train.checkpoint) == (300, "zoo")


def test_every_choice_and_both_ends_are_composed():
    composed = list(check_space(read_space(SPACE), ["train.steps=7"]))
    assert {one.model.name for one in composed} == set(SPACE["model"]["choices"])
    assert {one.train.schedule for one in composed} == {"cosine", "exponential"}
    assert {one.train.freeze for one in composed} == {0, 4}
    assert {one.train.learning_rate for one in composed} == {0.001, 0.1}
    assert {0.3, 0.9} <= {one.train.decay_factor for one in composed}
    assert {one.train.steps for one in composed} == {7}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        pytest.param(
            {}, "sweep.space={}: nothing to try.\n  Choose sweep/space=quick.", id="empty"
        ),
        pytest.param(
            {"train.steps": 5},
            "sweep.space: train.steps: 5 is neither choices nor a range.\n"
            "  Give {choices: [A, B]} or {low: A, high: B}.",
            id="a value",
        ),
        pytest.param(
            {"train.steps": {"low": 5, "high": 5}},
            "sweep.space: train.steps: the range from 5 to 5 is empty.\n  Give low < high.",
            id="empty range",
        ),
        pytest.param(
            {"train.steps": {"choices": []}},
            "sweep.space: train.steps: has no choices.\n  Give at least one, or leave the key out.",
            id="no choices",
        ),
        pytest.param(
            {"train.learning_rate": {"low": 0, "high": 1, "log": True}},
            "sweep.space: train.learning_rate: low=0 has no logarithm.\n"
            "  Give low > 0, or log: false.",
            id="logarithm of zero",
        ),
        pytest.param(
            {"train.steps": {"low": 1, "high": 5, "steps": 2}},
            "sweep.space: train.steps: has no field steps.\n"
            "  Fields: choices, low, high, log, step, when.",
            id="misspelt field",
        ),
        pytest.param(
            {"train.steps": {"low": 1, "high": 5, "when": {"train.loss": ["focal"]}}},
            "sweep.space: train.steps: depends on train.loss, which is not in the space.\n"
            "  Keys of the space: train.steps.",
            id="condition on nothing",
        ),
    ],
)
def test_a_space_that_cannot_be_is_refused(space, message):
    with pytest.raises(ConfigError) as error:
        read_space(space)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("space", "message"),
    [
        pytest.param(
            {"train.stepz": {"low": 1, "high": 5}},
            "train.stepz=1: no such key.\n  Did you mean: train.steps, train.seed, train.restore",
            id="key",
        ),
        pytest.param(
            {"train.loss": {"choices": ["focal", "l1"]}},
            "train.loss=l1: no such choice.\n  Choose one of: hard_mining, focal, quality_focal, varifocal, "
            "retinanet, efficientdet.",
            id="choice",
        ),
    ],
)
def test_what_the_configuration_does_not_have_is_refused(space, message):
    with pytest.raises(ConfigError) as error:
        list(check_space(read_space(space), []))
    assert str(error.value) == message
