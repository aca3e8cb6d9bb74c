"""Tracks that people labelled in a video: MOT text, or CVAT's XML of a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from odtrain.errors import DataError
from odtrain.labels.annotations import UnreadableError
from odtrain.labels.formats.cvat import EXPORT_AGAIN
from odtrain.labels.formats.reading import MAX_BYTES, Reading, class_name, flag, number
from odtrain.labels.formats.xml_files import children, local_name, parse_xml

ANY_CLASS = 0
MOT_LINE = (
    "Give frame (from 1), track, left, top, width, height, and, if known, 0 or 1 and a class id."
)


class TrackBox(NamedTuple):
    """An object in one frame.

    Attributes:
        frame: from 0.
        track: the same number in every frame in which it is seen.
        class_id: from 1; `ANY_CLASS` where the labels do not say.
        left: in pixels, as the next three.
        top: from the upper edge.
        right: after its last column.
        bottom: after its last row.
    """

    frame: int
    track: int
    class_id: int
    left: float
    top: float
    right: float
    bottom: float


def read_tracks(file: Path, class_names: Sequence[str]) -> list[TrackBox]:
    """What is labelled in a video, but for objects that the labels say not to judge by.

    Args:
        file: MOT text, or CVAT's XML (`CVAT for video 1.1`).
        class_names: of the model, index 0 = class id 1; empty where it has no names.

    Raises:
        DataError: it cannot be read, names a class that the model does not know, or a track twice in a frame.
    """
    read = _cvat if file.suffix.lower() == ".xml" else _mot
    boxes = list(read(file, class_names))
    seen = set()
    for box in boxes:
        if (box.frame, box.track) in seen:
            where = f"track {box.track} is twice in frame {box.frame + 1} (from 1)."
            raise DataError(str(file), where, "Give each object of a frame a number of its own.")
        seen.add((box.frame, box.track))
    if not boxes:
        raise DataError(str(file), "names no object.", "Give the labels of the video.")
    return boxes


def _mot(file: Path, class_names: Sequence[str]) -> Iterator[TrackBox]:
    """The MOT challenge's ground truth: a 7th number of 0 is an object not to judge by, the 8th the class."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(str(file), f"cannot be read: {error.strerror}.", MOT_LINE) from error
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}:{place}"
        values = [number(value) for value in line.split(",")]
        known = [value for value in values if value is not None]
        if len(known) < len(values) or len(known) < 6 or known[0] < 1 or min(known[4:6]) < 0:
            raise DataError(where, "is no line of MOT text.", MOT_LINE)
        if len(known) > 6 and known[6] == 0:
            continue
        frame, track, left, top, width, height = known[:6]
        class_id = int(known[7]) if len(known) > 7 and known[7] > 0 else ANY_CLASS
        if class_names and class_id > len(class_names):
            problem = f"has the class {class_id}; the model knows {len(class_names)}."
            raise DataError(where, problem, "Give the model's class ids, from 1, or -1.")
        corners = left, top, left + width, top + height
        yield TrackBox(int(frame) - 1, int(track), class_id, *corners)


def _cvat(file: Path, class_names: Sequence[str]) -> Iterator[TrackBox]:
    """Each <track> with its boxes; those outside the frame are left out."""
    try:
        root = parse_xml(file, MAX_BYTES, Reading(), EXPORT_AGAIN)
    except UnreadableError as error:
        raise DataError(str(file), error.finding.cause, error.finding.remedy) from None
    for place, track in enumerate(children(root, "track")):
        name = class_name(track.get("label"))
        if class_names and name not in class_names:
            raise DataError(
                str(file),
                f"has the class {name}; the model knows {', '.join(class_names)}.",
                "Evaluate a model with the classes of the labels.",
            )
        class_id = list(class_names).index(name) + 1 if class_names else ANY_CLASS
        own = number(track.get("id"))
        for shape in children(track, "box"):
            sides = [number(shape.get(key)) for key in ("frame", "xtl", "ytl", "xbr", "ybr")]
            known = [side for side in sides if side is not None]
            if len(known) < 5 or known[0] < 0:
                said = f"{local_name(shape)} of track {track.get('id')} lacks a frame or a side."
                raise DataError(str(file), said, EXPORT_AGAIN)
            if not flag(shape.get("outside")):
                number_of = place if own is None else int(own)
                yield TrackBox(int(known[0]), number_of, class_id, *known[1:])
