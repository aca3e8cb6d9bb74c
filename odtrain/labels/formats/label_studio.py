"""Label Studio JSON, the full export and JSON_MIN: boxes in percent of the picture."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from odtrain.labels.annotations import Entry, WrittenObject
from odtrain.labels.formats.documents import DocumentFormat
from odtrain.labels.formats.reading import (
    UNLABELLED,
    Corners,
    Reading,
    bounds,
    class_name,
    entry_of_picture,
    number,
    numbers,
    picture_name,
    rotated_bounds,
    size_of,
)

PICTURE_SUFFIX = re.compile(
    r"\.(jpe?g|jpe|jfif|png|bmp|gif|webp|tiff?|p[pgbn]m|mpo)$", re.IGNORECASE
)
LABEL_KEYS = ("rectanglelabels", "polygonlabels", "labels")
PLAIN = ("rectangle", "polygon")
"""Types of regions that are labelled elsewhere, or not at all."""
SHAPES = ("ellipse", "keypoint", "brush", "bitmask", "vector")
"""The same of shapes without a box."""


def fits(document: Any) -> bool:
    """Whether a document is a task of Label Studio, or a list of them."""
    tasks = document if isinstance(document, list) else [document]
    return bool(tasks) and all(_is_task(task) or _is_min_task(task) for task in tasks)


def _is_task(task: Any) -> bool:
    return (
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and any(isinstance(task.get(key), list) for key in ("annotations", "completions"))
    )


def _is_min_task(task: Any) -> bool:
    """JSON_MIN: the data's keys, and one for each control that was used."""
    known = ("annotation_id", "annotator", "lead_time", "updated_at")
    return isinstance(task, dict) and "id" in task and any(key in task for key in known)


def entries(file: Path, document: Any, reading: Reading) -> list[Entry]:
    """One entry for each task that somebody has labelled."""
    result = []
    for task in document if isinstance(document, list) else [document]:
        regions = _regions(task, reading) if _is_task(task) else _min_regions(task)
        if regions is None:
            reading.tally("task")
            continue
        names = _names(task)
        if not names:
            reading.fault(file, "OD032", f"task {str(task.get('id'))[:40]} names no picture.")
            continue
        labels = _labels_by_id(regions)
        objects = [
            item
            for position, region in enumerate(regions, start=1)
            for item in _objects(file, f'"{names[0]}": region {position}', region, labels, reading)
        ]
        sizes = [_size(region) for region in regions if isinstance(region, dict)]
        size = next(filter(None, sizes), None)
        left_out = reading.left_out()
        entry = entry_of_picture(file, names, size, objects, left_out, relative=True, shared=True)
        result.append(entry)
    return result


def _regions(task: dict[str, Any], reading: Reading) -> list[Any] | None:
    """The regions of the last annotation that was not cancelled; None where there is none."""
    done = task.get("annotations", task.get("completions"))
    kept = [
        annotation["result"]
        for annotation in (done if isinstance(done, list) else [])
        if isinstance(annotation, dict)
        and isinstance(annotation.get("result"), list)
        and not annotation.get("was_cancelled")
    ]
    for _ in kept[:-1]:
        reading.tally("annotator")
    return kept[-1] if kept else None


def _min_regions(task: dict[str, Any]) -> list[Any] | None:
    """As `_regions`; without an annotation's number nobody has labelled the task."""
    if "annotation_id" in task and task["annotation_id"] is None:
        return None
    lists = [value for value in task.values() if isinstance(value, list)]
    return [
        {**region, "type": _kind_of(region), "value": region}
        for values in lists
        for region in values
        if isinstance(region, dict)
        and (_kind_of(region) not in PLAIN or "original_width" in region)
    ]


def _kind_of(region: dict[str, Any]) -> str:
    """The type of a region that has none of its own: what its labels are called by."""
    return next((str(key) for key in region if str(key).endswith("labels")), PLAIN[0])


def _labels_by_id(regions: Sequence[Any]) -> dict[str, list[Any]]:
    """Region id -> the choice that is its label, where it was labelled by a choice; else nothing.

    A region that has labels by themselves, a second time with the region, is there too.
    """
    labels: dict[str, list[Any]] = {}
    choices: dict[str, list[Any]] = defaultdict(list)
    for region in regions:
        value = region.get("value") if isinstance(region, dict) else None
        if isinstance(value, dict) and isinstance(region.get("id"), str):
            if any(isinstance(value.get(key), list) for key in LABEL_KEYS):
                labels[region["id"]] = []
            elif isinstance(value.get("choices"), list):
                choices[region["id"]] += value["choices"]
    of_one = {key: given for key, given in choices.items() if len(given) == 1}
    return {**of_one, **labels}


