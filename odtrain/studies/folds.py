"""What networks see in pictures that they did not learn from: each part of the data by one trained on the rest.

The parts are those of `data.folds`, drawn from all labelled pictures, scenes whole, whatever split is given
otherwise: a label of a test picture may be as wrong as another.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from odtrain.config.schema import Config
from odtrain.dataset.check import Checked
from odtrain.dataset.splits import fold
from odtrain.errors import DataError
from odtrain.structures import Detections
from odtrain.studies.below import detect_below, with_split
from odtrain.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

FOLDS = 5
"""Where `data.folds` does not say: a fifth is held out, the rest learned from."""


def detect_held_out(
    config: Config, overrides: Sequence[str], checked: Checked, tracker: Tracker
) -> dict[Path, Detections]:
    """Detections in every labelled picture, each by a network that did not learn it.

    They train to the last step: there is no split to choose weights by. What is finished is kept, and what
    was stopped goes on, when the same is asked for again.

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
        salt = f"folds {config.data.seed}"
        held_out = set(fold(images, number, part, salt, checked.scenes.whole))
        shown = [image for image in images if image.image in held_out]
        learned = [image for image in images if image.image not in held_out]
        logger.info(f"Fold {part + 1} of {number}: {len(shown)} pictures are held out.")
        split = {"train": learned, "validation": [], "test": shown}
        own = with_split(config, checked, split, "folds")
        name = f"{config.data.name} fold {part + 1} of {number}"
        seen = detect_below(own, overrides, tracker, name, shown)
        found |= dict(zip((image.image for image in shown), seen, strict=True))
    return found
