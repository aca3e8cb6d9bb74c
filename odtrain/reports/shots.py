"""Pictures as they are, kept beside what was found in them: pages draw the boxes, which answer to filters.

A run keeps some of its pictures in `eval/pictures/`, named by their row in `eval/detections/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from odtrain.evaluation.error_analysis import FOUND, judge_picture
from odtrain.media.draw import fit
from odtrain.media.palette import css_colours
from odtrain.reports.pages import as_jpeg
from odtrain.structures import Detections, FloatArray, GroundTruth, UInt8Image

FOLDER = "pictures"
SIZE = (320, 960)
"""Pixels of the shorter side at least, and of the longer one at most, of a picture that is kept."""
QUALITY = 85
LOWEST_SCORE = 0.05
"""Detections below it never reach a page; its slider begins here."""
MOST_BOXES = 60
"""Detections of one picture that a page draws, the best ones."""


def write_pictures(
    folder: Path, images: Callable[[int], UInt8Image], rows: Iterable[int], quality: int = QUALITY
) -> None:
    """Keep the pictures of some rows in `folder`, which is made if there is one."""
    for row in sorted(set(rows)):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(fit(images(row), *SIZE)).save(folder / f"{row:06d}.jpg", quality=quality)


def kept_pictures(folder: Path | None) -> dict[int, Path]:
    """Row -> file of a folder that `write_pictures` wrote."""
    files = [] if folder is None else sorted(folder.glob("*.jpg"))
    return {int(file.stem): file for file in files if file.stem.isdecimal()}


def for_script(shots: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """What the script draws of shots, and in which colours."""
    drawn = [shot["drawn"] for shot in shots]
    return {"shots": drawn, "names": list(names), "colours": css_colours(max(1, len(names)))}


def shot(
    number: int, name: str, file: Path, truth: GroundTruth, found: Detections, threshold: float
) -> dict[str, Any]:
    """A picture as the macro of shots.html and the script's `gallery` take it.

    Args:
        number: among the shots of the page.
        name: shown below it.
        file: the picture.
        truth: its labels.
        found: in it, at all scores.
        threshold: the score from which boxes are shown at first.
    """
    with Image.open(file) as image:
        width, height, source = *image.size, as_jpeg(image.convert("RGB"), QUALITY)
    drawn = _drawn(truth, found.above(LOWEST_SCORE))
    right = [
        d for d, score in zip(drawn["right"], drawn["scores"], strict=True) if score >= threshold
    ]
    missed = sum((score or 0) < threshold for score in drawn["labels"]["scores"])
    said = f"{sum(right)} found, {missed} missed, {len(right) - sum(right)} wrong"
    size = {"width": width, "height": height}
    return {"number": number, "name": name, "source": source, "said": said, **size, "drawn": drawn}


def _drawn(truth: GroundTruth, found: Detections) -> dict[str, Any]:
    best = np.argsort(-found.scores, kind="stable")[:MOST_BOXES]
    found = Detections(found.boxes[best], found.scores[best], found.classes[best])
    judged = judge_picture(truth, found)
    right = [kind == FOUND for kind in judged.kinds]
    finders = {int(judged.targets[i]): i for i, is_right in enumerate(right) if is_right}
    scores = np.round(found.scores.astype(float), 3).tolist()
    labels = {
        "boxes": _corners(truth.boxes),
        "classes": truth.classes.tolist(),
        "scores": [scores[finders[g]] if g in finders else None for g in range(len(truth.classes))],
    }
    drawn = {"boxes": _corners(found.boxes), "scores": scores, "classes": found.classes.tolist()}
    return {**drawn, "right": [int(each) for each in right], "labels": labels}


def _corners(boxes: FloatArray) -> list[list[float]]:
    rounded: list[list[float]] = np.round(np.nan_to_num(boxes.astype(float)), 4).tolist()
    return rounded
