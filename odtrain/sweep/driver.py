"""The driver of a sweep: the study's run in MLflow, the workers, and the front as it is after every training.

A study is kept in a database and goes on where it was left: `sweep.n_trials` counts the trainings of
all calls, on all machines. One driver shows what all of them do; the same command elsewhere finds it
alive and only trains.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import psutil
from optuna.trial import TrialState

from odtrain.config.compose import compose_config
from odtrain.config.schema import Config, replaced
from odtrain.dataset.prepare import prepare
from odtrain.errors import ConfigError, DataError, OdtrainError, TrainingError
from odtrain.jobs.kept_test import kept_split
from odtrain.jobs.picked import drop_exports
from odtrain.jobs.speed import decided
from odtrain.model_source import load_first_weights
from odtrain.models.build import build_detector
from odtrain.sweep import queue as sweep_trials
from odtrain.sweep import results as sweep_results
from odtrain.sweep import space as sweep_space
from odtrain.sweep import study as sweep_study
from odtrain.sweep.run import Sweep, begun, other_driver, taken_over
from odtrain.sweep.show import before_the_first, closing_words, show, tell_news
from odtrain.sweep.space import Dimension
from odtrain.sweep.study import METRICS, patiently
from odtrain.sweep.trial_process import TrialOutcome
from odtrain.sweep.worker import Job, StoppedError, train_in_process, work
from odtrain.system.progress import Bar, doing
from odtrain.tracking.store import repeated, tracking_uri
from odtrain.tracking.tracker import Terminated

logger = logging.getLogger(__name__)

OWN_KEYS = ("sweep=", "sweep.", "sweep/", "cluster=", "cluster.")
"""Beginnings of overrides that are not for the trainings."""
NEXT = ("data.name", "sweep.name", "sweep.storage", "registry.name", "tracking.uri", "outputs")
"""Settings that say which study is meant, and where its files are registered."""
NOT_COMPARED = ("tracking.", "outputs=", "data.", "registry.", sweep_study.PRECISION)
"""Beginnings of overrides that may differ between the machines of one study, or are compared by themselves."""
SECONDS_BETWEEN_LOOKS = 1.0
PARTING_SECONDS = 30.0
"""How long trainings may take to end when the sweep does."""
Trains = Callable[..., TrialOutcome]
"""Has a training done: of a job, a request, and `heard`, which is told its last line."""


def sweep(
    config: Config,
    overrides: Sequence[str],
    config_dir: str | None = None,
    program: Sequence[str] = (sys.executable, "-m", "odtrain.sweep.trial_process"),
) -> str:
    """Run trainings until `sweep.n_trials` are done, and log the front.

    Args:
        config: of the sweep.
        overrides: that made it.
        config_dir: folder of the user's own configs, for the trainings too.
        program: that does one training: given the file of a request, and a file for the result.

    Returns:
        The front and where to look next, as text.

    Raises:
        OdtrainError: the space, the data or the storage is at fault, and nothing was trained then; or
            one training after the other failed.
        KeyboardInterrupt: what is finished is kept; the same command goes on.
    """
    split = kept_split(config)
    config = replaced(config, split)
    kept = [f"{key}={file}" for key, file in split.items()]
    dimensions, fixed, corners = checked_space(config, [*overrides, *kept], config_dir)
    dataset = prepare(config.data)
    if not dataset.counts["validation"]["images"]:
        raise DataError(
            config.data.name,
            "has no validation pictures, and a sweep is judged on them.",
            "Give data.validation_fraction=0.1, or data.validation_list.",
        )
    begun_with = {
        "data": dataset.digest,
        "settings": [text for text in fixed if not text.startswith(NOT_COMPARED)],
    }
    job = Job(
        settings=config.sweep,
        fixed=fixed,
        parent="",
        uri=tracking_uri(config.tracking),
        machine=str(sweep_trials.machine_folder()),
        begun_with=begun_with,
        config_dir=config_dir,
        program=list(program),
        threads=_threads(config.sweep.workers),
        at_once=config.sweep.workers,
        deadline=_deadline(config.sweep.max_minutes),
    )
    asked = compose_config(fixed, config_dir).train.precision
    # All trainings have one, or their numbers would compare processors.
    ours = decided(corners) if asked == "auto" else asked
    with sweep_study.quiet(), ExitStack() as stack:
        train: Trains = train_in_process
        check = _nothing
        if config.cluster.engine:
            from odtrain.sweep.on_cluster import trains_there

            job, train, check = stack.enter_context(trains_there(config, job))
        study, made = sweep_study.open_study(config.sweep, dimensions, begun_with)
        precision = sweep_study.kept_precision(study, made, asked, ours)
        config = replaced(config, {"train.precision": precision})
        job = replace(job, made=made, fixed=[*fixed, f"{sweep_study.PRECISION}{precision}"])
        whole = begun(config, overrides, study, job, stack)
        try:
            _run(whole, train, check)
        except (KeyboardInterrupt, Terminated, TrainingError):
            show(whole)
            raise
        if whole.tracker is None and not other_driver(study, job):
            whole = taken_over(whole, stack)
        show(whole)
        _drop_unkept(whole)
        return closing_words(whole, repeated(overrides, NEXT))


@doing("Checking what the sweep may try")
def checked_space(
    config: Config, overrides: Sequence[str], config_dir: str | None = None
) -> tuple[list[Dimension], list[str], list[Config]]:
    """The dimensions of the space, what every training is given besides, and corners of the space.

    Raises:
        ConfigError: a metric, key, choice or range that does not exist.
        CheckpointError: weights that a model of the space is to begin with cannot be had, or are not
            that model's.
    """
    for metric, way in config.sweep.directions.items():
        if metric not in METRICS or way not in ("maximize", "minimize"):
            raise ConfigError(
                f"sweep.directions: {metric}: {way}",
                "no such metric or direction.",
                f"Metrics: {', '.join(METRICS)}; each maximize or minimize.",
            )
    own = [text for text in overrides if not text.lstrip("+~").startswith(OWN_KEYS)]
    fixed = [*config.sweep.overrides, *own]
    dimensions = sweep_space.read_space(config.sweep.space)
    sweep_space.check_baselines(dimensions, config.sweep.baselines)
    needed: dict[tuple[object, ...], Config] = {}
    corners = list(sweep_space.check_space(dimensions, fixed, config_dir))
    for composed in corners:
        model, train = composed.model, composed.train
        if train.checkpoint is not None:
            weights = (train.checkpoint, train.restore)
            needed[model.name, model.architecture, model.depth_multiplier, weights] = composed
    for composed in needed.values():
        load_first_weights(
            build_detector(composed.model, num_classes=1),
            ("any",),
            composed.train,
            composed.zoo.mirrors,
            composed.runs,
        )
    return dimensions, fixed, corners


def _threads(workers: int) -> int | None:
    """Of each worker's trainings: the machine's processors are divided among them."""
    if workers == 1:
        return None
    return max(1, len(psutil.Process().cpu_affinity() or [0]) // workers)


def _deadline(max_minutes: float | None) -> float | None:
    return time.time() + 60 * max_minutes if max_minutes else None


# ---- workers


def _nothing() -> None:
    """What there is to check of this machine between two looks."""


def _run(whole: Sweep, train: Trains, check: Callable[[], None]) -> None:
    settings, seen = whole.config.sweep, set[int]()
    total = settings.n_trials
    before = min(total, patiently(lambda: sweep_trials.count(whole.study, TrialState.COMPLETE)))
    with Bar[None](doing="sweep", unit="training", total=total, done=before) as bar:
        tell_news(whole, bar, seen, aloud=False)

        def told() -> None:
            check()
            tell_news(whole, bar, seen)

        began, rounds = time.monotonic(), settings.n_trials / whole.job.at_once

        def heard(line: str) -> None:
            if not bar.n:
                bar.note(before_the_first(line, time.monotonic() - began, rounds))

        _run_workers(whole, train, told, heard)
    deadline = whole.job.deadline
    if deadline and time.time() > deadline and settings.max_minutes:
        logger.info(f"sweep.max_minutes={settings.max_minutes:g} are over.")


def _run_workers(
    whole: Sweep, train: Trains, told: Callable[[], None], heard: Callable[[str], None]
) -> None:
    """Have so many workers at work, each in a thread, until none is left or this process is interrupted."""
    ended, failures = threading.Event(), list[BaseException]()
    lines: dict[int, str] = {}

    def one(number: int) -> None:
        def said(line: str) -> None:
            lines[number] = line
            if ended.is_set():
                raise StoppedError

        job = replace(whole.job, worker=number)
        try:
            # A study of its own: the sampler is seeded for each.
            dimensions = sweep_space.read_space(job.settings.space)
            study, _ = sweep_study.open_study(job.settings, dimensions, job.begun_with)
            work(job, study, partial(train, heard=said), stopped=ended.is_set)
        except StoppedError:
            pass
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=one, args=(number,), name=f"worker {number}", daemon=True)
        for number in range(whole.job.at_once)
    ]
    try:
        for thread in threads:
            thread.start()
        while alive := [thread for thread in threads if thread.is_alive()]:
            alive[0].join(SECONDS_BETWEEN_LOOKS)
            told()
            if lines:
                heard(lines[min(lines)])
    finally:
        ended.set()
        until = time.monotonic() + PARTING_SECONDS
        for (
            thread
        ) in threads:  # one that waits for the head of a cluster that is gone is left behind
            thread.join(max(0, until - time.monotonic()))
    bugs = [error for error in failures if not isinstance(error, OdtrainError)]
    if bugs or len(failures) == len(threads):
        raise [*bugs, *failures][0]


def _drop_unkept(whole: Sweep) -> None:
    """Drop what `sweep.keep` does not keep, once all trainings are done."""
    settings, study = whole.config.sweep, whole.study
    complete = patiently(lambda: sweep_trials.count(study, TrialState.COMPLETE))
    if settings.keep != "front" or whole.tracker is None or complete < settings.n_trials:
        return
    kept = {(point.run_id, point.format) for point in sweep_results.front(study)}
    dropped = [one for one in sweep_results.points(study) if (one.run_id, one.format) not in kept]
    files: dict[str, dict[str, str]] = {}
    for point in dropped:
        files.setdefault(point.run_id, {})[point.format] = point.file
    for run_id, own in files.items():
        drop_exports(whole.config.runs, run_id, own)
    if dropped:
        logger.info(
            f"sweep.keep=front: {len(dropped)} files that are not on the front were dropped."
        )
