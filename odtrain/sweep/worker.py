"""One worker of a sweep: takes a trial, has it trained, tells what came of it, until none is left.

The driver has one in a thread for each training at a time. A training is a process of its own,
`python -m odtrain.sweep.trial_process`, of this machine or of another one.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from odtrain.config.schema import SweepConfig
from odtrain.errors import TrainingError
from odtrain.io.locks import alone
from odtrain.sweep import queue as sweep_trials
from odtrain.sweep import results as sweep_results
from odtrain.sweep import space as sweep_space
from odtrain.sweep import study as sweep_study
from odtrain.sweep.pruning import Rule
from odtrain.sweep.queue import timed_on
from odtrain.sweep.study import FORMAT, patiently
from odtrain.sweep.trial_process import Request, TrialOutcome, read_result, write_request

logger = logging.getLogger(__name__)

MOST_FAILURES = 4
"""Trainings that fail one after the other, two points twice, before a worker gives up."""
SECONDS_BETWEEN_LOOKS = 1.0
"""At what the others have done, while there is nothing left to begin."""
ENDING_SECONDS = 10
"""How long a training may take to end when the sweep does; its run is marked KILLED meanwhile."""
LAST_BYTES = 4000
"""Of what a process said, that are looked at for its last line."""


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    Attributes:
        settings: of the sweep.
        fixed: overrides of every training.
        parent: id of the sweep's run.
        uri: of the MLflow store; trainings are told it where no parameter of theirs shows it.
        machine: folder of this machine's locks.
        begun_with: what makes the numbers of the study comparable.
        config_dir: folder of the user's own configs.
        program: that trains: given a request's file and a file for the result.
        threads: of a training; None for all.
        at_once: trainings that this driver has done side by side.
        deadline: when the last training may begin, in seconds since 1970; None for no limit.
        worker: number of this one.
        made: whether this machine began the study.
        timed_on: machine that times the files; empty where that is another one each time.
    """

    settings: SweepConfig
    fixed: list[str]
    parent: str
    uri: str
    machine: str
    begun_with: dict[str, Any] = field(default_factory=dict)
    config_dir: str | None = None
    program: list[str] = field(
        default_factory=lambda: [sys.executable, "-m", "odtrain.sweep.trial_process"]
    )
    threads: int | None = None
    at_once: int = 1
    deadline: float | None = None
    worker: int = 0
    made: bool = True
    timed_on: str = field(default_factory=socket.gethostname)


Train = Callable[[Job, Request], TrialOutcome]


class StoppedError(Exception):
    """The driver ends, and its trainings with it."""


