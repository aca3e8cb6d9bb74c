"""What networks see in pictures that they did not learn from: each part of the data by one trained on the rest.

The parts are those of `data.folds`, drawn from all labelled pictures, scenes whole, whatever split is given
otherwise: a label of a test picture may be as wrong as another.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from odtrain.config.schema import Config, replaced
from odtrain.config.tiles import judging_tiles
from odtrain.dataset.check import Checked
from odtrain.dataset.prepare import prepare
from odtrain.dataset.splits import SPLITS, fold
from odtrain.errors import DataError
from odtrain.evaluation.saved_detections import Kept, read_kept, write_kept
from odtrain.io.atomic import write_text
from odtrain.jobs.below import train_below
from odtrain.jobs.context import RunContext
from odtrain.jobs.kept_test import as_lists
from odtrain.labels.annotations import LabelledImage
from odtrain.labels.label_map import label_map_text
from odtrain.media.images import read_turned
from odtrain.models.ssd import SSD
from odtrain.structures import Detect, Detections
from odtrain.system.progress import Bar
from odtrain.tracking.runs import config_digest
from odtrain.tracking.tracker import Tracker
from odtrain_runtime.tiles import tiled

logger = logging.getLogger(__name__)

FOLDS = 5
"""Where `data.folds` does not say: a fifth is held out, the rest learned from."""
FOLDER = "folds"
"""In the folder of the runs: what each fold's network saw, by what it was trained on."""


def detect_held_out(
    config: Config, overrides: Sequence[str], checked: Checked, tracker: Tracker
) -> dict[Path, Detections]:
    """Detections in every labelled picture, each by a network that did not learn it.

    What is finished is kept, and what was stopped goes on: the same settings ask for it again.

    Args:
        config: of the trainings; `data.folds` of them, or `FOLDS`.
        overrides: that it was composed of.
        checked: the data, without errors.
        tracker: the run that the trainings are shown below.

    Raises:
        DataError: there are fewer pictures than folds.
        OdtrainError: as of any training.
    """
    number = config.data.folds or FOLDS
    images = sorted(checked.images, key=lambda image: image.image.name)
    if len(images) < number:
        problem = f"has {len(images)} labelled pictures, fewer than {number} folds."
        raise DataError(config.data.images, problem, "Label more, or give data.folds=2.")
    found: dict[Path, Detections] = {}
    for part in range(number):
        held_out = set(
            fold(images, number, part, f"folds {config.data.seed}", checked.scenes.whole)
        )
        own = _config_of(config, checked, images, held_out, part)
        shown = [image for image in images if image.image in held_out]
        logger.info(f"Fold {part + 1} of {number}: {len(shown)} pictures are held out.")
        name = f"{config.data.name} fold {part + 1} of {number}"
        kept = _kept_or_trained(own, overrides, tracker, name, shown)
        found |= dict(zip((image.image for image in shown), kept, strict=True))
    return found


def look_at(images: Sequence[LabelledImage], detect: Detect) -> list[Detections]:
    """What is found in each picture, turned as its labels are."""
    return [detect(read_turned(one.image, one.orientation)) for one in Bar(images, doing="look")]


def _config_of(
    config: Config,
    checked: Checked,
    images: Sequence[LabelledImage],
    held_out: set[Path],
    part: int,
) -> Config:
    """Trains on what is not held out, to the last step: there is no split to choose weights by."""
    split = {name: list[LabelledImage]() for name in SPLITS}
    for image in images:
        split["test" if image.image in held_out else "train"].append(image)
    place = Path(config.outputs) / FOLDER
    lists = as_lists(split, checked, place)
    folder = Path(lists["data.test_list"]).parent
    names = folder / "label_map.pbtxt"
    if not names.exists():  # a class may be in the part alone
        write_text(names, label_map_text(checked.class_names))
    return replaced(
        config,
        {
            **lists,
            "data.validation_list": None,
            "data.validation_fraction": 0.0,
            "data.folds": 0,
            "data.fold": 0,
            "data.label_map": str(names),
            "data.prepared": f"{config.data.prepared}-fold-{part + 1}",
        },
    )


def _kept_or_trained(
    config: Config,
    overrides: Sequence[str],
    tracker: Tracker,
    name: str,
    images: Sequence[LabelledImage],
) -> list[Detections]:
    """What was kept of these trainings if data and settings are the same, else what one finds now."""
    data, file = prepare(config.data).digest, _kept_in(config)
    pictures = [str(image.image) for image in images]

    def ask(context: RunContext, detector: SSD) -> list[Detections]:
        return look_at(images, tiled(detector.as_detect(), judging_tiles(config)))

    if file.is_file():
        kept = read_kept(file)
        if kept.split == data and kept.facts["pictures"] == pictures:
            return kept.detections
    found = train_below(config, overrides, tracker.name, name, ask)
    write_kept(file, Kept(data, found, (), {"pictures": pictures}))
    return found


def _kept_in(config: Config) -> Path:
    return Path(config.outputs) / FOLDER / f"{config_digest(config)}.npz"
