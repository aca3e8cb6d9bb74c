"""Two of everything at once in one folder."""

from __future__ import annotations

import pytest
from support.faults import WHOLE, note

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


@pytest.mark.parametrize(
    "command",
    [
        "evaluate source={run}",
        "benchmark source=models:/shapes@champion data.prepared=datasets/shapes",
        "predict source=models:/shapes@champion input={shapes} output=drawn",
        "models promote shapes 1 registry.min_recall=0",
        "models download models:/shapes/1 --to files",
        "report {run}",
        "check data.images={shapes} data.name=shapes --fix fixed",
        "convert input={shapes} output=as_yolo --to yolo",
        "collect {shapes} --to collected",
        "export source={run}",  # last: it measures new files, and logs what it finds
    ],
)
def test_two_of_one_command_at_once(trained_once, shapes, command):
    words = command.format(run=trained_once.run, shapes=shapes).split()
    if words[0] not in ("check", "convert", "collect"):
        words.append(f"tracking.uri={trained_once.uri}")
    commands = [trained_once.command(*words) for _ in range(2)]
    done = sorted((one.wait() for one in commands), key=lambda one: one.rc)
    state = trained_once.state()
    named = " ".join(words[: 1 + (words[0] == "models")])
    note(f"two `{named}` at once", done[1], state)
    assert [one.rc for one in done] in ([0, 0], [0, 1]), done[1].said
    assert "Traceback" not in done[0].said + done[1].said
    if words[0] == "export":
        assert state.startswith("1 run FINISHED, 1 version, 1 model READY, twice: export/")
        assert state.endswith("nothing temporary")
    else:
        assert state == WHOLE