def work(
    job: Job,
    study: optuna.Study,
    train: Train,
    waits: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Train until `sweep.n_trials` trainings have ended or time is over.

    Args:
        job: what is to be done.
        study: its study, opened by this process.
        train: does one training.
        waits: for trainings of others, to try them again if they are lost.
        stopped: whether to begin no further one.

    Raises:
        TrainingError: one training after the other failed.
        TrackingError: the study's database stayed away.
    """
    settings, failures = job.settings, 0
    dimensions = sweep_space.read_space(settings.space)
    host = "" if job.made else socket.gethostname()
    patiently(lambda: sweep_study.with_sampler(study, settings, job.worker, host))
    watch = sweep_trials.Watch(settings.grace)
    while not stopped() and not (job.deadline and time.time() > job.deadline):
        with alone(Path(job.machine) / "trials.lock"):
            patiently(lambda: sweep_trials.reclaim(study, settings, watch))
        complete, begun = patiently(lambda: _counts(study))
        if complete >= settings.n_trials or (begun >= settings.n_trials and not waits):
            return
        if begun >= settings.n_trials:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        result = _one_training(job, study, dimensions, train)
        if result is None:
            continue
        failures = failures + 1 if result.state == "failed" else 0
        if failures == MOST_FAILURES:
            raise TrainingError(
                f"sweep {settings.name}",
                f"{failures} trainings failed one after the other, the last: {result.reason}",
                "Put that right and give the command again: what is finished is kept.",
            )


def _counts(study: optuna.Study) -> tuple[int, int]:
    """Trainings that have ended with a result, and those begun as well."""
    complete = sweep_trials.count(study, TrialState.COMPLETE)
    return complete, complete + sweep_trials.count(study, TrialState.RUNNING)


def _one_training(
    job: Job, study: optuna.Study, dimensions: Sequence[sweep_space.Dimension], train: Train
) -> TrialOutcome | None:
    """What came of the next trial; None if there was none left, or another process has it now."""
    trial = sweep_trials.claim(study, job.settings.n_trials)
    if trial is None:
        return None
    with sweep_trials.alive(trial, job.settings.grace):
        point = patiently(lambda: sweep_space.draw(dimensions, trial))
        patiently(lambda: trial.suggest_categorical(FORMAT, list(job.settings.formats)))
        patiently(lambda: trial.set_user_attr("point", point))
        twin = patiently(lambda: _twin(study, point))
        if twin is not None:
            result = TrialOutcome(**{**twin.user_attrs["result"], "seconds": 0.0})
        else:
            result = train(job, _request(job, study, point))
    told = sweep_trials.tell(study, trial, job.settings, result)
    return result if told or result.state == "failed" else None


def _twin(study: optuna.Study, point: Mapping[str, Any]) -> FrozenTrial | None:
    """A finished trial of the very same training."""
    for trial in sweep_trials.asked(study):
        if trial.state == TrialState.COMPLETE and trial.user_attrs.get("point") == point:
            return trial
    return None


def _request(job: Job, study: optuna.Study, point: Mapping[str, Any]) -> Request:
    settings = job.settings
    finished = patiently(lambda: sweep_results.to_beat(study)) if settings.stop_hopeless else []
    return Request(
        overrides=[*job.fixed, *sweep_space.as_overrides(point)],
        parent=job.parent,
        formats=list(settings.formats),
        max_latency_ms=settings.max_latency_ms,
        max_size_mb=settings.max_size_mb,
        finished=finished,
        rule=Rule(settings.gain, settings.margin, settings.latency_noise, settings.judged_from),
        machine=job.machine,
        threads=job.threads,
        known=patiently(lambda: _known_networks(study, job.timed_on)),
        config_dir=job.config_dir,
    )


def _known_networks(study: optuna.Study, host: str) -> dict[str, dict[str, dict[str, float]]]:
    """Networks that `host` has timed untrained, by digest; later trainings need not again."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for trial in sweep_trials.asked(study):
        result = trial.user_attrs.get("result", {})
        if result.get("network") and timed_on(trial) == host:
            found.setdefault(result["network"], result["untrained"])
    return found


def train_in_process(
    job: Job, request: Request, heard: Callable[[str], None] = lambda line: None
) -> TrialOutcome:
    """Have a training done by `job.program`, in a process of its own; `heard` is told its last line."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, answer, said = (Path(scratch) / name for name in ("request", "result", "stderr"))
        write_request(request, asked)
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_RUN_ID"}
        environment["MLFLOW_TRACKING_URI"] = job.uri
        if job.threads:
            environment["OMP_NUM_THREADS"] = str(job.threads)
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [*job.program, str(asked), str(answer)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
            )
            status = _awaited(process, lambda: heard(last_line(said)))
        if answer.is_file():
            return read_result(answer)
        last = last_line(said)
    heard(last)  # ^C reaches the training too, which may end first: then it did not fail
    return TrialOutcome("failed", f"its process ended with status {status}: {last}"[:500])


def _awaited(process: subprocess.Popen[bytes], look: Callable[[], None]) -> int:
    """The exit status; `look` is called while the process lasts, which does not outlive an interruption."""
    try:
        while True:
            try:
                return process.wait(SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                look()
    except BaseException:
        process.terminate()
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def last_line(file: Path) -> str:
    """Of what a process has said so far; empty where it has said nothing."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - LAST_BYTES))
        said = stream.read().decode("utf-8", "replace").strip().splitlines()
    return said[-1].strip() if said else ""
