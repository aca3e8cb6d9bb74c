"""CreateML JSON, as labelImg and Roboflow write it: boxes by centre and size, in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odtrain.labels.annotations import Entry, WrittenObject
from odtrain.labels.formats.documents import DocumentFormat
from odtrain.labels.formats.reading import (
    Reading,
    class_name,
    entry_of_picture,
    flag,
    number,
    picture_name,
)

PICTURE_KEYS = ("image", "imagefilename")
"""CreateML's documentation has had both."""
OBJECT_KEYS = ("annotations", "annotation")


def fits(document: Any) -> bool:
    """Whether a document is a list of pictures with CreateML's boxes, or with none."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(
            isinstance(item, dict)
            and isinstance(_first(item, PICTURE_KEYS), str)
            and isinstance(_first(item, OBJECT_KEYS), list)
            for item in document
        )
    )


def entries(file: Path, document: Any, reading: Reading) -> list[Entry]:
    """One entry for each picture of the list."""
    result = []
    for picture in document:
        name = picture_name(_first(picture, PICTURE_KEYS))
        objects = [
            item
            for position, annotation in enumerate(_first(picture, OBJECT_KEYS), start=1)
            if (item := _object(file, f'"{name}": object {position}', annotation, reading))
        ]
        # A file of one picture is called after it; labelImg may have been told another name.
        names = [name, file.stem] if len(document) == 1 else [name]
        verified = flag(picture.get("verified"))
        shared = len(document) > 1
        result.append(
            entry_of_picture(
                file, names, None, objects, reading.left_out(), verified=verified, shared=shared
            )
        )
    return result


def _first(values: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((values[key] for key in keys if key in values), None)


def _object(file: Path, said: str, annotation: Any, reading: Reading) -> WrittenObject | None:
    if not isinstance(annotation, dict):
        reading.spoil(file, "OD032", f"{said} is no object.")
        return None
    name = class_name(annotation.get("label"))
    box = annotation.get("coordinates")
    sides = [number(box.get(key)) if isinstance(box, dict) else None for key in BOX_KEYS]
    known = [side for side in sides if side is not None]
    if not name or len(known) < 4:
        lacks = "has no label" if not name else f'"{name}", lacks x, y, width or height'
        reading.spoil(file, "OD032", f"{said} {lacks}.")
        return None
    x, y, width, height = known
    return WrittenObject(name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


BOX_KEYS = ("x", "y", "width", "height")
FORMAT = DocumentFormat((b'"image', b'"annotation'), fits, entries)
