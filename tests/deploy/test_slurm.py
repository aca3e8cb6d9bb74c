"""`srun odtrain train` and the batch script that is shipped, on a real Slurm."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run
from support.commands import TINY_RUN
from support.slurm import WHERE, Slurm

from odtrain.tracking.store import open_client

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy/slurm/train.sbatch"
SIZE = ("--nodes=1", "--ntasks=2", "--ntasks-per-node=2")
"""In place of what the script asks for: the one node that is there."""
AS_TINY = (*TINY_RUN, "export.formats=[tflite_fp32]", "train.batch_norm=frozen", "evaluate.every=0")
LONG = 4000
"""Steps, which take longer than a test waits for a checkpoint."""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with tempfile.TemporaryDirectory(prefix="odtrain-slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        cluster = Slurm(Path(folder))
        # `odtrain`, as it is installed on the nodes
        program = Path(folder) / "odtrain"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m odtrain "$@"\n')
        program.chmod(0o755)
        cluster.environment["PATH"] = f"{folder}:{WHERE}"
        try:
            yield cluster
        finally:
            cluster.end()


def test_srun_trains_one_model_with_all_its_tasks(slurm, shapes, tmp_path):
    command = ["srun", "--ntasks=2", "odtrain", "train", f"data.images={shapes}", *AS_TINY]
    done = slurm.ask(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Waiting for 2 workers, as srun says." in done.stderr
    assert "Registered models:/shapes/1 is @champion." in done.stdout
    run = only_run(tmp_path)
    assert run.data.metrics["train/images_per_second"] > 0
    assert list((tmp_path / "outputs").rglob("worker-1/batches.csv"))


def test_the_batch_script_is_stopped_behind_a_checkpoint_and_goes_on(slurm, shapes, tmp_path):
    words = [f"data.images={shapes}", *AS_TINY, f"train.steps={LONG}", "train.checkpoint_every=20"]
    job = slurm.run("sbatch", "--parsable", *SIZE, SCRIPT, *words, cwd=tmp_path).stdout.strip()
    log = tmp_path / f"odtrain-{job}.log"
    wait_until(lambda: re.search("train: [1-9][0-9]* of", log.read_text()), log)
    slurm.run("scancel", "--signal=TERM", job)
    wait_until(lambda: slurm.state(job) not in ("RUNNING", "COMPLETING"), log)
    assert "Stopped after step" in log.read_text()
    shorter = [*words, f"train.max_minutes={20 / 60}"]
    job = slurm.run("sbatch", "--parsable", "--wait", *SIZE, SCRIPT, *shorter, cwd=tmp_path)
    said = (tmp_path / f"odtrain-{job.stdout.strip()}.log").read_text()
    assert "Going on after step" in said, said
    assert only_run(tmp_path).info.run_id in log.read_text()


def only_run(folder: Path) -> Run:
    """Of the store in a folder; it has ended well."""
    (run,) = open_client(f"sqlite:///{folder}/mlflow.db").search_runs(["0"])
    assert run.info.status == "FINISHED"
    return run


def wait_until(done, log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not (log.exists() and done()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
