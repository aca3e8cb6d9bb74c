"""The run of a study in MLflow: one driver shows it, and is known by its signs of life."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from odtrain.config.compose import compose_config
from odtrain.config.schema import Config
from odtrain.errors import TrackingError
from odtrain.jobs.context import say_run
from odtrain.sweep import queue as sweep_trials
from odtrain.sweep.study import AWAY, FORMAT
from odtrain.sweep.worker import Job
from odtrain.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

LONGEST_START = 120.0
"""Seconds that one who joins waits for the driver to begin the run."""


@dataclass(frozen=True)
class Sweep:
    """What one call of the driver works with.

    Attributes:
        config: of the sweep.
        study: Optuna's.
        job: for the workers.
        tracker: of the sweep's run; None where another driver shows it.
    """

    config: Config
    study: optuna.Study
    job: Job
    tracker: Tracker | None


def begun(
    config: Config, overrides: Sequence[str], study: optuna.Study, job: Job, stack: ExitStack
) -> Sweep:
    """The study's run, begun or gone on with; not touched while another driver shows it."""
    if not job.made and other_driver(study, job):
        parent, experiment = _awaited_run(study, job)
        fixed = [*job.fixed, f"tracking.experiment={experiment}"]
        logger.info("Another driver shows this study; this one joins its trainings.")
        return Sweep(config, study, replace(job, parent=parent, fixed=fixed), None)
    stack.enter_context(showing(study, config.sweep.grace))
    tracker = _tracker(config, study, job)
    stack.enter_context(tracker)
    _enqueue_baselines(study, config)
    study.set_user_attr("experiment", tracker.experiment)
    study.set_user_attr("run_id", tracker.name)
    say_run(tracker)
    if not tracker.resumed:
        tracker.log_config(config, overrides)
        tracker.log_text(json.dumps(dict(config.sweep.space), indent=2), "space.json")
    fixed = [*job.fixed, f"tracking.experiment={tracker.experiment}"]
    job = replace(job, parent=tracker.name, fixed=fixed, uri=tracker.uri)
    return Sweep(config, study, job, tracker)


def _tracker(config: Config, study: optuna.Study, job: Job) -> Tracker:
    tracker = Tracker(config.tracking, Path(config.outputs))
    name = f"sweep {config.sweep.name} of {config.data.name}"
    if "model" not in config.sweep.space:  # all trainings have the one that the sweep gives them
        name = f"{name} {compose_config(job.fixed, job.config_dir).model.name}"
    return tracker.start("sweep", name, resume=study.user_attrs.get("run_id"))


@contextmanager
def showing(study: optuna.Study, grace: float) -> Iterator[None]:
    """Sign for the run of the study, and give signs of life while inside."""
    driver = sweep_trials.signature()
    study.set_user_attr("driver", driver)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(grace / sweep_trials.SIGNS):
            driver["sign"] += 1
            with suppress(*AWAY):
                study.set_user_attr("driver", dict(driver))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(*AWAY):
            study.set_user_attr("driver", None)


def other_driver(study: optuna.Study, job: Job) -> bool:
    """Whether a driver shows the study; one of another machine is known by its next sign of life."""
    first = study.user_attrs.get("driver")
    if first is None or sweep_trials.is_gone(first):
        return first is None and _just_made(study)
    if first["host"] == sweep_trials.signature()["host"]:
        return True
    until = time.monotonic() + 2 * job.settings.grace / sweep_trials.SIGNS
    while time.monotonic() < until:
        if study.user_attrs.get("driver") != first:
            return True
        time.sleep(0.2)
    return False


def _just_made(study: optuna.Study) -> bool:
    """Whether the one that made the study is about to sign for it."""
    if "run_id" in study.user_attrs:
        return False
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if study.user_attrs.get("driver") is not None:
            return True
        time.sleep(0.2)
    return False


def _awaited_run(study: optuna.Study, job: Job) -> tuple[str, str]:
    until = time.monotonic() + LONGEST_START
    while time.monotonic() < until:
        attributes = study.user_attrs
        if "run_id" in attributes and "experiment" in attributes:
            return attributes["run_id"], attributes["experiment"]
        time.sleep(0.5)
    raise TrackingError(
        f"sweep {job.settings.name}",
        f"another driver began the study and has had no run for {LONGEST_START:.0f} seconds.",
        "Look at what it says, and give the command again.",
    )


def taken_over(whole: Sweep, stack: ExitStack) -> Sweep:
    """The same, showing what the driver that is gone shows no more."""
    stack.enter_context(showing(whole.study, whole.config.sweep.grace))
    tracker = _tracker(whole.config, whole.study, whole.job)
    stack.enter_context(tracker)
    return replace(whole, tracker=tracker)


def _enqueue_baselines(study: optuna.Study, config: Config) -> None:
    """Once in the life of a study, and before anybody trains."""
    if "baselines" in study.user_attrs or study.get_trials(deepcopy=False):
        return
    for baseline in config.sweep.baselines:
        point = {**baseline, FORMAT: config.sweep.formats[0]}
        study.enqueue_trial(point, skip_if_exists=True)
    study.set_user_attr("baselines", len(config.sweep.baselines))
