"""One training by several workers: what they tell each other before the first step, and what the others do.

The chief's way is `odtrain.jobs.train`. The others have no run: they are told its configuration, compute their
share of every batch and every validation, and end when the training does.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from odtrain import __version__
from odtrain.config.compose import as_dict, as_yaml, flattened, from_yaml
from odtrain.config.schema import Config, replaced
from odtrain.config.tiles import judging_tiles
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import Dataset
from odtrain.errors import OdtrainError
from odtrain.export.writers import as_exported
from odtrain.jobs.context import Split
from odtrain.jobs.fitting import (
    STOPPED_BY_SIGNAL,
    batches_of,
    detector_to_train,
    names_of_step,
    quick_scores,
    stop_on_signals,
    validated_every,
)
from odtrain.secrets import without_secrets
from odtrain.tracking.runs import NOT_OF_THE_RESULT, may_differ
from odtrain.tracking.system_metrics import EVERY_SECONDS, MachineMetrics
from odtrain.training.loop import Fit, Listener
from odtrain.training.team import DisagreementError, Team

logger = logging.getLogger(__name__)

OF_THE_MACHINE = (
    "data.images",
    "data.annotations",
    "data.prepared",
    "outputs",
    "tracking",
    "train.cache_mb",
    "zoo",
)
"""Keys that each worker has of its own: where things lie. The data's digest says whether they are the same."""
SHOWN_DIFFERENCES = 3
WORKER_FOLDER = "worker-{rank}"
"""In the folder of a run: what a worker that is not the chief leaves there."""


# ---- before the first step


def agree(team: Team, asked: Config, settled: Config, dataset: Dataset) -> None:
    """Have the other workers compare what they are to train with.

    Args:
        team: whose chief this is.
        asked: the configuration as it was composed, which the others were given too.
        settled: what has become of it, which they are to train with.
        dataset: prepared, of `settled`.

    Raises:
        DisagreementError: a worker has another version, configuration or other data, or cannot prepare them.
    """
    if team.workers == 1:
        return
    word = {"version": __version__, "asked": _comparable(asked), "digest": dataset.digest}
    team.hear({**word, "config": as_yaml(settled)})
    _raise_problems(team, "")


def _raise_problems(team: Team, mine: str) -> None:
    problems = team.said(mine)
    first = next((rank for rank, problem in enumerate(problems) if problem), None)
    if first is not None:
        team.leave()
        where = f"worker {first} of {team.workers}"
        remedy = "Start all workers with the same command, version and data."
        raise DisagreementError(where, problems[first], remedy)


def _comparable(config: Config) -> dict[str, Any]:
    values = without_secrets(flattened(as_dict(config)))
    apart = (*OF_THE_MACHINE, *NOT_OF_THE_RESULT)
    return {key: value for key, value in values.items() if not may_differ(key, apart)}


def _differences(mine: Mapping[str, Any], chiefs: Mapping[str, Any]) -> str:
    keys = [key for key in sorted({*mine, *chiefs}) if mine.get(key) != chiefs.get(key)]
    shown = [
        f"{key}={mine.get(key)}, worker 0 {chiefs.get(key)}" for key in keys[:SHOWN_DIFFERENCES]
    ]
    more = len(keys) - len(shown)
    return f"has {'; '.join(shown)}{f' and {more} more' if more else ''}." if keys else ""


# ---- the others


def follow(config: Config, team: Team) -> str:
    """Train beside the chief, until the training ends; what came of it, in words.

    Raises:
        OdtrainError: the chief or this worker cannot train, or another was lost.
        KeyboardInterrupt, Terminated: a signal to one of the workers ended the training.
    """
    with team.together():
        settled, dataset = _settled(config, team.hear(), team)
        run = team.hear()
        team.hear()  # the chief has recorded what it begins with
        logger.info(f"Training as {team.name}, in run {run['name']} of worker 0.")
        with tempfile.TemporaryDirectory(prefix="odtrain-") as scratch:
            return _fit(settled, dataset, team, Path(scratch), run)


def _settled(config: Config, word: Mapping[str, Any], team: Team) -> tuple[Config, Dataset]:
    """What the chief has decided, with this machine's own data."""
    dataset, problem = None, ""
    own = {key: attrgetter(key)(config) for key in OF_THE_MACHINE}
    settled = replaced(from_yaml(word["config"]), own)
    try:
        if word["version"] != __version__:
            problem = f"has odtrain {__version__}, worker 0 {word['version']}."
        elif not (problem := _differences(_comparable(config), word["asked"])):
            dataset = prepare(settled.data)
            if dataset.digest != word["digest"]:
                problem = (
                    f"has other data in {settled.data.images}: their digest is {dataset.digest[:8]}, that of "
                    f"worker 0 {word['digest'][:8]}."
                )
    except OdtrainError as error:
        problem = str(error)
    _raise_problems(team, problem)
    assert dataset is not None
    return settled, dataset


def _fit(
    config: Config, dataset: Dataset, team: Team, scratch: Path, run: Mapping[str, str]
) -> str:
    detector = detector_to_train(config, dataset, team)
    team.hear()  # the chief has its weights
    validation, tiles = Split.read(dataset, "validation"), judging_tiles(config)
    fit = Fit(detector, config.train, scratch, team)
    if not fit.resume():
        fit.as_detect()  # as the chief does, who shows what the first weights find
    folder = Path(config.outputs, run["folder"], WORKER_FOLDER.format(rank=team.rank))
    with stop_on_signals(fit):
        fitted = fit.run(
            lambda first_step: batches_of(config, dataset, detector, first_step, folder, team),
            lambda step: names_of_step(config, dataset, step),
            (lambda: quick_scores(fit, validation, tiles)[1]) if validation.truths else None,
            validated_every(config),
            Listener(_nothing, _nothing, _nothing, _machine(config)),
        )
    if fitted.stopped in STOPPED_BY_SIGNAL:
        team.leave()
        logger.info(f"Stopped after step {fitted.step}. Go on: the same command for every worker.")
        raise STOPPED_BY_SIGNAL[fitted.stopped]
    fit.load_best()
    as_exported(detector)
    team.leave()
    return f"{team.name} has done its part of run {run['name']}: {fitted.step} steps. Worker 0 goes on alone."


def _nothing(*_: object) -> None:
    """The chief logs."""


def _machine(config: Config) -> Callable[[], Mapping[str, float]]:
    """How busy this machine is, as often as runs log it; nothing in between."""
    if not config.tracking.system_metrics:
        return dict
    metrics, last = MachineMetrics(_nothing, 0, EVERY_SECONDS), 0.0

    def read() -> Mapping[str, float]:
        nonlocal last
        now = time.monotonic()
        if now - last < EVERY_SECONDS:
            return {}
        last = now
        return metrics.read()

    return read
