"""Two workers train together by the command, each in a process of its own, told of each other by TF_CONFIG."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from support.commands import TINY_RUN, odtrain
from support.stores import free_ports

FEW_FILES = ("export.formats=[tflite_fp32]", "train.batch_size=4", "train.batch_norm=frozen")
ENDLESS = ("train.steps=100000", "evaluate.every=100000", "tracking.system_metrics=false")
WITHIN = 30
"""Seconds in which a worker ends after another was lost."""


class Workers:
    """Workers of one training, in a folder."""

    def __init__(self, folder, *commands):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(len(commands))]
        self.folder = folder
        self.logs = [folder / f"worker-{rank}.txt" for rank in range(len(commands))]
        inherited = {key: one for key, one in os.environ.items() if not key.startswith("MLFLOW_")}
        self.processes = []
        for rank, command in enumerate(commands):
            task = {"type": "worker", "index": rank}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            with self.logs[rank].open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "odtrain", "train", *command],
                    cwd=folder,
                    env=inherited | {"TF_CONFIG": config},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self, rank):
        return self.logs[rank].read_text(encoding="utf-8")

    def wait(self, seconds=300):
        return [process.wait(seconds) for process in self.processes]

    def wait_for_step(self):
        """Until the first steps are done."""
        end = time.monotonic() + 200
        while not re.search(r"^train: [1-9]", self.said(0), re.MULTILINE):
            assert time.monotonic() < end, self.said(0)
            assert all(process.poll() is None for process in self.processes), self.said(0)
            time.sleep(0.2)


def command(shapes, *more):
    return [*TINY_RUN, *FEW_FILES, f"data.images={shapes}", *more]


def batches(file):
    """(hash, source ids) of every step."""
    rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
    return {int(step): (int(crc, 16), ids.split()) for step, crc, ids in rows}


def runs(folder):
    return MlflowClient(f"sqlite:///{folder}/mlflow.db").search_runs(["0"])


def losses(folder):
    (run,) = runs(folder)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    return [each.value for each in sorted(history, key=lambda each: each.step)]


@pytest.mark.long
def test_two_workers_train_as_one_does(shapes, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    done = odtrain(["train", *command(shapes)], one)
    assert done.returncode == 0, done.stderr
    measured = "tracking.system_metrics=true"
    with Workers(two, command(shapes, measured), command(shapes, measured)) as workers:
        assert workers.wait() == [0, 0], workers.said(0) + workers.said(1)
    (run,) = runs(two)
    name = run.info.run_id
    assert (
        workers.said(1)
        .splitlines()[-1]
        .endswith(f"has done its part of run {name}: 14 steps. Worker 0 goes on alone.")
    )
    assert "Registered models:/shapes/1" in workers.said(0)
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5)
    metrics = run.data.metrics
    assert metrics["val/mAP"] == pytest.approx(runs(one)[0].data.metrics["val/mAP"], abs=1e-4)
    assert metrics["system/worker_1/cpu_utilization_percentage"] > 0
    (whole,) = one.glob("outputs/Default/*/batches.csv")
    whole, first, second = map(
        batches,
        (
            whole,
            two / f"outputs/Default/{name}/batches.csv",
            two / f"outputs/Default/{name}/worker-1/batches.csv",
        ),
    )
    for step in range(1, 15):
        assert whole[step][0] == (first[step][0] + second[step][0]) % 2**32
        assert whole[step][1] == first[step][1] + second[step][1]


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_stops_all_behind_a_checkpoint_and_one_alone_goes_on(
    shapes, tmp_path, rank
):
    steps = command(shapes, "train.steps=400", "evaluate.every=0", "evaluate.bootstrap=0")
    with Workers(tmp_path, steps, steps) as workers:
        workers.wait_for_step()
        workers.processes[rank].send_signal(signal.SIGTERM)
        assert workers.wait(60) == [143, 143], workers.said(0) + workers.said(1)
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"
    (stopped,) = {line for line in workers.said(0).splitlines() if line.startswith("Stopped")}
    assert stopped.split(".")[0] in workers.said(1)
    last = int(stopped.split()[3].rstrip("."))
    done = odtrain(["train", *steps, "train.resume=auto"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Going on after step {last} of 400." in done.stderr
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert len(losses(tmp_path)) == 400


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_who_loses_another_worker_ends_with_one_message(shapes, tmp_path, rank, number):
    with Workers(tmp_path, *2 * [command(shapes, *ENDLESS)]) as workers:
        workers.wait_for_step()
        workers.processes[rank].send_signal(number)
        assert workers.processes[1 - rank].wait(WITHIN) == 1
    *_, what, remedy = workers.said(1 - rank).splitlines()
    assert what == f"worker {1 - rank} of 2 ({socket.gethostname()}): lost another worker."
    assert remedy == (
        "  The last checkpoint is kept. Give every worker the same command with train.resume=auto: any number "
        "of workers goes on from it."
    )


@pytest.mark.slow
def test_workers_that_were_given_different_settings_say_which_before_a_run_begins(shapes, tmp_path):
    other = command(shapes, "train.seed=7", "train.log_every=2")
    with Workers(tmp_path, command(shapes), other) as workers:
        assert workers.wait(120) == [1, 1]
    for rank in (0, 1):
        *_, what, remedy = workers.said(rank).splitlines()
        assert what == (
            "worker 1 of 2: has train.log_every=2, worker 0 1; train.seed=7, worker 0 0."
        )
        assert remedy == "  Start all workers with the same command, version and data."
    assert not Path(tmp_path, "mlflow.db").exists()


@pytest.mark.long
def test_a_worker_without_the_data_ends_all_before_a_run_begins(shapes, tmp_path):
    nowhere = command("nowhere", "data.prepared=elsewhere")
    with Workers(tmp_path, command(shapes), nowhere) as workers:
        assert workers.wait(120) == [1, 1]
    for rank in (0, 1):
        problem = f"worker 1 of 2: nowhere: is not a folder, taken from {tmp_path}."
        assert problem in workers.said(rank)
    assert not Path(tmp_path, "mlflow.db").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("train.batch_size=2000", "is more than the 15 training pictures of shapes."),
        ("train.batch_size=5", "cannot be shared out evenly among 2 devices."),
    ],
)
def test_what_keeps_the_chief_from_beginning_ends_the_others_with_its_words(
    shapes, tmp_path, setting, why
):
    with Workers(tmp_path, *2 * [command(shapes, setting)]) as workers:
        assert workers.wait(120) == [1, 1]
    problem = f"{setting}: {why}"
    assert problem in workers.said(0)
    assert f"worker 0 ended before the first step: {problem}" in workers.said(1)
