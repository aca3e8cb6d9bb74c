"""What a driver of sweeps meets besides good trainings; nothing is trained here."""

from __future__ import annotations

import shutil

import optuna
import pytest

from odtrain import sweep as driver
from odtrain.config import compose_config
from odtrain.errors import ConfigError, TrainingError
from odtrain.sweep_space import check_baselines, draw, read_space
from odtrain.sweep_trial import Result

FORMATS = ("tflite_fp32", "tflite_int8")


@pytest.fixture
def settings(shapes, database, tmp_path, monkeypatch):
    """Overrides of a sweep of one key, in a folder of its own with an empty store."""
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return [f"data.images={shapes}", "data.name=shapes", "tracking.system_metrics=false"]


def composed(settings, n_trials):
    config = compose_config([*settings, f"sweep.n_trials={n_trials}"])
    config.sweep.space = {"train.learning_rate": {"low": 0.001, "high": 0.01, "log": True}}
    config.sweep.baselines = []
    return config


def file(score, latency, failed=None):
    values = dict.fromkeys(driver.METRICS, 1.0)
    return values | {"mAP": score, "latency_ms_p50": latency, "file": "export/x", "failed": failed}


def done(run_id="run", **files):
    untrained = {name: dict.fromkeys(driver.METRICS, 1.0) for name in FORMATS}
    return Result("done", "", run_id, [(0.5, 0.1), (1.0, 0.5)], 0.5, untrained, files)


def trained(monkeypatch, result):
    points = []

    def train(job, point):
        points.append(point)
        return result(len(points))

    monkeypatch.setattr(driver, "_train", train)
    return points


def study_of(config):
    return optuna.load_study(study_name=config.sweep.name, storage="sqlite:///optuna.db")


def both(count):
    return done(f"run{count}", tflite_fp32=file(0.5, 2.0), tflite_int8=file(0.3, 1.0))


def test_a_sweep_whose_trainings_all_fail_ends(settings, monkeypatch):
    points = trained(monkeypatch, lambda count: Result("failed", f"disk full ({count})"))
    with pytest.raises(TrainingError) as error:
        driver.sweep(composed(settings, 2), settings)
    assert str(error.value) == (
        "sweep shapes: 4 trainings failed one after the other, the last: disk full (4)\n"
        "  Put that right and give the command again: what is finished is kept."
    )
    assert len(points) == 4


def test_single_failures_do_not_end_a_sweep(settings, monkeypatch):
    fails = (1, 2, 4, 5, 7, 8)
    trained(monkeypatch, lambda n: Result("failed", "killed") if n in fails else both(n))
    config = composed(settings, 3)
    driver.sweep(config, settings)
    assert len(driver.points(study_of(config))) == 6


def test_files_are_kept_where_the_driver_was_killed_before_it_added_their_trials(
    settings, monkeypatch
):
    trained(monkeypatch, both)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "add_trial", killed)
        driver.sweep(composed(settings, 1), settings)
    config = composed(settings, 1)
    assert [point.format for point in driver.points(study_of(config))] == list(FORMATS)


def test_what_is_to_be_beaten_has_the_score_and_the_speed_of_one_file(settings, monkeypatch):
    results = {
        1: both(1),
        2: done("run2", tflite_fp32=file(0.6, 3.0), tflite_int8=file(0.0, 0.1, "loses 0.6 mAP")),
    }
    trained(monkeypatch, results.get)
    config = composed(settings, 2)
    driver.sweep(config, settings)
    job = driver.Sweep(config, study_of(config), [], [], "", "")
    to_beat = [(one.best, one.latency_ms) for one in driver._finished(job)]
    assert to_beat == [(0.5, 2.0), (0.3, 1.0), (0.6, 3.0)]


def test_a_training_is_recorded_in_the_experiment_of_its_sweep(settings, monkeypatch):
    given = []
    monkeypatch.setattr(driver, "_train", lambda job, point: given.append(job.fixed) or both(1))
    config = composed(settings, 1)
    config.tracking.experiment = "another"
    driver.sweep(config, settings)
    assert given[0][-1] == "tracking.experiment=another"


def test_a_password_of_the_storage_is_neither_shown_nor_logged():
    storage = "postgresql://me:secret@127.0.0.1:1/studies"
    override = f"sweep.storage={storage}"
    config = compose_config([override])
    with pytest.raises(ConfigError) as error, driver._quiet():
        driver.open_study(config)
    assert "secret" not in str(error.value)
    logged, overrides = driver._without_password(config, [override, "train.steps=5"])
    assert logged.sweep.storage == "postgresql://me:***@127.0.0.1:1/studies"
    assert overrides == ["sweep.storage=postgresql://me:***@127.0.0.1:1/studies", "train.steps=5"]
    assert config.sweep.storage == storage


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
    from odtrain.experiment import measure_untrained

    config = compose_config(
        [f"data.images={shapes}", "data.name=shapes", f"data.prepared={tmp_path}"]
    )
    config.model.input_size, config.export.formats = 96, ["tflite_int8"]
    (measured,) = measure_untrained(config).values()
    assert all(not found.scores.any() for found in measured.detections)
