"""The driver of sweeps: with trainings that are made up, and once with real ones."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import optuna
import pytest
from conftest import TINY_RUN, odtrain
from mlflow import MlflowClient
from optuna.trial import TrialState

from odtrain import sweep as driver
from odtrain.config import compose_config
from odtrain.errors import ConfigError
from odtrain.sweep_trial import Result, over_budget

SPACE = """
train.learning_rate: {low: 0.001, high: 0.01, log: true}
model.input_size: {choices: [64, 96]}
"""


@pytest.fixture
def settings(shapes, database, tmp_path, monkeypatch):
    """Overrides of a sweep of two keys, in a folder of its own with an empty store."""
    (tmp_path / "conf/sweep/space").mkdir(parents=True)
    (tmp_path / "conf/sweep/space/two.yaml").write_text(SPACE)
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return [
        f"data.images={shapes}",
        "data.name=shapes",
        "tracking.system_metrics=false",
        "sweep/space=two",
        "sweep.baselines=[]",
        "sweep.n_trials=4",
    ]


def composed(settings, *more):
    return compose_config([*settings, *more], "conf")


def made_up(point, latency=None):
    """A training whose mAP grows with input and learning rate, and its latency with the input."""
    side, rate = point["model.input_size"], point["train.learning_rate"]
    files = {
        name: {
            "mAP": side / 200 + rate - loss,
            "mAP_50": side / 100,
            "latency_ms_p50": latency or side * factor,
            "latency_ms_p90": side * factor,
            "size_mb": 1.0,
            "peak_memory_mb": 50.0,
            "file": f"export/{name}",
            "failed": None,
        }
        for name, factor, loss in (("tflite_fp32", 0.1, 0.0), ("tflite_int8", 0.05, 0.05))
    }
    untrained = {name: {"latency_ms_p50": 1.0, "size_mb": 1.0} for name in files}
    run_id = f"{hash(tuple(point.items())) & 0xFFFFFFFF:032x}"
    return Result("done", "", run_id, [(1.0, side / 200)], side / 200, untrained, files)


@pytest.fixture
def trainings(monkeypatch):
    """Points that were trained, in order; nothing is trained."""
    done = []

    def train(job, point):
        done.append(dict(point))
        return made_up(point)

    monkeypatch.setattr(driver, "_train", train)
    return done


def study_of(config):
    return optuna.load_study(study_name=config.sweep.name, storage="sqlite:///optuna.db")


def test_n_trials_counts_trainings_and_each_gives_a_trial_per_file(settings, trainings):
    config = composed(settings)
    driver.sweep(config, settings)
    assert len(trainings) == 4
    trials = study_of(config).trials
    assert len(trials) == 8
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert sorted(trial.params["export.format"] for trial in trials) == (
        ["tflite_fp32"] * 4 + ["tflite_int8"] * 4
    )
    shared = [trial for trial in trials if "shares" in trial.user_attrs]
    assert sorted(trial.user_attrs["shares"] for trial in shared) == sorted(
        trial.number for trial in trials if "point" in trial.user_attrs
    )


def test_the_same_command_goes_on_with_the_study_in_the_same_run(settings, trainings):
    driver.sweep(composed(settings), settings)
    driver.sweep(composed(settings, "sweep.n_trials=6"), settings)
    assert len(trainings) == 6
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    assert run.info.status == "FINISHED"
    assert run.data.tags["odtrain.stage"] == "sweep"
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"front.json", "front.html", "front.png", "space.json", "config"} <= names


def test_the_front_is_logged_and_picked_from(settings, trainings):
    config = composed(settings)
    driver.sweep(config, settings)
    best = driver.points(study_of(config))
    assert {round(point.metrics["latency_ms_p50"], 3) for point in best} == {6.4, 3.2, 9.6, 4.8}
    rates = [one["train.learning_rate"] for one in trainings if one["model.input_size"] == 96]
    lines = driver.pick(config, 5.0, None, None, False).splitlines()
    assert f"| tflite_int8 | {0.43 + max(rates):.3f} | 0.960 | 4.80 ms | 1.00 MB |" in lines[2]
    assert lines[3].startswith("next quicker: tflite_int8 of trial")
    assert "-1.60 ms" in lines[3]
    assert lines[4].startswith("next slower: tflite_fp32 of trial")
    assert lines[4].endswith("+4.80 ms, +0.050 mAP, +0.00 MB")
    assert lines[-1].startswith("file: runs:/")


def test_nothing_within_the_limits_is_told_with_the_front(settings, trainings):
    config = composed(settings)
    driver.sweep(config, settings)
    with pytest.raises(ConfigError) as error:
        driver.pick(config, 0.1, None, None, False)
    lines = str(error.value).splitlines()
    assert lines[0] == "sweep pick: no file on the front is within these limits:"
    assert lines[-1] == "  Allow more, or sweep further: sweep.n_trials."


def test_baselines_come_first(settings, trainings):
    baseline = "sweep.baselines=[{model.input_size: 96, train.learning_rate: 0.005}]"
    driver.sweep(composed(settings, baseline), settings)
    assert trainings[0] == {"train.learning_rate": 0.005, "model.input_size": 96}


def test_a_training_that_fails_is_tried_once_more_and_does_not_count(settings, monkeypatch):
    done = []

    def train(job, point):
        done.append(dict(point))
        return Result("failed", "killed") if len(done) == 1 else made_up(point)

    monkeypatch.setattr(driver, "_train", train)
    config = composed(settings, "sweep.n_trials=2")
    driver.sweep(config, settings)
    assert done[0] == done[1]
    assert len(done) == 3
    states = [trial.state for trial in study_of(config).trials]
    assert states.count(TrialState.FAIL) == 1


def test_what_a_killed_driver_left_running_is_tried_again(settings, trainings):
    config = composed(settings, "sweep.n_trials=1")
    study = driver.open_study(config)
    lost = study.ask()
    point = {"train.learning_rate": 0.002, "model.input_size": 64}
    lost.suggest_float("train.learning_rate", 0.002, 0.0020001, log=True)
    lost.suggest_categorical("model.input_size", [64, 96])
    for key, value in {
        "host": socket.gethostname(),
        "process": 2**22 + 1,
        "point": point,
    }.items():
        lost.set_user_attr(key, value)
    driver.sweep(config, settings)
    trials = study_of(config).trials
    assert trials[lost.number].state == TrialState.FAIL
    assert trials[lost.number].user_attrs["reason"] == "the process of the sweep ended"
    assert len(trainings) == 1
    assert trainings[0]["model.input_size"] == trials[lost.number].params["model.input_size"]


def test_what_another_live_driver_runs_is_left_alone(settings, trainings):
    config = composed(settings, "sweep.n_trials=2")
    study = driver.open_study(config)
    other = study.ask()
    for key, value in {"host": socket.gethostname(), "process": os.getpid(), "point": {}}.items():
        other.set_user_attr(key, value)
    driver.sweep(config, settings)
    assert study_of(config).trials[other.number].state == TrialState.RUNNING
    assert len(trainings) == 1


def test_a_network_over_the_budget_is_recorded_and_not_on_the_front(settings, monkeypatch):
    untrained = {"tflite_fp32": {"latency_ms_p50": 9.0, "size_mb": 1.0}}
    untrained["tflite_int8"] = untrained["tflite_fp32"]
    result = Result("infeasible", "its quickest file takes 9.00 ms", untrained=untrained)
    monkeypatch.setattr(driver, "_train", lambda job, point: result)
    config = composed(settings, "sweep.n_trials=2")
    driver.sweep(config, settings)
    study = study_of(config)
    assert [trial.user_attrs["state"] for trial in study.trials] == ["infeasible"] * 2
    assert [trial.constraints for trial in study.trials] == [{"budget": 1.0}] * 2
    assert driver.points(study) == []


@pytest.mark.parametrize(
    ("latency", "size", "expected"),
    [
        pytest.param(None, None, None, id="no budget"),
        pytest.param(5.0, 3.0, None, id="within"),
        pytest.param(
            3.0, None, "its quickest file takes 4.00 ms; sweep.max_latency_ms=3", id="too slow"
        ),
        pytest.param(
            None, 1.5, "its smallest file has 2.00 MB; sweep.max_size_mb=1.5", id="too large"
        ),
    ],
)
def test_a_network_is_over_the_budget_if_none_of_its_files_is_within(latency, size, expected):
    files = {
        "tflite_fp32": {"latency_ms_p50": 8.0, "size_mb": 8.0},
        "tflite_int8": {"latency_ms_p50": 4.0, "size_mb": 2.0},
    }
    assert over_budget(files, latency, size) == expected


def test_a_study_is_not_gone_on_with_in_other_directions(settings, trainings):
    driver.sweep(composed(settings, "sweep.n_trials=1"), settings)
    changed = composed(settings, "sweep.directions.latency_ms_p50=maximize")
    with pytest.raises(ConfigError) as error:
        driver.sweep(changed, settings)
    assert "sweep.sampler" not in str(error.value)
    assert "Give another sweep" in str(error.value)


def test_a_metric_that_no_file_has_is_refused_before_anything_is_trained(settings, trainings):
    with pytest.raises(ConfigError) as error:
        driver.sweep(composed(settings, "+sweep.directions.beauty=maximize"), settings)
    assert str(error.value) == (
        "sweep.directions: beauty: maximize: no such metric or direction.\n"
        "  Metrics: mAP, mAP_50, latency_ms_p50, latency_ms_p90, size_mb, peak_memory_mb; "
        "each maximize or minimize."
    )
    assert trainings == []


def test_data_without_validation_pictures_is_refused(settings, trainings):
    done = odtrain(
        ["sweep", *settings, "data.validation_fraction=0", "--config-dir", "conf"],
        Path.cwd(),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-2:] == [
        "shapes: has no validation pictures, and a sweep is judged on them.",
        "  Give data.validation_fraction=0.1, or data.validation_list.",
    ]


@pytest.mark.slow
def test_a_sweep_trains_below_its_run_and_its_pick_is_registered(settings):
    own = [text for text in TINY_RUN if not text.startswith(("train.steps", "evaluate.every"))]
    more = ["sweep.n_trials=1", "train.steps=4", "evaluate.every=2", "sweep.overrides=[]"]
    arguments = [*settings, *own, *more, "--config-dir", "conf"]
    done = odtrain(["sweep", *arguments], Path.cwd())
    assert done.returncode == 0, done.stderr
    assert "1 trainings, 0 of them stopped early; " in done.stdout
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    by_stage = {run.data.tags["odtrain.stage"]: run for run in runs}
    child, parent = by_stage["train"], by_stage["sweep"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["odtrain.eval_split"] == "validation"
    assert {child.info.status, parent.info.status} == {"FINISHED"}
    local = client.download_artifacts(parent.info.run_id, "front.json")
    rows = json.loads(Path(local).read_text())
    assert {row["run_id"] for row in rows} == {child.info.run_id}
    assert {row["format"] for row in rows} <= {"tflite_fp32", "tflite_int8"}
    for row in rows:
        measured = child.data.metrics[f"export/{row['format']}/latency_ms_p50"]
        assert row["latency_ms_p50"] == measured
    picked = odtrain(["sweep", "pick", "--register", *arguments], Path.cwd())
    assert picked.returncode == 0, picked.stderr
    (version,) = client.search_model_versions("name='shapes'")
    assert version.run_id == child.info.run_id
    assert "registered as models:/shapes@" in picked.stdout
    assert client.get_run(child.info.run_id).data.tags["odtrain.eval_split"] == "test"
