"""What a study has come to: its files, its front, what to beat, and which choices mattered."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from odtrain.sweep import pareto as sweep_front
from odtrain.sweep.pareto import FrontPoint
from odtrain.sweep.pruning import Finished
from odtrain.sweep.queue import asked, ended_as, timed_on
from odtrain.sweep.study import FORMAT

COMPARED = {"mAP": "maximize", "latency_ms_p50": "minimize"}
"""The directions that the rule of early stopping knows."""
LEAST_FOR_IMPORTANCE = 4
"""Trainings that went to their end before anything is said about importance."""


def done(study: optuna.Study) -> list[FrozenTrial]:
    """Trials whose training went to its end."""
    return [trial for trial in asked(study) if ended_as(trial, "done")]


def points(study: optuna.Study) -> list[FrontPoint]:
    """Every file of every training that went to its end, once.

    They are read from the trial that asked for the training: a process that is killed before it has
    added the trials of the other files loses none.
    """
    return _points(done(study))


def _points(trials: Sequence[FrozenTrial]) -> list[FrontPoint]:
    found: dict[tuple[str, str], FrontPoint] = {}
    for trial in trials:
        result = trial.user_attrs["result"]
        params = {key: value for key, value in trial.params.items() if key != FORMAT}
        for name, values in result["files"].items():
            metrics = {key: value for key, value in values.items() if key not in ("file", "failed")}
            point = FrontPoint(
                trial.number,
                result["run_id"],
                name,
                params,
                metrics,
                values["file"],
                values["failed"],
                timed_on(trial),
            )
            found.setdefault((point.run_id, name), point)
    return list(found.values())


def front(study: optuna.Study) -> list[FrontPoint]:
    """The files that no other beats, in the directions of the study."""
    return sweep_front.front(points(study), study.user_attrs.get("directions", COMPARED))


def to_beat(study: optuna.Study) -> list[Finished]:
    """The files that a training has to beat; only where mAP and latency are what is compared."""
    if study.user_attrs.get("directions") != COMPARED:
        return []
    trials = done(study)
    curves = {
        trial.user_attrs["result"]["run_id"]: tuple(
            (share, score) for share, score in trial.user_attrs["result"]["curve"]
        )
        for trial in trials
    }
    return [
        Finished(curves[point.run_id], point.metrics["mAP"], point.metrics["latency_ms_p50"])
        for point in _points(trials)
        if point.failed is None
    ]


def without_files(study: optuna.Study) -> list[dict[str, str]]:
    """Trials that did not end with a file: number, state, reason and choices."""
    rows = []
    for trial in asked(study):
        state = trial.user_attrs.get("state", trial.state.name.lower())
        if state == "done" or trial.state == TrialState.WAITING:
            continue
        point = trial.user_attrs.get("point", trial.params)
        rows.append(
            {
                "trial": str(trial.number),
                "state": state,
                "reason": trial.user_attrs.get("reason", ""),
                "chosen": ", ".join(f"{key}={value}" for key, value in point.items()),
            }
        )
    return rows


def saved(study: optuna.Study) -> tuple[float, int]:
    """Trainings' worth of steps that early stopping saved, and the trainings it stopped."""
    stopped = [trial for trial in asked(study) if ended_as(trial, "stopped")]
    curves = [trial.user_attrs["result"]["curve"] for trial in stopped]
    return sum(1 - curve[-1][0] for curve in curves if curve), len(stopped)


def importances(study: optuna.Study) -> dict[str, dict[str, float]]:
    """Metric -> key -> share of the metric's variance that the key explains, by fANOVA.

    Files of all trainings that went to their end count, `export.format` being a choice as well. Keys
    that are only tried beside certain choices are left out, as fANOVA compares what all have.
    """
    trials = done(study)
    if len(trials) < LEAST_FOR_IMPORTANCE:
        return {}
    by_number = {trial.number: trial for trial in trials}
    directions = study.user_attrs.get("directions", COMPARED)
    found = {}
    for metric in directions:
        own = optuna.create_study()
        for point in _points(trials):
            asked_for = by_number[point.trial]
            own.add_trial(
                create_trial(
                    params={**asked_for.params, FORMAT: point.format},
                    distributions=asked_for.distributions,
                    value=point.metrics[metric],
                )
            )
        found[metric] = _importance(own)
    return {metric: values for metric, values in found.items() if values}


def _importance(study: optuna.Study) -> dict[str, float]:
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (RuntimeError, ValueError):  # every file has the same number: nothing explains it
        return {}
