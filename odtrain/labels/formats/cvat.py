"""CVAT's own XML ("CVAT for images 1.1"): all pictures of a task in one file."""

from __future__ import annotations

from collections.abc import Iterator
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
)

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
            root = parse_xml(file, MAX_BYTES)
            if local_name(root) != "annotations":
                cause = f"begins with <{local_name(root)}>, not with CVAT's <annotations>."
                raise UnreadableError(Finding.of("OD031", file, cause))
            for track in children(root, "track"):
                for _ in children(track, "box"):
                    reading.tally("interpolated")
            reading.entries += [_entry(file, image, reading) for image in children(root, "image")]
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


def _entry(file: Path, image: etree._Element, reading: Reading) -> Entry:
    name = picture_name(image.get("name"))
    objects = []
    for shape in image.iterchildren(tag=etree.Element):
        corners = _corners(file, name, shape, reading)
        label = class_name(shape.get("label"))
        if corners is not None and label:
            difficult = any(
                attribute.get("name") == "difficult" and flag(own_text(attribute))
                for attribute in children(shape, "attribute")
            )
            objects.append(WrittenObject(label, corners, difficult))
        elif corners is not None:
            reading.fault(file, "OD032", f'"{name}": a shape has no label.')
    size = size_of(image.get("width"), image.get("height"))
    return entry_of_picture(file, [name], size, objects, reading.left_out(), shared=True)


def _corners(file: Path, name: str, shape: etree._Element, reading: Reading) -> Corners | None:
    kind = local_name(shape)
    if kind == "box":
        return _box(file, name, shape, reading)
    if kind == "polygon":
        values = [number(value) for pair in _pairs(shape) for value in pair]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values) and len(known) % 2 == 0:
            reading.tally("polygon")
            return bounds(list(zip(known[::2], known[1::2], strict=True)))
        reading.fault(file, "OD032", f'"{name}": a polygon has points that are no numbers.')
    elif kind not in NO_SHAPES:
        reading.shapeless(file, kind)
    return None


def _pairs(shape: etree._Element) -> list[list[str]]:
    return [point.split(",") for point in str(shape.get("points") or "").split(";")]


def _box(file: Path, name: str, shape: etree._Element, reading: Reading) -> Corners | None:
    sides = [number(shape.get(side)) for side in ("xtl", "ytl", "xbr", "ybr")]
    known = [side for side in sides if side is not None]
    if len(known) < 4:
        reading.fault(file, "OD032", f'"{name}": a box lacks xtl, ytl, xbr or ybr.')
        return None
    corners = known[0], known[1], known[2], known[3]
    degrees = number(shape.get("rotation")) or 0.0
    if not degrees:
        return corners
    reading.tally("rotated")
    return rotated_bounds(corners, degrees, centre_of(corners))
