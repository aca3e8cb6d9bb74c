"""What the stages of one job share: its run, its configuration, its data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from odtrain.config.schema import Config
from odtrain.dataset.read import Dataset, read_labelled, read_truths
from odtrain.structures import GroundTruth, LabelledSplit
from odtrain.tracking.store import is_outage, pages, ui_command
from odtrain.tracking.tracker import Tracker
from odtrain.tracking.views import Pages, share, view
from odtrain.training.input_pipeline import Pictures

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Split:
    """The pictures of a split, and what is in them."""

    dataset: Dataset
    name: str
    images: Pictures
    truths: list[GroundTruth]

    @classmethod
    def read(cls, dataset: Dataset, name: str) -> Split:
        """Open a split of a prepared dataset; the split may be empty."""
        return cls(dataset, name, Pictures(dataset.records(name)), read_truths(dataset, name))

    @cached_property
    def labelled(self) -> LabelledSplit:
        """The same labels with a key for each picture, by which other runs know it."""
        return read_labelled(self.dataset, self.name)


@dataclass(frozen=True, eq=False)
class RunContext:
    """One tracked job.

    Attributes:
        tracker: its run, begun.
        config: what the run is made with.
        dataset: its data, prepared.
        overrides: that the user gave when the run was begun.
        step: of training, under which metrics are logged.
    """

    tracker: Tracker
    config: Config
    dataset: Dataset
    overrides: Sequence[str] = ()
    step: int = 0

    def at(self, step: int) -> RunContext:
        """The same job at another step."""
        return replace(self, step=step)

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.tracker.folder / "checkpoints"


def pages_of(tracker: Tracker, below: bool = False) -> Pages | None:
    """MLflow's pages, that of the run among them; None while the server is away.

    Args:
        tracker: of the run. The pictures that it has shown stand above the charts.
        below: whether charts and table show the runs below it alone.
    """
    if not tracker.online or tracker.run_id is None:
        return None
    try:
        return _pages(tracker, below)
    except Exception as problem:
        if is_outage(tracker.uri, problem):
            return None
        raise


def _pages(tracker: Tracker, below: bool) -> Pages:
    client, run_id = tracker.client, str(tracker.run_id)
    found = client.get_experiment(client.get_run(run_id).info.experiment_id)
    wanted = view(below=run_id) if below else view(tracker.shown)
    return pages(tracker.uri, str(found.experiment_id), share(client, found, wanted))


def say_run(tracker: Tracker) -> None:
    """Say which run this is, and where it is to be seen while it lasts."""
    shown = pages_of(tracker)
    where = f": {shown.run(tracker.name)}" if shown else ", which MLflow gets when it is back"
    logger.info(f"Run {tracker.name}{where}")
    if shown and (command := ui_command(tracker.uri)):
        logger.info(f"  served by: {command}")
