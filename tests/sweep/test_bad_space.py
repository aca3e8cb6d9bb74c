"""Spaces and baselines that cannot be."""

from __future__ import annotations

import optuna
import pytest

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.sweep.space import check_baselines, draw, read_space


@pytest.mark.parametrize(
    ("space", "message"),
    [
        pytest.param(
            {"train.steps": {"low": 1, "high": 9, "log": True, "step": 2}},
            "sweep.space: train.steps: a logarithmic range has no step.\n"
            "  Give log or step, not both.",
            id="log and step",
        ),
        pytest.param(
            {"train.steps": {"low": 1, "high": 9, "step": 0}},
            "sweep.space: train.steps: step=0 leads from no value to the next.\n"
            "  Give a number above 0, a whole one if low and high are.",
            id="step of zero",
        ),
        pytest.param(
            {"train.schedule": {"choices": "cosine"}},
            "sweep.space: train.schedule: {'choices': 'cosine'} is neither choices nor a range.\n"
            "  Give {choices: [A, B]}.",
            id="a word for a list",
        ),
        pytest.param(
            {"train.steps": {"choices": [1], "low": 1, "high": 9}},
            "sweep.space: train.steps: {'choices': [1], 'low': 1, 'high': 9} is neither choices nor "
            "a range.\n  Give {choices: [A, B]}.",
            id="choices and a range",
        ),
        pytest.param(
            {"tracking.uri": {"choices": ["a"]}},
            "sweep.space: tracking.uri: is not part of a training.\n"
            "  Leave the key out of the space.",
            id="not of a training",
        ),
        pytest.param(
            {"train.steps": {"low": 1, "high": 9, "when": ["train.loss"]}},
            "sweep.space: train.steps: when: ['train.loss'] is no condition.\n"
            "  Give when: {KEY: [VALUES]}.",
            id="no condition",
        ),
        pytest.param(
            {
                "train.loss": {"choices": ["focal"]},
                "train.steps": {"low": 1, "high": 9, "when": {"train.loss": ["fokal"]}},
            },
            "sweep.space: train.steps: waits for train.loss=fokal, which is never tried.\n"
            "  Add it to train.loss, or take it out of when.",
            id="a value that is never tried",
        ),
    ],
)
def test_a_range_or_condition_that_cannot_be_is_refused(space, message):
    with pytest.raises(ConfigError) as error:
        read_space(space)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("baseline", "problem"),
    [
        pytest.param({"train.stepz": 5}, "train.stepz is not in the space.", id="key"),
        pytest.param({"train.steps": 99}, "train.steps=99 is not in the space.", id="range"),
        pytest.param({"train.loss": "l1"}, "train.loss=l1 is not in the space.", id="choice"),
    ],
)
def test_a_baseline_outside_the_space_is_refused(baseline, problem):
    space = {"train.steps": {"low": 1, "high": 9}, "train.loss": {"choices": ["focal"]}}
    with pytest.raises(ConfigError) as error:
        check_baselines(read_space(space), [baseline])
    assert str(error.value).startswith(f"sweep.baselines: {baseline}: {problem}\n")


def test_lists_are_chosen_from_as_their_overrides_are_written():
    dimensions = read_space({"model.input_size": {"choices": [[96, 128], 160]}})
    study = optuna.create_study()
    study.enqueue_trial({"model.input_size": "[96,128]"})
    assert draw(dimensions, study.ask()) == {"model.input_size": "[96,128]"}


@pytest.mark.slow
def test_an_untrained_int8_file_is_not_slowed_by_suppression(shapes, tmp_path):
    from odtrain.jobs.trial import measure_untrained

    config = compose_config(
        [
            *(f"data.images={shapes}", "data.name=shapes", f"data.prepared={tmp_path}"),
            *("model=panels_ssd_mobilenet_v1", "model.input_size=96"),
            "export.formats=[tflite_int8]",
        ]
    )
    (measured,) = measure_untrained(config).values()
    assert all(not found.scores.any() for found in measured.detections)
