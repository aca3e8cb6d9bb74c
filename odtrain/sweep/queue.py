"""Trials of a study that several processes and machines work on: taken, kept alive, told, tried again.

A trial that was asked for is a training. Its process signs for it and gives a sign of life every few
seconds; a training whose process is gone, or that gave no sign for `sweep.grace` seconds, failed and is
tried again. Everything here may be done twice, by two processes or because the database went away in
between, and still happens once.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from odtrain.config.schema import SweepConfig
from odtrain.io.archives import cache_folder
from odtrain.sweep.study import AWAY, FORMAT, METRICS, patiently
from odtrain.sweep.trial_process import TrialOutcome

ATTEMPTS = {"failed": 2, "lost": 6}
"""How often a training is begun that failed by itself, or whose process ended."""
SIGNS = 6
"""Signs of life within `sweep.grace`."""
UPDATED_BY_ANOTHER = (optuna.exceptions.UpdateFinishedTrialError, ValueError)
"""What Optuna raises when a finished trial is told."""


def signature() -> dict[str, Any]:
    """Which process this is, among all machines and for all time."""
    pid = os.getpid()
    created = round(psutil.Process(pid).create_time(), 1)
    return {"host": socket.gethostname(), "process": pid, "created": created, "sign": 0}


def machine_folder() -> Path:
    """Where the processes of this machine find each other's locks."""
    folder = cache_folder().parent / "turns" / socket.gethostname()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def is_gone(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has ended; of another one nobody knows."""
    if owner.get("host") != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(owner["process"]))
        same = abs(process.create_time() - owner["created"]) < 1
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError, ValueError, OverflowError):
        return True


def timed_on(trial: FrozenTrial) -> str:
    """The machine that timed the files of a training: its own, unless the training says otherwise."""
    host = trial.user_attrs.get("result", {}).get("host")
    return str(host or trial.user_attrs.get("owner", {}).get("host", ""))


class Watch:
    """Tells which owners are gone, by their signs of life; no clock but this machine's is read.

    Between two looks no more than a quarter of the grace counts as silence: while the database was
    away, nobody could give a sign.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._silent: dict[int, tuple[object, float]] = {}
        self._last_look = time.monotonic()

    def look(self, owners: Mapping[int, Mapping[str, Any] | None]) -> list[int]:
        """The keys of the owners that are gone; an owner of None has not signed yet."""
        now = time.monotonic()
        passed = min(now - self._last_look, self._grace / 4)
        self._last_look = now
        before, self._silent = self._silent, {}
        for key, owner in owners.items():
            sign, seconds = before.get(key, (owner, -passed))
            self._silent[key] = (owner, seconds + passed if sign == owner else 0.0)
        return [
            key
            for key, owner in owners.items()
            if (owner is not None and is_gone(owner)) or self._silent[key][1] > self._grace
        ]


@contextmanager
def alive(trial: Trial, grace: float) -> Iterator[None]:
    """Sign for a trial, and give signs of life while inside."""
    owner = signature()
    patiently(lambda: trial.set_user_attr("owner", owner))
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(grace / SIGNS):
            owner["sign"] += 1
            with suppress(*AWAY, *UPDATED_BY_ANOTHER):  # then this sign is left out
                trial.set_user_attr("owner", dict(owner))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def asked(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that stand for a training, in order: not its further files, not what nobody needed."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if "shares" not in trial.user_attrs and trial.user_attrs.get("state") != "surplus"
    ]


def ended_as(trial: FrozenTrial, state: str) -> bool:
    """Whether a training was told with that state."""
    return trial.state == TrialState.COMPLETE and trial.user_attrs.get("state") == state


def count(study: optuna.Study, *states: TrialState) -> int:
    """Trainings in one of these states."""
    return sum(trial.state in states for trial in asked(study))


def claim(study: optuna.Study, n_trials: int) -> Trial | None:
    """A trial to train, or None if others have taken all that are left.

    Two workers may both see that one is left and both ask for it: the trial with the higher number
    is given back.
    """
    trial = patiently(study.ask)
    everything = patiently(lambda: asked(study))
    begun = (TrialState.RUNNING, TrialState.COMPLETE)
    before = sum(one.state in begun and one.number < trial.number for one in everything)
    again = trial.user_attrs.get("retry_of")
    twice = again is not None and any(
        one.user_attrs.get("retry_of") == again and one.number < trial.number for one in everything
    )
    if before < n_trials and not twice:
        return trial
    give_up(study, trial, "surplus", "another process had taken the last one")
    return None


def give_up(study: optuna.Study, trial: Trial, state: str, reason: str) -> bool:
    """Tell that nothing came of a trial; False if it was told before."""

    def tell() -> bool:
        with suppress(*UPDATED_BY_ANOTHER):
            trial.set_user_attr("state", state)
            trial.set_user_attr("reason", reason)
            study.tell(trial, state=TrialState.FAIL)
            return True
        return False

    return patiently(tell)


def reclaim(study: optuna.Study, settings: SweepConfig, watch: Watch) -> None:
    """Put in order what killed processes left behind, and enqueue what is to be tried again.

    One process of a machine at a time.
    """
    running = {trial.number: trial for trial in asked(study) if trial.state == TrialState.RUNNING}
    owners = {number: trial.user_attrs.get("owner") for number, trial in running.items()}
    for number in watch.look(owners):
        lost = Trial(study, running[number]._trial_id)
        give_up(study, lost, "lost", "its process ended")
    trials = asked(study)
    by_number = {trial.number: trial for trial in trials}
    for trial in trials:
        if ended_as(trial, "done") and is_gone(trial.user_attrs.get("owner", {})):
            add_files(study, trial.number, settings)
    again = {trial.user_attrs.get("retry_of") for trial in trials}
    for trial in trials:
        if trial.state != TrialState.FAIL or trial.number in again:
            continue
        chosen = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        most = ATTEMPTS.get(str(trial.user_attrs.get("state")), 0)
        if chosen and _attempts(trial, by_number) < most:
            study.enqueue_trial(chosen, user_attrs={"retry_of": trial.number})


def _attempts(trial: FrozenTrial, by_number: Mapping[int, FrozenTrial]) -> int:
    """How often this training was begun so far."""
    attempts = 1
    while (before := by_number.get(trial.user_attrs.get("retry_of", -1))) is not None:
        attempts, trial = attempts + 1, before
    return attempts


def tell(
    study: optuna.Study,
    trial: Trial,
    settings: SweepConfig,
    result: TrialOutcome,
) -> bool:
    """Record what came of a training, and its further files; False if the trial is another's by now."""
    told = patiently(lambda: _tell_asked(study, trial, settings, result))
    if told and result.state == "done":
        patiently(lambda: add_files(study, trial.number, settings))
    return told


def _tell_asked(
    study: optuna.Study, trial: Trial, settings: SweepConfig, result: TrialOutcome
) -> bool:
    before = study.get_trials(deepcopy=False)[trial.number]
    if before.state.is_finished():  # by this process, just before the database went away
        return before.state == TrialState.COMPLETE
    if result.state == "failed":
        give_up(study, trial, "failed", result.reason)
        return False
    attributes = {"state": result.state, "result": vars(result)}
    if result.reason:
        attributes["reason"] = result.reason
    with suppress(*UPDATED_BY_ANOTHER):
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        trial.set_constraint("budget", _over(result))
        study.tell(trial, _values(settings, result, str(trial.params[FORMAT])))
        return True
    return False


def add_files(study: optuna.Study, number: int, settings: SweepConfig) -> None:
    """Add the other files of a finished training, each as a trial of its own, unless they are there."""
    trials = study.get_trials(deepcopy=False)
    told = trials[number]
    result = TrialOutcome(**told.user_attrs["result"])
    there = {
        trial.params[FORMAT] for trial in trials if trial.user_attrs.get("shares") == number
    } | {told.params[FORMAT]}
    for name in result.files:
        if name in there:
            continue
        study.add_trial(
            create_trial(
                params={**told.params, FORMAT: name},
                distributions={
                    **told.distributions,
                    FORMAT: CategoricalDistribution(list(settings.formats)),
                },
                values=_values(settings, result, name),
                user_attrs={
                    "shares": number,
                    "state": "done",
                    "metrics": _metrics(result, name),
                },
                constraints={"budget": _over(result)},
            )
        )


def _over(result: TrialOutcome) -> float:
    """Optuna's constraint: above 0 is infeasible."""
    return 1.0 if result.state == "infeasible" else -1.0


def _metrics(result: TrialOutcome, name: str) -> dict[str, Any]:
    """Of one file; of one that was not trained to its end, its untrained speed and the score so far."""
    if name in result.files:
        return result.files[name]
    return {**dict.fromkeys(METRICS, 0.0), **result.untrained[name], "mAP": result.score}


def _values(settings: SweepConfig, result: TrialOutcome, name: str) -> Sequence[float]:
    metrics = _metrics(result, name)
    return [float(metrics[key]) for key in settings.directions]
