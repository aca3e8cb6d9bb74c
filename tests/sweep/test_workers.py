"""Several processes on one study in PostgreSQL, killed at any moment; the trainings are made up."""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from support.made_up_training import made_up
from support.postgres import Postgres

from odtrain.sweep import queue as sweep_trials
from odtrain.sweep import results as sweep_results
from odtrain.sweep import study as sweep_study
from odtrain.sweep.pareto import read_front

SPACE = """
train.learning_rate: {low: 0.001, high: 0.01, log: true}
model.input_size: {choices: [64, 80, 96]}
"""
DRIVER = Path(__file__).parents[1] / "support/made_up_sweep.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """PostgreSQL, with nothing of a study in it."""
    folder = Path("/tmp") / f"odtrain-postgres-{os.getpid()}"  # its user must reach the folder
    folder.mkdir()
    try:
        running = Postgres(folder)
        yield running
        running.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def place(tmp_path, database, shapes):
    """A folder to run the driver in, and the overrides that it is given."""
    (tmp_path / "conf/sweep/space").mkdir(parents=True)
    (tmp_path / "conf/sweep/space/three.yaml").write_text(SPACE)
    shutil.copy(database, tmp_path / "mlflow.db")
    return tmp_path


class Driver:
    """The command in a process of its own, in the folder `place`."""

    def __init__(self, place, overrides):
        self.log = place / f"log{time.monotonic_ns()}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVER), *overrides],
                cwd=place,
                env=environment | {"XDG_CACHE_HOME": str(place / "cache")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_training(self):
        """Whether a training of it is at work."""
        return self.process.poll() is None and bool(self.trainings())

    def trainings(self):
        """The processes of its trainings (one that ends while it is looked at is none of them)."""
        children = psutil.Process(self.process.pid).children()
        return [one for one in children if "made_up_training" in command_line(one)]

    def said(self):
        return self.log.read_text("utf-8", "replace")


def command_line(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended, or waits to be reaped
        return ""


def overrides(server, shapes, name, trainings, seconds, workers=3):
    return [
        f"data.images={shapes}",
        "data.name=shapes",
        "tracking.system_metrics=false",
        "sweep/space=three",
        "sweep.baselines=[{model.input_size: 96, train.learning_rate: 0.004}]",
        "sweep.overrides=[]",
        "sweep.stop_hopeless=false",
        f"train.max_minutes={seconds}",
        "train.precision=fp32",  # nothing is timed to decide on it
        f"sweep.name={name}",
        f"sweep.storage={server.url}",
        f"sweep.n_trials={trainings}",
        f"sweep.workers={workers}",
        "sweep.grace=10",
    ]


def study_of(server, name):
    """The study, as somebody who looks at it has it."""
    storage = optuna.storages.RDBStorage(server.url, engine_kwargs={"pool_pre_ping": True})
    return optuna.load_study(study_name=name, storage=storage)


def complete(server, name):
    try:
        return sweep_trials.count(study_of(server, name), TrialState.COMPLETE)
    except (KeyError, *sweep_study.AWAY):
        return 0


def owners(study):
    """Processes of the drivers that have finished a training."""
    return {trial.user_attrs["owner"]["process"] for trial in sweep_results.done(study)}


def has_done(server, name, driver):
    """Whether a driver has finished a training."""
    return complete(server, name) > 0 and driver.process.pid in owners(study_of(server, name))


def check_accounts(study, trainings):
    """Every trial is accounted for, none twice, and the front is that of the trainings."""
    asked = sweep_trials.asked(study)
    states = collections.Counter(trial.state for trial in asked)
    assert states[TrialState.COMPLETE] == trainings
    assert set(states) <= {TrialState.COMPLETE, TrialState.FAIL}
    lost = [trial for trial in asked if trial.state == TrialState.FAIL]
    again = [trial.user_attrs["retry_of"] for trial in asked if "retry_of" in trial.user_attrs]
    assert len(again) == len(set(again))
    chosen = {trial.number for trial in lost if trial.params or trial.system_attrs}
    assert set(again) <= chosen
    assert {trial.user_attrs["state"] for trial in lost} <= {"lost"}
    files = [
        (trial.user_attrs["shares"], trial.params["export.format"])
        for trial in study.get_trials()
        if "shares" in trial.user_attrs
    ]
    assert len(files) == len(set(files)) == trainings
    points = sweep_results.points(study)
    assert len(points) == 2 * trainings
    for trial in sweep_results.done(study):
        assert trial.user_attrs["result"] == {
            **vars(made_up(trial.user_attrs["point"])),
            "curve": trial.user_attrs["result"]["curve"],
        }
    best = sweep_results.front(study)
    for size in {point.params["model.input_size"] for point in points}:
        rates = [one.params["train.learning_rate"] for one in points]
        near = min(
            abs(one.params["train.learning_rate"] - 0.004)
            for one in points
            if one.params["model.input_size"] == size
        )
        kept = [one for one in best if one.params["model.input_size"] == size]
        assert rates and all(
            abs(abs(one.params["train.learning_rate"] - 0.004) - near) < 1e-12 for one in kept
        )
    return best


@pytest.fixture
def drive(place):
    """Begins drivers, and ends them if the test has not."""
    begun = []

    def begin(overrides):
        begun.append(Driver(place, overrides))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.wait()


@pytest.mark.slow
def test_two_drivers_share_a_study_and_the_trainings_of_one_that_is_killed_are_tried_again(
    server, place, shapes, drive
):
    given = overrides(server, shapes, "short", 10, 3.0, workers=2)
    first, second = drive(given), drive(given)
    until = time.monotonic() + 200
    while not (first.is_training() and second.is_training() and has_done(server, "short", first)):
        assert time.monotonic() < until, first.said() + second.said()
        time.sleep(0.2)
    first.process.kill()
    first.process.wait()
    assert second.process.wait(200) == 0, second.said()
    study = study_of(server, "short")
    best = check_accounts(study, 10)
    assert owners(study) == {first.process.pid, second.process.pid}
    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    run = study.user_attrs["run_id"]
    local = client.download_artifacts(run, "front.json", str(place))
    assert [one.run_id for one in read_front(Path(local).read_text())] == [
        one.run_id for one in best
    ]
    assert client.get_run(run).info.status == "FINISHED"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_the_trainings_and_none_of_them_counts_as_failed(
    server, place, shapes, drive, number
):
    name = signal.Signals(number).name
    driver = drive(overrides(server, shapes, name, 10, 60.0, workers=2))
    until = time.monotonic() + 200
    while not (driver.is_training() and len(driver.trainings()) == 2):
        assert time.monotonic() < until, driver.said()
        time.sleep(0.2)
    trainings = driver.trainings()
    if number == signal.SIGINT:
        os.killpg(driver.process.pid, number)  # as a terminal does
    else:
        driver.process.send_signal(number)
    assert driver.process.wait(30) != 0
    assert psutil.wait_procs(trainings, timeout=5)[1] == []
    states = {trial.user_attrs.get("state") for trial in study_of(server, name).trials}
    assert "failed" not in states


@pytest.mark.long
def test_six_kills_and_a_database_that_goes_away_lose_nothing(server, place, shapes, drive):
    given = overrides(server, shapes, "long", 30, 1.0)
    draw, kills, away = random.Random(0), 0, False
    drivers = [drive(given), drive(given)]
    until = time.monotonic() + 1500
    while time.monotonic() < until and any(one.process.poll() is None for one in drivers):
        time.sleep(draw.uniform(2, 6))
        victim = draw.choice(drivers)
        if kills < 6 and complete(server, "long") and victim.process.poll() is None:
            victim.process.kill()
            victim.process.wait()
            kills += 1
            drivers[drivers.index(victim)] = drive(given)
        if kills == 3 and not away:
            server.stop()
            time.sleep(5)
            server.start()
            away = True
    assert [one.process.returncode for one in drivers] == [0, 0], drivers[0].said()
    assert (kills, away) == (6, True)
    best = check_accounts(study_of(server, "long"), 30)
    assert len(best) >= 3
