"""A training whose workers Ray places on this machine, by the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from mlflow import MlflowClient
from support.commands import TINY_RUN
from support.ray_nodes import Nodes

FEW_FILES = ("export.formats=[tflite_fp32]", "train.batch_size=4", "train.batch_norm=frozen")
TWO = ("cluster=ray", "cluster.workers=2", "cluster.cpus_per_worker=1")
STEPS = ("train.steps=300", "evaluate.every=0", "evaluate.bootstrap=0")
ENDLESS = ("train.steps=100000", "evaluate.every=100000")


class Command:
    """`odtrain train` in a folder."""

    def __init__(self, folder, shapes, *more):
        self.log = folder / "log"
        self.begun = set()
        words = (*TINY_RUN, *FEW_FILES, *TWO, f"data.images={shapes}", *more)
        inherited = {key: one for key, one in os.environ.items() if not key.startswith("MLFLOW_")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "odtrain", "train", *words],
                cwd=folder,
                env=inherited,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def said(self):
        return self.log.read_text(encoding="utf-8")

    def wait_for_step(self):
        end = time.monotonic() + 200
        while not re.search(r"^train: [1-9]", self.said(), re.MULTILINE):
            assert time.monotonic() < end and self.process.poll() is None, self.said()
            time.sleep(0.2)
        self.note_begun()

    def note_begun(self):
        """Of all that it has begun, and what that has."""
        with suppress(psutil.Error):
            self.begun |= set(psutil.Process(self.process.pid).children(recursive=True))

    def wait(self, seconds):
        """Its status."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.said()
            self.note_begun()
            time.sleep(0.2)
        return self.process.returncode

    def left(self):
        """What it has begun, and does not end by itself within a minute."""
        assert self.begun
        return psutil.wait_procs(self.begun, timeout=60)[1]

    def trainings(self):
        """The processes that train."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in children if "odtrain.cluster.followed" in one.cmdline()]


def processes(word):
    """That have a word among their arguments."""
    every = psutil.process_iter(["cmdline"])
    return [one for one in every if word in (one.info["cmdline"] or [])]


def runs(folder):
    return MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["0"])


@pytest.mark.long
def test_two_workers_of_ray_end_registered_and_judged_and_leave_nothing(shapes, tmp_path):
    with Command(tmp_path, shapes) as command:
        assert command.wait(300) == 0, command.said()
    assert "Ray: 2 workers of 1 core each." in command.said()
    assert "Registered models:/shapes/1" in command.said()
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert not any(key.startswith("cluster.") for key in run.data.params)
    assert command.left() == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_stops_all_behind_a_checkpoint_and_leaves_nothing(
    shapes, tmp_path, number, status
):
    with Command(tmp_path, shapes, *ENDLESS) as command:
        command.wait_for_step()
        command.process.send_signal(number)
        assert command.wait(120) == status, command.said()
    assert "Stopped after step" in command.said()
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"
    assert command.left() == []


@pytest.mark.long
def test_a_command_that_is_killed_leaves_no_process(shapes, tmp_path):
    with Command(tmp_path, shapes, *ENDLESS) as command:
        command.wait_for_step()
        command.process.kill()
        command.process.wait()
        assert command.left() == []


@pytest.mark.long
def test_a_worker_that_is_killed_is_begun_again_and_the_run_goes_on(shapes, tmp_path):
    with Command(tmp_path, shapes, *STEPS) as command:
        command.wait_for_step()
        command.trainings()[-1].kill()
        assert command.wait(400) == 0, command.said()
    assert "A worker was lost; the others go on from the last checkpoint." in command.said()
    assert "Going on after step" in command.said()
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert command.left() == []


@pytest.fixture
def cluster():
    """Begins nodes of a Ray; ends all of them."""
    begun = []

    def begin(*cores):
        begun.append(Nodes(*cores))
        return begun[-1], f"cluster.address={begun[-1].address}"

    yield begin
    for one in begun:
        one.end()


@pytest.mark.long
def test_a_run_goes_on_with_the_machines_that_are_left(shapes, tmp_path, cluster):
    nodes, address = cluster(1, 1)
    with Command(tmp_path, shapes, *STEPS, address) as command:
        command.wait_for_step()
        nodes.kill(nodes.nodes[0])
        assert command.wait(400) == 0, command.said()
    assert "Ray: 2 workers of 1 core each." in command.said()
    assert "Ray: 1 worker of 1 core each." in command.said()
    assert "Going on after step" in command.said()
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"


@pytest.mark.long
def test_a_head_that_dies_ends_a_training_which_goes_on_with_another(shapes, tmp_path, cluster):
    nodes, address = cluster(1, 1)
    with Command(tmp_path, shapes, *STEPS, address) as command:
        command.wait_for_step()
        trainings = processes("odtrain.cluster.followed")
        nodes.kill_head()
        assert command.wait(60) == 1, command.said()
    *_, what, remedy = command.said().splitlines()
    assert what == f"{address}: its head does not answer any more."
    assert remedy == (
        "  The last checkpoint is kept. Start Ray again and give the same command with train.resume=auto."
    )
    assert psutil.wait_procs(trainings, timeout=60)[1] == []
    nodes.end()
    _, address = cluster(1, 1)
    with Command(tmp_path, shapes, *STEPS, address, "train.resume=auto") as command:
        assert command.wait(400) == 0, command.said()
    assert "Going on after step" in command.said()
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"


@pytest.mark.long
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "cluster.workers=99",
            "cluster.workers=99: each takes 1 core, and this machine has room for ",
        ),
        (
            "train.batch_size=5",
            "train.batch_size=5: cannot be shared out evenly among 2 workers.",
        ),
        ("data.images=nowhere", "nowhere: is not a folder, taken from "),
    ],
)
def test_what_cannot_be_is_told_before_a_run_begins(shapes, tmp_path, setting, message):
    with Command(tmp_path, shapes, setting) as command:
        assert command.wait(120) == 1, command.said()
    assert message in command.said()
    assert not (tmp_path / "mlflow.db").exists()
    assert command.left() == []
