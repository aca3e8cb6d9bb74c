"""Label files as people's tools write them -> labelled pictures in the program's own conventions.

A reader per format, in `READERS`, turns files into `Entry`s: what the file says, in its own words.
`place` then checks an entry against the picture it belongs to.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from lxml import etree

from odtrain.findings import Finding, found

MAX_XML_BYTES = 10_000_000
"""labelImg writes about 300 bytes an object; nothing near this is a label file."""
EXTERNAL_DTD = re.compile(rb"<!DOCTYPE[^>\[]*\s(SYSTEM|PUBLIC)\s")
TOLERANCE = 1.0
"""Pixels by which a box may leave the picture and still be clipped: what rounding does."""


@dataclass(frozen=True)
class LabelledObject:
    """One object in a picture.

    Attributes:
        name: of its class.
        yxyx: ymin, xmin, ymax, xmax as fractions 0-1 of the picture.
        difficult: as the label file says.
        truncated: as the label file says.
    """

    name: str
    yxyx: tuple[float, float, float, float]
    difficult: bool
    truncated: bool


@dataclass(frozen=True)
class LabelledImage:
    """A picture and the objects in it; without objects it is background.

    Attributes:
        image: the picture file.
        label_file: what the objects were read from.
        height: in pixels, after `orientation` was applied.
        width: in pixels, after `orientation` was applied.
        objects: in the order of the label file.
        orientation: the EXIF orientation to apply to the picture so that the boxes fit, 1 = none.
    """

    image: Path
    label_file: Path | None
    height: int
    width: int
    objects: tuple[LabelledObject, ...]
    orientation: int = 1

    def corners(self, item: LabelledObject) -> tuple[str, str, str, str]:
        """The box of `item` as xmin, ymin, xmax, ymax in pixels, in the fewest digits."""
        ymin, xmin, ymax, xmax = item.yxyx
        pixels = (xmin * self.width, ymin * self.height, xmax * self.width, ymax * self.height)
        first, second, third, fourth = (f"{v:.4f}".rstrip("0").rstrip(".") for v in pixels)
        return first, second, third, fourth

    def describe(self, item: LabelledObject) -> str:
        """Class and box of `item`, for a finding."""
        return f"{item.name} {','.join(self.corners(item))}"


@dataclass(frozen=True)
class WrittenObject:
    """An object as a label file gives it.

    Attributes:
        name: of its class, whitespace normalised.
        xyxy: xmin, ymin, xmax, ymax in pixels, kept as written: labelImg's are 0-based edges, of
            which it raises a minimum of 0 to 1, so that 1 must not be subtracted.
        difficult: as written.
        truncated: as written.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    difficult: bool
    truncated: bool

    def describe(self) -> str:
        """Class and box, for a finding."""
        return f"{self.name} {','.join(f'{value:g}' for value in self.xyxy)}"


@dataclass(frozen=True)
class Entry:
    """What a label file says about one picture.

    Attributes:
        label_file: the file.
        names: of the picture, the most trustworthy first, with or without suffix.
        size: (width, height) of the picture in pixels, None where the file gives none.
        objects: as written.
    """

    label_file: Path
    names: tuple[str, ...]
    size: tuple[int, int] | None
    objects: tuple[WrittenObject, ...]


Reader = Callable[[Iterable[Path]], tuple[list[Entry], list[Finding]]]
"""Reads those files that are of its format, and says what is wrong with them."""


class UnreadableError(Exception):
    """A label file or object that cannot be used; carries the finding that says why."""

    def __init__(self, finding: Finding) -> None:
        """Carry `finding`."""
        super().__init__(str(finding))
        self.finding = finding


def normalised(name: str) -> str:
    """A file or class name in one spelling.

    labelImg turns two spaces into a tab; macOS composes accents differently from everyone else.
    """
    return unicodedata.normalize("NFC", " ".join(name.split()))


def read_voc(files: Iterable[Path]) -> tuple[list[Entry], list[Finding]]:
    """Every .xml file as Pascal VOC, read by tag name.

    Returns:
        The entries, with the objects that can be read, and OD003 to OD006 for what cannot.
    """
    entries: list[Entry] = []
    findings: list[Finding] = []
    for file in files:
        if file.suffix.lower() != ".xml":
            continue
        try:
            entries.append(_voc_entry(file, _voc_root(file), findings))
        except UnreadableError as error:
            findings.append(error.finding)
    return entries, findings