def _size(region: dict[str, Any]) -> tuple[int, int] | None:
    return size_of(region.get("original_width"), region.get("original_height"))


def _names(task: dict[str, Any]) -> list[str]:
    """What the picture may be called, as Label Studio stores it."""
    data = task.get("data")
    values = list(data.values()) if isinstance(data, dict) else list(task.values())
    written = [value for value in values if isinstance(value, str)]
    names = [name for name in map(_name_in, written) if PICTURE_SUFFIX.search(name)]
    uploaded = picture_name(task.get("file_upload"))
    return [*([uploaded] if uploaded else []), *names]


def _name_in(url: str) -> str:
    """The picture's path in a URL, in `/data/local-files/?d=PATH`, or in a plain path."""
    if len(url) > 2000 or "\n" in url:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return picture_name(url)
    local = parse_qs(parts.query).get("d") if "local-files" in parts.path else None
    if local:
        return picture_name(local[0])
    if parts.scheme in ("http", "https", "s3", "gs", "azure-blob") or url.startswith("/data/"):
        return picture_name(unquote(parts.path)).rpartition("/")[2]
    return picture_name(url)


def _objects(
    file: Path, said: str, region: Any, labels_by_id: Mapping[str, list[Any]], reading: Reading
) -> list[WrittenObject]:
    """A box for each label of a region: Label Studio allows several."""
    if isinstance(region, dict) and region.get("type") == "relation":
        reading.tally("no_region")
        return []
    if not isinstance(region, dict) or not isinstance(region.get("value"), dict):
        reading.spoil(file, "OD032", f"{said} is no object with a value.")
        return []
    value = region["value"]
    labels = next((value[key] for key in LABEL_KEYS if isinstance(value.get(key), list)), None)
    if labels is None:
        labels = _labels_elsewhere(file, region, labels_by_id, reading)
        if not labels:
            return []
    corners = _corners(region, value, reading)
    names = [name for name in map(class_name, labels) if name]
    if corners is None or not names:
        lacks = "has no label" if not names else "has no x, y, width, height or points"
        reading.spoil(file, "OD032", f"{said} {lacks}.")
        return []
    return [WrittenObject(name, corners) for name in names]


def _labels_elsewhere(
    file: Path, region: dict[str, Any], labels_by_id: Mapping[str, list[Any]], reading: Reading
) -> list[Any]:
    """The labels of a region that has none by itself; none of what is left out, or comes a second time."""
    kind, labels = str(region.get("type")), labels_by_id.get(str(region.get("id")))
    if kind in PLAIN:
        if labels is None:
            reading.leave_out(UNLABELLED)
        return labels or []
    if kind.endswith("labels") or kind in SHAPES:
        reading.shapeless(file, kind)
    elif not (labels and "choices" in region["value"]):
        reading.tally("no_region")
    return []


def _corners(region: dict[str, Any], value: dict[str, Any], reading: Reading) -> Corners | None:
    """Fractions of the picture."""
    points = value.get("points")
    if isinstance(points, list):
        pairs = [numbers(point) for point in points]
        known = [pair for pair in pairs if pair is not None and len(pair) == 2]
        if not known or len(known) < len(points):
            return None
        reading.tally("polygon")
        return _fractions(bounds(known))
    sides = [number(value.get(key)) for key in ("x", "y", "width", "height")]
    known_sides = [side for side in sides if side is not None]
    if len(known_sides) < 4:
        return None
    x, y, width, height = known_sides
    corners = x, y, x + width, y + height
    degrees = number(value.get("rotation")) or 0.0
    return _fractions(_turned(corners, degrees, region, reading) if degrees % 360 else corners)


def _turned(corners: Corners, degrees: float, region: dict[str, Any], reading: Reading) -> Corners:
    """Percent. The box is turned about its first corner, in pixels: percents of x and y differ."""
    reading.tally("rotated")
    width, height = _size(region) or (1, 1)
    scaled = corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height
    xmin, ymin, xmax, ymax = rotated_bounds(scaled, degrees, (scaled[0], scaled[1]))
    return xmin / width, ymin / height, xmax / width, ymax / height


def _fractions(percent: Corners) -> Corners:
    xmin, ymin, xmax, ymax = percent
    return xmin / 100, ymin / 100, xmax / 100, ymax / 100


FORMAT = DocumentFormat((b'"id"',), fits, entries)
