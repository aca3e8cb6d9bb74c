"""Trainings below a run that answer a question about the data: neither exported nor registered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from odtrain.config.schema import Config, replaced
from odtrain.dataset.check import Checked
from odtrain.dataset.prepare import content_digest
from odtrain.errors import DataError
from odtrain.evaluation.saved_detections import Kept, read_kept, write_kept
from odtrain.io.atomic import write_text
from odtrain.jobs.context import RunContext, say_run
from odtrain.jobs.fitting import data_to_train_on, train_detector
from odtrain.jobs.kept_test import Split, as_lists
from odtrain.jobs.resume import beginning, resumed
from odtrain.jobs.speed import with_precision
from odtrain.jobs.steps import detect_of, record_inputs
from odtrain.labels.annotations import LabelledImage
from odtrain.labels.label_map import label_map_text
from odtrain.media.images import read_turned
from odtrain.structures import Detect, Detections
from odtrain.system.progress import Bar
from odtrain.tracking.runs import config_digest, find_resumable
from odtrain.tracking.tracker import Tracker

FOLDER = "below"
"""In the folder of the runs: splits as lists, and what each network saw, by what it was trained with."""


def look_at(images: Sequence[LabelledImage], detect: Detect) -> list[Detections]:
    """What is found in each picture, turned as its labels are."""
    return [detect(read_turned(one.image, one.orientation)) for one in Bar(images, doing="look")]


@contextmanager
def study(config: Config, stage: str, name: str) -> Iterator[Tracker]:
    """The run that trainings are shown below: that of the same study if it did not end, else a new one.

    Args:
        config: of the trainings, by which the study is known.
        stage: what is asked: the tag `odtrain.stage`.
        name: of a new run.

    Raises:
        TrackingError: the store refuses, or a process on this machine is at work on it.
    """
    outputs, digest = Path(config.outputs), config_digest(config)
    begun = find_resumable(config.tracking, outputs, [digest], stage)
    with Tracker(config.tracking, outputs).start(stage, name, resume=begun, digest=digest) as run:
        say_run(run)
        yield run


def with_split(config: Config, checked: Checked, split: Split, stage: str) -> Config:
    """The configuration of a training on a split of its own, with the class ids of all labels.

    It names the content of the data: a training that was begun with other labels is not gone on with. All
    trainings of a `stage` are prepared in one folder, one after the other.
    """
    content = content_digest(checked, config.data)[:16]
    lists = as_lists(split, checked, Path(config.outputs) / FOLDER / content)
    names = Path(lists["data.test_list"]).with_name("label_map.pbtxt")
    if not names.exists():  # a class may be in the test pictures alone
        write_text(names, label_map_text(checked.class_names))
    own = {
        "data.validation_list": None,
        "data.validation_fraction": 0.0,
        **lists,
        "data.folds": 0,
        "data.fold": 0,
        "data.label_map": str(names),
        "data.prepared": f"{config.data.prepared}-{stage}",
    }
    return replaced(config, own)


def detect_below(
    config: Config,
    overrides: Sequence[str],
    tracker: Tracker,
    name: str,
    images: Sequence[LabelledImage],
) -> list[Detections]:
    """What a network of this training finds: as it was kept, where data and settings are the same.

    A training that was stopped is gone on with.

    Args:
        config: of the training, as `with_split` gives it.
        overrides: that the user gave.
        tracker: the run that it is shown below.
        name: of its own run.
        images: to look at, those of its test split.

    Raises:
        OdtrainError: as of any training; its run, if begun, is marked FAILED.
        KeyboardInterrupt, Terminated: a signal ended training behind a checkpoint.
    """
    digest = config_digest(config)
    file = Path(config.outputs) / FOLDER / f"{digest}.npz"
    facts = {"pictures": [str(image.image) for image in images]}
    with suppress(DataError):  # that it is missing, or damaged
        kept = read_kept(file)
        if kept.facts == facts:
            return kept.detections
    found = _trained(replaced(config, {"train.resume": "auto"}), overrides, tracker, name, images)
    write_kept(file, Kept(digest, found, (), facts))
    return found


def _trained(
    config: Config,
    overrides: Sequence[str],
    parent: Tracker,
    name: str,
    images: Sequence[LabelledImage],
) -> list[Detections]:
    with beginning(config):
        config, resume = resumed(config, overrides)
        dataset, findings = data_to_train_on(config)
        config = with_precision(config)
        tracker = Tracker(config.tracking, Path(config.outputs))
        digest = config_digest(config)
        tracker.start("train", name, parent=parent.name, resume=resume, digest=digest)
    with tracker:
        context = RunContext(tracker, config, dataset, overrides)
        record_inputs(context, findings)
        return look_at(images, detect_of(train_detector(context).detector, config))