def _voc_root(file: Path) -> etree._Element:
    """The <annotation> of a label file, parsed without entities, DTD or network.

    Raises:
        UnreadableError: OD003 to OD005.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UnreadableError(found("OD003", file, f"cannot be read: {error.strerror}.")) from None
    if len(data) > MAX_XML_BYTES:
        raise UnreadableError(found("OD004", file, f"is {len(data) // 1_000_000} MB large."))
    if b"<!ENTITY" in data:
        raise UnreadableError(found("OD005", file, "declares XML entities."))
    if EXTERNAL_DTD.search(data):
        raise UnreadableError(found("OD005", file, "refers to a DTD that lies elsewhere."))
    root = _parse_xml(file, data)
    if any(True for _ in root.iter(etree.Entity)):
        raise UnreadableError(found("OD005", file, "uses XML entities."))
    if _local_name(root) != "annotation":
        cause = f"begins with <{_local_name(root)}>, not with <annotation>."
        raise UnreadableError(found("OD004", file, cause))
    return root


def _parse_xml(file: Path, data: bytes) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        huge_tree=False,
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        text = "it is empty" if not data.strip() else str(error.msg).rstrip(".")
        raise UnreadableError(found("OD003", file, f"is not XML: {text}.")) from None


def _voc_entry(file: Path, root: etree._Element, findings: list[Finding]) -> Entry:
    objects = []
    for number, element in enumerate(_children(root, "object"), start=1):
        try:
            objects.append(_voc_object(file, number, element))
        except UnreadableError as error:
            findings.append(error.finding)
    written = PureWindowsPath(_text(root, "filename")).name  # takes \ and / as separators
    names = (file.stem, written) if written else (file.stem,)
    return Entry(file, names, _voc_size(root), tuple(objects))


def _voc_size(root: etree._Element) -> tuple[int, int] | None:
    for size in _children(root, "size"):
        width, height = _number_in(_text(size, "width")), _number_in(_text(size, "height"))
        if width and height and width > 0 and height > 0:
            return round(width), round(height)
    return None


def _voc_object(file: Path, number: int, element: etree._Element) -> WrittenObject:
    name = normalised(_text(element, "name"))
    if not name:
        raise UnreadableError(found("OD006", file, f"object {number} has no <name>."))
    box = next(_children(element, "bndbox"), None)
    if box is None:
        cause = f'object {number}, "{name}", has no <bndbox>.'
        raise UnreadableError(found("OD006", file, cause))
    corners = {tag: _number_in(_text(box, tag)) for tag in ("xmin", "ymin", "xmax", "ymax")}
    for tag, value in corners.items():
        if value is None:
            cause = f'object {number}, "{name}": <{tag}> is "{_text(box, tag)}", not a number.'
            raise UnreadableError(found("OD006", file, cause))
    xmin, ymin, xmax, ymax = (float(value) for value in corners.values() if value is not None)
    return WrittenObject(
        name, (xmin, ymin, xmax, ymax), _flag(element, "difficult"), _flag(element, "truncated")
    )


def _local_name(element: etree._Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    """The direct children called `tag` in any namespace: a VOC <part> has a <bndbox> too."""
    for child in parent.iterchildren(tag=etree.Element):
        if _local_name(child) == tag:
            yield child


def _text(parent: etree._Element, tag: str) -> str:
    """The text of the first child called `tag`; empty where there is none."""
    child = next(_children(parent, tag), None)
    return "" if child is None else "".join(str(part) for part in child.itertext()).strip()


def _number_in(written: str) -> float | None:
    try:
        value = float(written)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _flag(element: etree._Element, tag: str) -> bool:
    return _text(element, tag).lower() in ("1", "true", "yes")


def place(
    entry: Entry, width: int, height: int
) -> tuple[tuple[LabelledObject, ...], list[Finding]]:
    """The objects of `entry` as fractions of a picture of `width` x `height` pixels.

    Returns:
        Those whose box is good, and a finding for each that was left out (OD008, OD009), clipped
        (OD104) or doubled (OD107).
    """
    findings: list[Finding] = []
    objects: dict[LabelledObject, None] = {}
    for written in entry.objects:
        placed = _place_object(entry.label_file, written, width, height, findings)
        if placed is None:
            continue
        if placed in objects:
            findings.append(
                found("OD107", entry.label_file, "is there twice.", box=written.describe())
            )
        objects[placed] = None
    return tuple(objects), findings


def _place_object(
    file: Path, written: WrittenObject, width: int, height: int, findings: list[Finding]
) -> LabelledObject | None:
    xmin, ymin, xmax, ymax = written.xyxy
    if xmin >= xmax or ymin >= ymax:
        cause = f"x {xmin:g} to {xmax:g}, y {ymin:g} to {ymax:g} has no area."
        findings.append(found("OD009", file, cause, box=written.describe()))
        return None
    outside = max(-xmin, -ymin, xmax - width, ymax - height)
    inside = xmin < width and ymin < height and xmax > 0 and ymax > 0
    if outside > TOLERANCE or not inside:
        cause = f"leaves the picture, which is {width} wide and {height} high."
        findings.append(found("OD008", file, cause, box=written.describe()))
        return None
    if outside > 0:
        cause = f"leaves the picture by {outside:g} pixels."
        findings.append(found("OD104", file, cause, box=written.describe()))
    yxyx = (
        max(ymin, 0.0) / height,
        max(xmin, 0.0) / width,
        min(ymax, float(height)) / height,
        min(xmax, float(width)) / width,
    )
    return LabelledObject(written.name, yxyx, written.difficult, written.truncated)


READERS: dict[str, Reader] = {
    "voc": read_voc,
}
