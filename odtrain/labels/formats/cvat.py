"""CVAT's own XML ("CVAT for images 1.1", "for video 1.1"): all pictures of a task in one file."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from lxml import etree

from odtrain.findings import Finding
from odtrain.labels.annotations import Entry, UnreadableError, WrittenObject
from odtrain.labels.formats.reading import (
    MAX_BYTES,
    Corners,
    Reading,
    Sources,
    bounds,
    centre_of,
    class_name,
    entry_of_picture,
    flag,
    number,
    picture_name,
    rotated_bounds,
    size_of,
)
from odtrain.labels.formats.xml_files import (
    children,
    local_name,
    may_be_cvat,
    misplaced,
    own_text,
    parent_of,
    parse_xml,
    text,
)

EXPORT_AGAIN = "Export it again from CVAT, or delete it."
FRAME_NAME = "frame_{:06d}"
"""What CVAT calls the frames of a video when it exports them."""
MAX_FRAME = 10_000_000
Track = tuple[str, Mapping[int, etree._Element]]
"""Its class, and frame -> shape."""
NO_SHAPES = ("tag", "attribute")
"""What stands in an <image> beside shapes."""
SHAPES = ("box", "polygon", "polyline", "points", "mask", "ellipse", "cuboid", "skeleton")
"""What CVAT draws."""


def read(sources: Sources) -> Reading:
    """Every .xml file that begins with <annotations>."""
    reading = Reading()
    for file in sources.with_suffix(".xml"):
        try:
            if not sources.named and not may_be_cvat(file):
                continue
            reading.files += 1
            root = parse_xml(file, MAX_BYTES, reading, EXPORT_AGAIN)
            if local_name(root) != "annotations":
                cause = f"begins with <{local_name(root)}>, not with CVAT's <annotations>."
                raise UnreadableError(Finding.of("OD031", file, cause))
            reading.entries += [_entry(file, image, reading) for image in children(root, "image")]
            reading.entries += _frames(file, root, reading)
            reading.unread(file, list(_unread(root)))
        except UnreadableError as error:
            reading.refuse(error)
    return reading


def _unread(root: etree._Element) -> Iterator[str]:
    """Pictures and shapes that stand deeper than CVAT puts them."""
    for element in misplaced(root, ("image",), (local_name(root),)):
        yield f'<image> "{picture_name(element.get("name"))}" stands in {parent_of(element)}'
    for element in misplaced(root, SHAPES, ("image", "track", "skeleton")):
        label = class_name(element.get("label"))
        yield f'<{local_name(element)}> "{label}" stands in {parent_of(element)}'


def _frames(file: Path, root: etree._Element, reading: Reading) -> list[Entry]:
    """An entry for each frame that a track tells of, called as CVAT calls frames."""
    frames: dict[int, list[WrittenObject]] = defaultdict(list)
    lost: dict[int, tuple[str, ...]] = defaultdict(tuple)
    tracks = [
        (class_name(track.get("label")), _by_frame(file, track, reading))
        for track in children(root, "track")
    ]
    for label, shapes in tracks:
        for frame, shape in shapes.items():
            hidden = flag(shape.get("outside"))
            item = None if hidden else _object(file, f"frame {frame}", shape, label, reading)
            frames[frame] += [item] if item else []
            lost[frame] += reading.left_out()
    reading.unread(file, list(_gaps(tracks, sorted(frames))))
    size = _video_size(root)
    return [
        entry_of_picture(
            file, [FRAME_NAME.format(frame)], size, frames[frame], lost[frame], shared=True
        )
        for frame in sorted(frames)
    ]


def _gaps(tracks: Sequence[Track], known: Sequence[int]) -> Iterator[str]:
    """Where a track has no shape between two of its own, in frames that others have."""
    for label, shapes in tracks:
        for frame, after in pairwise(sorted(shapes)):
            missing = bisect_left(known, after) - bisect_left(known, frame) - 1
            if missing and not flag(shapes[frame].get("outside")):
                yield f'track "{label}" has no shape between the frames {frame} and {after}'


def _by_frame(file: Path, track: etree._Element, reading: Reading) -> dict[int, etree._Element]:
    """The shapes of a track; the last of a frame counts, as in CVAT."""
    shapes = {}
    for shape in track.iterchildren(tag=etree.Element):
        frame = number(shape.get("frame"))
        if local_name(shape) not in SHAPES:
            continue
        if frame is None or not 0 <= frame < MAX_FRAME or frame != int(frame):
            reading.fault(file, "OD032", "a shape of a track has no frame.")
        else:
            shapes[int(frame)] = shape
    return shapes


def _video_size(root: etree._Element) -> tuple[int, int] | None:
    for element in root.iter("{*}original_size"):
        return size_of(text(element, "width"), text(element, "height"))
    return None


def _entry(file: Path, image: etree._Element, reading: Reading) -> Entry:
    name = picture_name(image.get("name"))
    objects = []
    for shape in image.iterchildren(tag=etree.Element):
        item = _object(file, f'"{name}"', shape, class_name(shape.get("label")), reading)
        objects += [item] if item else []
    size = size_of(image.get("width"), image.get("height"))
    return entry_of_picture(file, [name], size, objects, reading.left_out(), shared=True)


def _object(
    file: Path, said: str, shape: etree._Element, label: str, reading: Reading
) -> WrittenObject | None:
    corners = _corners(file, said, shape, reading)
    if corners is None:
        return None
    if not label:
        reading.spoil(file, "OD032", f"{said}: a shape has no label.")
        return None
    difficult = any(
        attribute.get("name") == "difficult" and flag(own_text(attribute))
        for attribute in children(shape, "attribute")
    )
    return WrittenObject(label, corners, difficult)


def _corners(file: Path, said: str, shape: etree._Element, reading: Reading) -> Corners | None:
    kind = local_name(shape)
    if kind == "box":
        return _box(file, said, shape, reading)
    if kind == "polygon":
        values = [number(value) for pair in _pairs(shape) for value in pair]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values) and len(known) % 2 == 0:
            reading.tally("polygon")
            return bounds(list(zip(known[::2], known[1::2], strict=True)))
        reading.spoil(file, "OD032", f"{said}: a polygon has points that are no numbers.")
    elif kind not in NO_SHAPES:
        reading.shapeless(file, kind)
    return None


def _pairs(shape: etree._Element) -> list[list[str]]:
    return [point.split(",") for point in str(shape.get("points") or "").split(";")]


def _box(file: Path, said: str, shape: etree._Element, reading: Reading) -> Corners | None:
    sides = [number(shape.get(side)) for side in ("xtl", "ytl", "xbr", "ybr")]
    known = [side for side in sides if side is not None]
    if len(known) < 4:
        reading.spoil(file, "OD032", f"{said}: a box lacks xtl, ytl, xbr or ybr.")
        return None
    corners = known[0], known[1], known[2], known[3]
    degrees = number(shape.get("rotation")) or 0.0
    if not degrees:
        return corners
    reading.tally("rotated")
    return rotated_bounds(corners, degrees, centre_of(corners))
