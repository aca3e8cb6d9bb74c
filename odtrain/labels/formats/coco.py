"""COCO JSON: all pictures, objects and classes of a set in one file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odtrain.labels.annotations import Entry, LabelledImage, WrittenObject
from odtrain.labels.formats.documents import DocumentFormat
from odtrain.labels.formats.reading import (
    CROWD,
    UNUSABLE,
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


def fits(document: Any) -> bool:
    """Whether a document has COCO's three lists."""
    return isinstance(document, dict) and all(
        isinstance(document.get(key), list) for key in ("images", "annotations", "categories")
    )


def entries(file: Path, document: Any, reading: Reading) -> list[Entry]:
    """One entry for each picture that the document lists."""
    categories = {
        _key(category.get("id")): class_name(category.get("name"))
        for category in document["categories"]
        if isinstance(category, dict)
    }
    pictures = {
        _key(picture.get("id")): picture
        for picture in document["images"]
        if isinstance(picture, dict)
    }
    _refuse_twice(file, "category", document["categories"], reading)
    _refuse_twice(file, "picture", document["images"], reading)
    objects, left_out = _objects(file, document["annotations"], pictures, categories, reading)
    result = []
    for picture_id, picture in pictures.items():
        name = picture_name(picture.get("file_name"))
        size = size_of(picture.get("width"), picture.get("height"))
        if picture_id is None or not name:
            reading.fault(file, "OD032", "a picture lacks its id or file_name.")
        else:
            lost = tuple(left_out[picture_id])
            entry = entry_of_picture(file, [name], size, objects[picture_id], lost, shared=True)
            result.append(entry)
    return result


def _refuse_twice(file: Path, what: str, rows: list[Any], reading: Reading) -> None:
    """OD032 for an id that two different rows have: objects would go to the last of them."""
    first: dict[int | str | None, Any] = {}
    for row in rows:
        key = _key(row.get("id")) if isinstance(row, dict) else None
        if key is not None and first.setdefault(key, row) != row:
            cause = f"two {what.replace('y', 'ie')}s have the id {str(key)[:40]}."
            reading.fault(file, "OD032", cause)


def _key(value: Any) -> int | str | None:
    """An id; "7" and 7.0 are 7, as tools mix them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _objects(
    file: Path,
    annotations: list[Any],
    pictures: dict[int | str | None, Any],
    categories: dict[int | str | None, str],
    reading: Reading,
) -> tuple[dict[int | str | None, list[WrittenObject]], dict[int | str | None, list[str]]]:
    """Picture id -> its objects, and what it loses; what cannot be used is a fault."""
    objects: dict[int | str | None, list[WrittenObject]] = defaultdict(list)
    left_out: dict[int | str | None, list[str]] = defaultdict(list)
    for position, annotation in enumerate(annotations, start=1):
        said = f"annotation {position}"
        if not isinstance(annotation, dict):
            reading.fault(file, "OD032", f"{said} is no object.")
            continue
        picture_id = _key(annotation.get("image_id"))
        name = categories.get(_key(annotation.get("category_id")))
        if picture_id is None or picture_id not in pictures:
            reading.fault(file, "OD032", f"{said} is of a picture that the file does not list.")
        elif not name:
            left_out[picture_id].append(UNUSABLE)
            reading.fault(file, "OD033", f"{said} is of a category that the file does not list.")
        elif flag(annotation.get("iscrowd")) and not reading.crowd:
            left_out[picture_id].append(CROWD)
        elif (corners := _corners(annotation, reading)) is None:
            left_out[picture_id].append(UNUSABLE)
            reading.fault(file, "OD032", f'{said}, "{name}", has no bbox of four numbers.')
        else:
            objects[picture_id].append(WrittenObject(name, corners, _is_difficult(annotation)))
            if flag(annotation.get("iscrowd")):
                reading.tally("crowd_taken")
    return objects, left_out


def _is_difficult(annotation: dict[str, Any]) -> bool:
    """CVAT writes its attributes into COCO's annotations."""
    attributes = annotation.get("attributes")
    return isinstance(attributes, dict) and flag(attributes.get("difficult"))


def _corners(annotation: dict[str, Any], reading: Reading) -> Corners | None:
    box = numbers(annotation.get("bbox"))
    if box is not None and len(box) == 4:
        return box[0], box[1], box[0] + box[2], box[1] + box[3]
    segments = annotation.get("segmentation")
    if box or not isinstance(segments, list):
        return None
    outlines = [numbers(segment) for segment in segments]
    points = [
        (xs, ys)
        for outline in outlines
        if outline
        for xs, ys in zip(outline[::2], outline[1::2], strict=False)
    ]
    if not points or None in outlines:
        return None
    reading.tally("polygon")
    return bounds(points)


FORMAT = DocumentFormat((b'"images"', b'"annotations"', b'"categories"'), fits, entries)


def write(
    file: Path, images: Sequence[LabelledImage], names: Sequence[Path], classes: Sequence[str]
) -> None:
    """All of `images` as one file; ids begin at 1, as pycocotools needs those of annotations to."""
    numbers_of = {name: number for number, name in enumerate(classes, start=1)}
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture_id, (image, name) in enumerate(zip(images, names, strict=True), start=1):
        sizes = {"width": image.width, "height": image.height}
        pictures.append({"id": picture_id, "file_name": name.as_posix(), **sizes})
        for item in image.objects:
            xmin, ymin, xmax, ymax = (float(value) for value in image.corners(item))
            box = [xmin, ymin, round(xmax - xmin, 4), round(ymax - ymin, 4)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture_id,
                    "category_id": numbers_of[item.name],
                    "bbox": box,
                    "area": round(box[2] * box[3], 4),
                    "segmentation": [],
                    "iscrowd": 0,
                }
            )
    categories = [
        {"id": number, "name": name, "supercategory": ""} for name, number in numbers_of.items()
    ]
    document = {"images": pictures, "annotations": annotations, "categories": categories}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1), encoding="utf-8")
