"""LabelMe JSON: a file a picture, with shapes, and often the picture itself, which is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odtrain.labels.annotations import Entry, WrittenObject
from odtrain.labels.formats.documents import DocumentFormat
from odtrain.labels.formats.reading import (
    Corners,
    Reading,
    bounds,
    class_name,
    entry_of_picture,
    flag,
    numbers,
    picture_name,
    size_of,
)

BOUNDED = {
    "rectangle": None,
    "polygon": "polygon",
    "mask": "mask",
    "oriented_rectangle": "rotated",
    "rotation": "rotated",
}
"""Shape types whose points bound the object -> what they are counted as. "rotation" is X-AnyLabeling's."""


def fits(document: Any) -> bool:
    """Whether a document is a picture with LabelMe's shapes."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("shapes"), list)
        and ("imagePath" in document or "imageHeight" in document)
    )


def entries(file: Path, document: Any, reading: Reading) -> list[Entry]:
    """The one entry of a file."""
    objects = [
        item
        for position, shape in enumerate(document["shapes"], start=1)
        if (item := _object(file, f"shape {position}", shape, reading))
    ]
    size = size_of(document.get("imageWidth"), document.get("imageHeight"))
    names = [file.stem, picture_name(document.get("imagePath"))]
    return [entry_of_picture(file, names, size, objects, reading.left_out())]


def _object(file: Path, said: str, shape: Any, reading: Reading) -> WrittenObject | None:
    if not isinstance(shape, dict):
        reading.spoil(file, "OD032", f"{said} is no object.")
        return None
    kind = shape.get("shape_type") or "polygon"  # LabelMe 2 and 3 knew no other
    if not isinstance(kind, str) or kind not in BOUNDED:
        reading.shapeless(file, str(kind))
        return None
    name = class_name(shape.get("label"))
    corners = _corners(shape.get("points"))
    if not name or corners is None:
        lacks = "has no label" if not name else f'"{name}", has no points of two numbers'
        reading.spoil(file, "OD032", f"{said} {lacks}.")
        return None
    counted = BOUNDED[kind]
    if counted:
        reading.tally(counted)
    return WrittenObject(name, corners, flag(shape.get("difficult")))


def _corners(points: Any) -> Corners | None:
    if not isinstance(points, list) or len(points) < 2:
        return None
    pairs = [numbers(point) for point in points]
    known = [pair for pair in pairs if pair is not None and len(pair) == 2]
    return bounds(known) if len(known) == len(points) else None


FORMAT = DocumentFormat((b'"shapes"', b'"image'), fits, entries)
