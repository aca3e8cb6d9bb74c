"""Pascal VOC XML: labelImg's of all ages, and what LabelMe, CVAT, Roboflow and Label Studio call so.

The tags are those of the VOC challenge; who leaves out, adds or reorders some is read all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lxml import etree

from odtrain.findings import Finding
from odtrain.labels.annotations import (
    Entry,
    LabelledImage,
    UnreadableError,
    WrittenObject,
    normalised,
)
from odtrain.labels.formats.reading import (
    NESTED,
    Corners,
    Reading,
    Sources,
    bounds,
    centre_of,
    entry_of_picture,
    flag,
    number,
    picture_name,
    printable,
    rotated_bounds,
    size_of,
)
from odtrain.labels.formats.xml_files import (
    child,
    children,
    local_name,
    may_be_cvat,
    misplaced,
    parent_of,
    parse_xml,
    rotation,
    text,
)
from odtrain_runtime.plain import plain

MAX_XML_BYTES = 10_000_000
"""labelImg writes about 300 bytes an object; nothing near this is a label file."""
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read(sources: Sources) -> Reading:
    """Every .xml file, read by tag name.

    Returns:
        The entries, with the objects that can be read, and OD003 to OD006 for what cannot.
    """
    reading = Reading()
    for file in sources.with_suffix(".xml"):
        try:
            if not sources.named and may_be_cvat(file):
                continue
            reading.files += 1
            root = parse_xml(file, MAX_XML_BYTES, reading)
            name = local_name(root)
            if name != "annotation":
                cause = f"begins with <{name}>, not with <annotation>."
                raise UnreadableError(Finding.of("OD004", file, cause))
            reading.entries.append(_entry(file, root, reading))
        except UnreadableError as error:
            reading.refuse(error)
    return reading


def _entry(file: Path, root: etree._Element, reading: Reading) -> Entry:
    size = _size(root)
    names = (file.stem, picture_name(text(root, "filename")).rpartition("/")[2])
    objects = []
    for position, element in enumerate(children(root, "object"), start=1):
        if flag(text(element, "deleted")):  # LabelMe's own XML keeps them
            reading.tally("deleted")
            continue
        try:
            objects.append(_object(file, position, element, reading))
        except UnreadableError as error:
            reading.spoil(file, error.finding.code, error.finding.cause)
    reading.unread(file, list(_unread(root)))
    for _ in _nested(root):
        reading.leave_out(NESTED)
    verified = flag(root.get("verified"))
    return entry_of_picture(file, names, size, objects, reading.left_out(), verified=verified)


def _nested(root: etree._Element) -> list[etree._Element]:
    """Objects that stand anywhere but in <annotation> itself."""
    return [element for element in root.iter("{*}object") if element.getparent() is not root]


def _unread(root: etree._Element) -> Iterator[str]:
    """What looks like an object or a box, where none is read; the box of a <part> is known."""
    for position, element in enumerate(children(root, "object"), start=1):
        for tag in ("bndbox", "name"):
            if len(list(children(element, tag))) > 1:
                said = normalised(text(element, "name"))
                yield f'object {position}, "{said}", has a second <{tag}>'
    for element in _nested(root):
        yield f'an object "{normalised(text(element, "name"))}" stands in {_within(root, element)}'
    for element in misplaced(root, ("bndbox",), ("object", "part")):
        yield f"a <bndbox> stands in {parent_of(element)}"


def _within(root: etree._Element, element: etree._Element) -> str:
    """The object of <annotation> that holds an element, else the tag that it stands in."""
    holders = set(element.iterancestors())
    for position, each in enumerate(children(root, "object"), start=1):
        if each in holders:
            return f'object {position}, "{normalised(text(each, "name"))}"'
    return parent_of(element)


def _size(root: etree._Element) -> tuple[int, int]:
    tags = [("size", "width", "height"), ("imagesize", "ncols", "nrows")]  # VOC's, LabelMe's own
    for tag, width, height in tags:
        element = child(root, tag)
        if element is not None and (size := size_of(text(element, width), text(element, height))):
            return size
    return 0, 0


def _object(file: Path, position: int, element: etree._Element, reading: Reading) -> WrittenObject:
    name = normalised(text(element, "name"))
    if not name:
        raise UnreadableError(Finding.of("OD006", file, f"object {position} has no <name>."))
    corners = _corners(file, f'object {position}, "{name}"', element, reading)
    flags = flag(text(element, "difficult")), flag(text(element, "truncated"))
    return WrittenObject(name, corners, *flags)


def _corners(file: Path, said: str, element: etree._Element, reading: Reading) -> Corners:
    box = child(element, "bndbox")
    if box is None:
        return _other_shape(file, said, element, reading)
    xmin, ymin, xmax, ymax = _values(file, said, box, SIDES)
    degrees = rotation(element)
    if not degrees:
        return xmin, ymin, xmax, ymax
    reading.tally("rotated")
    corners = xmin, ymin, xmax, ymax
    return rotated_bounds(corners, degrees, centre_of(corners))


def _values(file: Path, said: str, parent: etree._Element, tags: Sequence[str]) -> list[float]:
    values = []
    for tag in tags:
        value = number(text(parent, tag))
        if value is None:
            cause = f'{said}: <{tag}> is "{text(parent, tag)[:40]}", not a number.'
            raise UnreadableError(Finding.of("OD006", file, cause))
        values.append(value)
    return values


def _other_shape(file: Path, said: str, element: etree._Element, reading: Reading) -> Corners:
    """The bounds of LabelMe's <polygon>, or of roLabelImg's <robndbox>.

    Raises:
        UnreadableError: OD006: there is neither.
    """
    polygon, turned = child(element, "polygon"), child(element, "robndbox")
    if polygon is not None:
        points = [_values(file, said, point, ("x", "y")) for point in children(polygon, "pt")]
        if points:
            if text(element, "type") != "bounding_box":
                reading.tally("polygon")
            return bounds(points)
    if turned is not None:
        cx, cy, width, height, angle = _values(file, said, turned, ("cx", "cy", "w", "h", "angle"))
        reading.tally("rotated")
        corners = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
        return rotated_bounds(corners, math.degrees(angle), (cx, cy))
    raise UnreadableError(Finding.of("OD006", file, f"{said}, has no <bndbox>."))


def write(folder: Path, images: Sequence[LabelledImage], names: Sequence[Path]) -> None:
    """One file a picture below `folder`, as labelImg writes them.

    Args:
        folder: gets the folders of `names` too.
        images: to write.
        names: of the pictures, relative to the folder of pictures.
    """
    for image, name in zip(images, names, strict=True):
        file = folder / name.with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(as_xml(image, name))


def as_xml(image: LabelledImage, name: Path) -> bytes:
    """The file of one picture; `name` is the picture's, relative to the folder of pictures."""
    place = [printable(text) for text in (name.parent.name, name.name, str(name))]
    objects = [
        VocObject(item.name, image.corners(item, 2), item.truncated, item.difficult)
        for item in image.objects
    ]
    return annotation(place, (image.width, image.height), objects, image.verified)


NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters of names for which XML has no way to write them."""


class VocObject(NamedTuple):
    """An object as it is written: xmin, ymin, xmax, ymax in pixels."""

    name: str
    corners: Sequence[object]
    truncated: bool
    difficult: bool = False


def annotation(
    place: Sequence[str],
    size: tuple[int, int],
    objects: Iterable[VocObject],
    verified: bool = False,
) -> bytes:
    """The XML of one picture.

    Args:
        place: its folder's name, its own and its path.
        size: (width, height) in pixels.
        objects: in it.
        verified: somebody looked at the labels.
    """
    root = etree.Element("annotation")
    if verified:
        root.set("verified", "yes")
    _add_all(root, zip(("folder", "filename", "path"), place, strict=True))
    _add(_add(root, "source"), "database", "Unknown")
    _add_all(_add(root, "size"), zip(("width", "height", "depth"), (*size, 3), strict=True))
    _add(root, "segmented", "0")
    for item in objects:
        element = _add(root, "object")
        flags = ("truncated", int(item.truncated)), ("difficult", int(item.difficult))
        _add_all(element, (("name", item.name), ("pose", "Unspecified"), *flags))
        _add_all(_add(element, "bndbox"), zip(SIDES, item.corners, strict=True))
    etree.indent(root, "\t")
    return etree.tostring(root, encoding="utf-8", pretty_print=True)


def _add_all(parent: etree._Element, values: Iterable[tuple[str, object]]) -> None:
    for tag, value in values:
        _add(parent, tag, str(value))


def _add(parent: etree._Element, tag: str, value: str | None = None) -> etree._Element:
    element = etree.SubElement(parent, tag)
    element.text = value and NOT_IN_XML.sub(lambda found: plain(found[0]), value)
    return element
