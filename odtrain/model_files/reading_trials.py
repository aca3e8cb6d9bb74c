"""Several ways to read a model that was trained elsewhere, tried on labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from odtrain.errors import ModelFileError
from odtrain.evaluation.evaluate import quick_map
from odtrain.structures import GroundTruth, UInt8Image
from odtrain.system.progress import doing
from odtrain_runtime.model_files import open_model
from odtrain_runtime.others.raw_model import RawModel, raw_detector
from odtrain_runtime.others.reading import Reading

ROUNDS = ((6, 8), (24, 1))
"""Pictures looked at, and ways that are left behind them."""
LEAST_MAP_50 = 0.1
"""What no way reaches has found nothing: a wrong one finds less than a hundredth of what is there."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A way to read a model, and what it came to.

    Attributes:
        reading: it.
        map_50: mAP at IoU 0.5.
        pictures: that it was tried on.
    """

    reading: Reading
    map_50: float
    pictures: int


@doing("Trying how the model is to be read")
def best_reading(
    path: Path,
    readings: Sequence[Reading],
    images: Sequence[UInt8Image],
    truths: Sequence[GroundTruth],
    class_names: Sequence[str],
    trusted: bool,
) -> Trial | None:
    """The way that finds most of what is in the pictures; None where none finds anything.

    Args:
        path: the model.
        readings: the likeliest first, of which the first of equally good ones is taken.
        images: labelled pictures with objects in them.
        truths: what is in each.
        class_names: index 0 = class id 1.
        trusted: whether a graph may do more than compute.
    """
    model = open_model(path, 1, trusted)
    if not isinstance(model, RawModel) or not images:
        return None
    left = [Trial(reading, 0.0, 0) for reading in dict.fromkeys(readings)]
    for most, kept in ROUNDS:
        shown, known = images[:most], truths[:most]
        tried = [_tried(model, each.reading, shown, known, class_names) for each in left]
        left = sorted(tried, key=lambda each: -each.map_50)[:kept]
    return left[0] if left and left[0].map_50 >= LEAST_MAP_50 else None


def _tried(
    model: RawModel,
    reading: Reading,
    images: Sequence[UInt8Image],
    truths: Sequence[GroundTruth],
    class_names: Sequence[str],
) -> Trial:
    detector = raw_detector(model, reading)
    try:
        found = [detector(image) for image in images]
    except ModelFileError:  # outputs that this head cannot be
        return Trial(reading, 0.0, len(images))
    return Trial(reading, quick_map(truths, found, class_names).get("mAP_50", 0.0), len(images))
