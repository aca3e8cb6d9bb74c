"""A sweep whose trainings, made up, are done by several nodes of a Ray on this machine."""

from __future__ import annotations

import collections
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from support.made_up_training import made_up
from support.ray_nodes import Nodes

from odtrain.sweep import queue as sweep_trials
from odtrain.sweep import results as sweep_results

DRIVER = Path(__file__).parents[1] / "support/made_up_sweep.py"
SPACE = """
model.input_size: {choices: [64, 80, 96]}
train.learning_rate: {choices: [0.002, 0.004]}
"""
MANY = """
model.input_size: {choices: [64, 80, 96]}
train.learning_rate: {low: 0.001, high: 0.01, log: true}
"""
DRIVERS: list[subprocess.Popen[bytes]] = []
POINTS = [
    f"{{model.input_size: {size}, train.learning_rate: {rate}}}"
    for size in (64, 80, 96)
    for rate in (0.002, 0.004)
]


@pytest.fixture
def place(tmp_path, database):
    """A folder to run the driver in."""
    (tmp_path / "conf/sweep/space").mkdir(parents=True)
    (tmp_path / "conf/sweep/space/six.yaml").write_text(SPACE)
    (tmp_path / "conf/sweep/space/many.yaml").write_text(MANY)
    shutil.copy(database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def nodes():
    """A head, and two nodes that train one at a time."""
    begun = Nodes(1, 1)
    yield begun
    begun.end()


@pytest.fixture(autouse=True)
def ended():
    """The drivers that a test began, which end with it."""
    yield DRIVERS
    while DRIVERS:
        with DRIVERS.pop() as driver:
            driver.kill()


def begin(place, shapes, *overrides, space="six", trainings=6, seconds=0.2):
    given = [
        f"data.images={shapes}",
        "data.name=shapes",
        "tracking.system_metrics=false",
        f"sweep/space={space}",
        f"sweep.baselines=[{', '.join(POINTS)}]",
        "sweep.overrides=[]",
        "sweep.stop_hopeless=false",
        "sweep.sampler=random",
        f"train.max_minutes={seconds}",
        "train.precision=fp32",  # nothing is timed to decide on it
        f"sweep.n_trials={trainings}",
        "sweep.grace=10",
        *overrides,
    ]
    log = place / "log"
    with log.open("ab") as stream:
        driver = subprocess.Popen(
            [sys.executable, str(DRIVER), *given],
            cwd=place,
            env=os.environ | {"XDG_CACHE_HOME": str(place / "cache")},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    DRIVERS.append(driver)
    return driver


def said(place):
    return (place / "log").read_text("utf-8", "replace")


def study_of(place):
    return optuna.load_study(study_name="shapes", storage=f"sqlite:///{place}/optuna.db")


def complete(place):
    try:
        return sweep_trials.count(study_of(place), TrialState.COMPLETE)
    except KeyError:
        return 0


def check_accounts(place, trainings):
    """Each training is counted once, and every front point is that of the objective."""
    study = study_of(place)
    assert complete(place) == trainings
    runs = [trial.user_attrs["result"] for trial in sweep_results.done(study)]
    for trial in sweep_results.done(study):
        result = trial.user_attrs["result"]
        expected = vars(made_up(trial.user_attrs["point"]))
        assert {**result, "seconds": 0, "host": "", "curve": 0} == {
            **expected,
            "seconds": 0,
            "host": "",
            "curve": 0,
        }
    assert len(runs) == trainings
    return {(point.format, *sorted(point.params.items())) for point in sweep_results.front(study)}


@pytest.mark.long
def test_two_nodes_come_to_the_front_of_one_machine(place, shapes, nodes):
    alone = place / "alone"
    shutil.copytree(place / "conf", alone / "conf")
    shutil.copy(place / "mlflow.db", alone)
    one = begin(alone, shapes)
    assert one.wait(200) == 0, said(alone)
    two = begin(place, shapes, "cluster=ray", f"cluster.address={nodes.address}")
    assert two.wait(200) == 0, said(place)
    front = check_accounts(place, len(POINTS))
    assert front == check_accounts(alone, len(POINTS))
    assert len(front) == 4


@pytest.mark.long
def test_nodes_that_are_killed_lose_at_most_what_they_train(place, shapes, nodes):
    draw, kills = random.Random(0), 0
    given = ("cluster=ray", f"cluster.address={nodes.address}")
    driver = begin(place, shapes, *given, space="many", trainings=20, seconds=3)
    until, seen = time.monotonic() + 900, 0
    while driver.poll() is None and time.monotonic() < until:
        time.sleep(draw.uniform(2, 6))
        now = complete(place)
        assert now >= seen  # what is finished stays so
        seen = now
        if kills < 4 and now:
            nodes.kill(nodes.nodes.pop(draw.randrange(len(nodes.nodes))))
            kills += 1
            nodes.nodes.append(nodes.add(1))
    assert driver.wait(60) == 0, said(place)
    assert kills == 4
    check_accounts(place, 20)
    assert {trial.state for trial in study_of(place).trials} == {TrialState.COMPLETE}
    begun = collections.Counter((place / "begun").read_text().splitlines())
    assert len(begun) == 20
    assert begun.total() <= 20 + kills


@pytest.mark.long
def test_a_head_that_dies_ends_the_sweep_with_one_message_and_the_same_command_goes_on(
    place, shapes
):
    first = Nodes(1, 1)
    given = ("cluster=ray", f"cluster.address={first.address}")
    driver = begin(place, shapes, *given, space="many", trainings=10, seconds=2)
    until = time.monotonic() + 200
    while complete(place) < 2 and time.monotonic() < until:
        time.sleep(0.5)
    first.kill_head()
    assert driver.wait(60) == 1, said(place)
    *_, what, remedy = said(place).splitlines()
    assert what == f"cluster.address={first.address}: its head does not answer any more."
    assert remedy == (
        "  What is finished is kept. Start Ray again and give the same command to go on."
    )
    first.end()
    second = Nodes(1, 1)
    try:
        given = ("cluster=ray", f"cluster.address={second.address}")
        driver = begin(place, shapes, *given, space="many", trainings=10, seconds=2)
        assert driver.wait(200) == 0, said(place)
    finally:
        second.end()
    check_accounts(place, 10)
