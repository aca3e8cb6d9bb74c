"""What was found in pictures and frames, as people and programs read it: CSV, COCO results, labelImg's XML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from odtrain.addresses import with_slashes
from odtrain.io.atomic import replacing
from odtrain.io.cells import write_rows
from odtrain.labels.formats.voc import VocObject, annotation
from odtrain.structures import Detections, IntArray, class_label

CSV_HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score")
FRAME_HEADER = ("frame", "seconds")
"""Two more columns where there are videos."""
TRACK_HEADER = ("track",)
"""One more where they are tracked."""
NO_PLACE = "Free space there, or choose another folder: output=DIR."


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one picture, or in one frame of a video.

    Attributes:
        file: the picture or video.
        height: of the picture, upright, in pixels.
        width: of the picture, upright, in pixels.
        found: detections from the threshold on.
        image_id: its number, from 1 in order of the input.
        name: of the file as the user knows it, where that is not its path.
        frame: from 0 in a video; None for a picture.
        seconds: from the beginning of the video.
        tracks: (N,) number of the track of each detection, 0 for none; None where nothing is tracked.
    """

    file: Path
    height: int
    width: int
    found: Detections
    image_id: int
    name: str = ""
    frame: int | None = None
    seconds: float | None = None
    tracks: IntArray | None = None

    @property
    def shown_name(self) -> str:
        """Of the file, as the user knows it."""
        return self.name or str(self.file)

    def track_numbers(self) -> list[int]:
        """Of every detection, 0 for none."""
        none = [0] * len(self.found)
        return none if self.tracks is None else [int(number) for number in self.tracks]

    def corners(self) -> list[list[float]]:
        """xmin, ymin, xmax, ymax of every detection, in pixels to a tenth."""
        sides = np.array([self.height, self.width, self.height, self.width], np.float32)
        return [[round(float(v), 1) for v in box[[1, 0, 3, 2]]] for box in self.found.boxes * sides]


def write_tables(
    done: Iterable[Prediction],
    class_names: Sequence[str],
    folder: Path,
    moving: bool,
    tracked: bool = False,
) -> None:
    """Write predictions.csv and predictions.json, whole or not at all.

    Args:
        done: in the order of their rows; read once.
        class_names: index 0 = class id 1.
        folder: where the two go.
        moving: whether there are videos, whose rows say the frame too,
        tracked: and the track.
    """
    with (
        replacing(folder / "predictions.csv") as table,
        replacing(folder / "predictions.json") as results,
        table.open("w", encoding="utf-8", errors="surrogateescape", newline="") as rows,
        results.open("w", encoding="utf-8") as objects,
    ):
        _write(done, class_names, moving, tracked, rows, objects)


def _write(
    done: Iterable[Prediction],
    class_names: Sequence[str],
    moving: bool,
    tracked: bool,
    rows: IO[str],
    objects: IO[str],
) -> None:
    more = (*FRAME_HEADER, *(TRACK_HEADER if tracked else ())) if moving else ()
    write_rows(rows, [CSV_HEADER + more])
    first = True
    objects.write("[")
    for one in done:
        write_rows(rows, _rows(one, class_names, moving, tracked))
        for result in _coco_results(one):
            text = json.dumps(result, indent=1).replace("\n", "\n ")
            objects.write(f"{'' if first else ','}\n {text}")
            first = False
    objects.write("]\n" if first else "\n]\n")


def _rows(
    one: Prediction, class_names: Sequence[str], moving: bool, tracked: bool
) -> Iterator[list[object]]:
    place: list[object] = []
    if moving:
        still = one.frame is None or one.seconds is None
        place = ["", ""] if still else [one.frame, f"{one.seconds:.3f}"]
    for number, score, corners, track in zip(
        one.found.classes.tolist(),
        one.found.scores.tolist(),
        one.corners(),
        one.track_numbers(),
        strict=True,
    ):
        name = class_label(class_names, number)
        start = [one.shown_name, one.width, one.height, name]
        yield [*start, *corners, f"{score:.4f}", *place, *([track or ""] if tracked else [])]


def _coco_results(one: Prediction) -> Iterator[dict[str, object]]:
    """COCO's results form; `file_name` and `frame` are ours, since the ids are those of this prediction."""
    for number, score, (xmin, ymin, xmax, ymax), track in zip(
        one.found.classes.tolist(),
        one.found.scores.tolist(),
        one.corners(),
        one.track_numbers(),
        strict=True,
    ):
        result: dict[str, object] = {
            "image_id": one.image_id,
            "file_name": one.shown_name,
            "category_id": number,
            "bbox": [xmin, ymin, round(xmax - xmin, 1), round(ymax - ymin, 1)],
            "score": round(score, 5),
        }
        if one.frame is not None and one.seconds is not None:
            result |= {"frame": one.frame, "seconds": round(one.seconds, 3)}
        if track:
            result["track_id"] = track
        yield result


def voc_xml(one: Prediction, class_names: Sequence[str]) -> bytes:
    """What was found as labelImg writes it, for correcting there: whole pixels, not `verified`."""
    # XML has no way to write what is no Unicode in a name.
    names = (one.file.parent.name, one.file.name, with_slashes(str(one.file)))
    place = [os.fsencode(name).decode("utf-8", "replace") for name in names]
    rows = zip(one.found.classes.tolist(), one.corners(), strict=True)
    objects = (_voc_object(one, class_label(class_names, row[0]), row[1]) for row in rows)
    return annotation(place, (one.width, one.height), objects)


def _voc_object(one: Prediction, name: str, corners: Sequence[float]) -> VocObject:
    xmin, ymin, xmax, ymax = (int(value) for value in corners)
    xmin, ymin = max(xmin, 1), max(ymin, 1)
    cut = xmin == 1 or ymin == 1 or xmax == one.width or ymax == one.height
    return VocObject(name, (xmin, ymin, xmax, ymax), truncated=cut)
