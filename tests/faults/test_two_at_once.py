"""Two of everything at once in one folder."""

from __future__ import annotations

import shutil

import pytest
from support.faults import SETTINGS, WHOLE, Training, note

pytestmark = pytest.mark.long


def test_two_trainings_that_resume_begin_one_run(training):
    first, second = training.begin("train.resume=auto"), training.begin("train.resume=auto")
    done = sorted([first.wait(), second.wait()], key=lambda one: one.rc)
    assert [one.rc for one in done] == [0, 1], done[1].said
    assert "another process is working on it." in done[1].last
    state = training.state()
    note("two `train.resume=auto` at once", done[1], state)
    assert state == WHOLE


def test_two_trainings_of_one_folder_are_two_runs(training):
    first, second = training.begin(), training.begin()
    done = [first.wait(), second.wait()]
    assert [one.rc for one in done] == [0, 0], done[1].said
    state = training.state()
    note("two trainings at once", done[1], state)
    assert state == (
        "2 runs FINISHED, 2 versions, 2 models READY, each metric once, nothing temporary"
    )


def test_two_that_prepare_at_once(training):
    arguments = ["prepare", training.settings[0], "data.name=shapes"]
    commands = [training.command(*arguments) for _ in range(2)]
    done = [command.wait() for command in commands]
    assert [one.rc for one in done] == [0, 0], done[1].said
    trained = training.begin().wait()
    assert trained.rc == 0, trained.said
    state = training.state()
    note("two `prepare` at once", done[1], state)
    assert state == WHOLE


def test_two_that_sync_at_once(training):
    killed = training.killed_at("stage:steps.register")
    assert killed.rc == -9
    commands = [training.command("track", "sync", "outputs") for _ in range(2)]
    done = [command.wait() for command in commands]
    again = training.go_on()
    assert again.rc == 0, again.said
    state = training.state()
    note("two `track sync` at once, after a kill", done[1], state)
    assert state == WHOLE


@pytest.fixture(scope="module")
def trained_once(shapes, database, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained_once")
    shutil.copy(database, folder / "mlflow.db")
    settings = [f"data.images={shapes}", *SETTINGS]
    training = Training(folder, f"sqlite:///{folder}/mlflow.db", settings)
    done = training.begin().wait()
    assert done.rc == 0, done.said
    return training


@pytest.mark.parametrize(
    "command",
    [
        "evaluate source={run}",
        "export source={run}",
        "benchmark source=models:/shapes@champion data.prepared=datasets/shapes",
        "predict source=models:/shapes@champion input={shapes} output=drawn",
        "models promote models:/shapes/1",
        "models download models:/shapes/1 --to files",
        "report {run}",
        "check data.images={shapes} data.name=shapes --fix fixed",
        "convert input={shapes} output=as_yolo --to yolo",
        "collect {shapes} --to collected",
    ],
)
def test_two_of_one_command_at_once(trained_once, shapes, command):
    (run,) = (path.name for path in (trained_once.folder / "outputs/Default").iterdir())
    words = command.format(run=run, shapes=shapes).split()
    if words[0] not in ("check", "convert", "collect"):
        words.append(f"tracking.uri={trained_once.uri}")
    commands = [trained_once.command(*words) for _ in range(2)]
    done = sorted((one.wait() for one in commands), key=lambda one: one.rc)
    note(f"two `{words[0]}` at once", done[1], trained_once.state())
    assert [one.rc for one in done] in ([0, 0], [0, 1]), done[1].said
    assert "Traceback" not in done[0].said + done[1].said
    state = trained_once.state()
    assert "1 run FINISHED, 1 version, 1 model READY" in state or words[0] == "evaluate"
    assert state.endswith("nothing temporary")
