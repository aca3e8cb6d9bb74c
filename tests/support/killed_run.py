"""`python -m odtrain` that ends itself at a moment which the first argument names.

    batch:K        SIGKILL while the K-th batch of this process is read, in the middle of a step
    evaluation:K   SIGKILL in the K-th validation of this process, when its pictures are detected
    checkpoint:N   SIGKILL when the parts of the checkpoint of step N are on disk and not yet joined
    stage:M.NAME   SIGKILL before the function NAME of odtrain.jobs.M is called
    client:NAME    SIGKILL before the method NAME of MLflow's client is called

What a resumed training restored is written again into the folder ODTRAIN_RESTORED, beside the
checkpoint it was read from.
"""

from __future__ import annotations

import importlib
import itertools
import os
import runpy
import shutil
import signal
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # as odtrain's own command line does

from mlflow import MlflowClient
from tensorflow.python.checkpoint import functional_saver

from odtrain.jobs import fitting
from odtrain.system import progress
from odtrain.training import input_pipeline as inputs
from odtrain.training import loop as train


def before(function: Callable[..., Any], act: Callable[..., None]) -> Callable[..., Any]:
    """`function`, with `act` called on its arguments first."""

    def both(*arguments: Any, **options: Any) -> Any:
        act(*arguments)
        return function(*arguments, **options)

    return both


def killed(at: int) -> Callable[..., None]:
    """Kills this process when it is called for the `at`-th time."""
    calls = itertools.count(1)

    def act(*arguments: Any) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def in_batch(at: str) -> None:
    # The hash of a picture is taken in four parts, two pictures are a batch, on the thread that reads ahead.
    # (With train.multi_scale in five: up to the eighth batch this ends that one, or the one before it.)
    crc32 = before(zlib.crc32, killed(8 * int(at) - 2))
    inputs.zlib = types.SimpleNamespace(crc32=crc32)  # type: ignore[assignment]


def in_evaluation(at: str) -> None:
    fitting.quick_map = before(fitting.quick_map, killed(int(at)))


def in_checkpoint(step: str) -> None:
    def act(parts: Any, target: Any) -> None:
        if target.numpy().endswith(f"last/ckpt-{step}".encode()):
            os.kill(os.getpid(), signal.SIGKILL)

    saver = functional_saver.gen_io_ops
    saver.merge_v2_checkpoints = before(saver.merge_v2_checkpoints, act)


def before_stage(name: str) -> None:
    module, _, function = name.partition(".")
    of = importlib.import_module(f"odtrain.jobs.{module}")
    setattr(of, function, before(getattr(of, function), killed(1)))


def before_call(name: str) -> None:
    setattr(MlflowClient, name, before(getattr(MlflowClient, name), killed(1)))


def keep_what_is_restored(folder: Path) -> None:
    resume = train.Fit.resume

    def resume_and_keep(fit: train.Fit) -> int:
        step = resume(fit)
        if step:
            fit._last.checkpoint.write(str(folder / "restored"))
            shutil.copytree(fit._last.directory, folder / "last")
        return step

    train.Fit.resume = resume_and_keep  # type: ignore[method-assign]


MOMENTS: dict[str, Callable[[str], None]] = {
    "batch": in_batch,
    "evaluation": in_evaluation,
    "checkpoint": in_checkpoint,
    "stage": before_stage,
    "client": before_call,
}

if __name__ == "__main__":
    moment, _, at = sys.argv.pop(1).partition(":")
    MOMENTS[moment](at)
    progress.is_drawn = lambda: True  # so that the last step before the end is seen
    if "ODTRAIN_RESTORED" in os.environ:
        keep_what_is_restored(Path(os.environ["ODTRAIN_RESTORED"]))
    runpy.run_module("odtrain", run_name="__main__", alter_sys=True)
