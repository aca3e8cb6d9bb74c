"""Trainings below a run that answer a question about the data: neither exported nor registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from odtrain.config.schema import Config, replaced
from odtrain.jobs.context import RunContext
from odtrain.jobs.fitting import data_to_train_on, train_detector
from odtrain.jobs.resume import beginning, resumed
from odtrain.jobs.speed import with_precision
from odtrain.jobs.steps import record_inputs
from odtrain.models.ssd import SSD
from odtrain.tracking.runs import config_digest
from odtrain.tracking.tracker import Tracker

Answer = TypeVar("Answer")


def train_below(
    config: Config,
    overrides: Sequence[str],
    parent: str,
    name: str,
    ask: Callable[[RunContext, SSD], Answer],
) -> Answer:
    """Train, or go on with a training of this configuration that did not end, and ask the network.

    Args:
        config: of the training.
        overrides: that the user gave.
        parent: id of the run that it is shown below.
        name: of its run.
        ask: within the run, with the weights that were chosen.

    Raises:
        OdtrainError: something the user can put right; the run, if begun, is marked FAILED.
        KeyboardInterrupt, Terminated: a signal ended training behind a checkpoint.
    """
    config = replaced(config, {"train.resume": "auto"})
    with beginning(config):
        config, resume = resumed(config, overrides)
        dataset, findings = data_to_train_on(config)
        config = with_precision(config)
        tracker = Tracker(config.tracking, Path(config.outputs))
        digest = config_digest(config)
        tracker.start("train", name, parent=parent, resume=resume, digest=digest)
    with tracker:
        context = RunContext(tracker, config, dataset, overrides)
        record_inputs(context, findings)
        trained = train_detector(context)
        return ask(context.at(trained.fitted.step), trained.detector)
