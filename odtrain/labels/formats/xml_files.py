"""XML label files, parsed without entities, DTD or network, and read by tag name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lxml import etree

from odtrain.findings import Finding
from odtrain.labels.annotations import UnreadableError
from odtrain.labels.formats.reading import number

EXTERNAL_DTD = re.compile(rb"<!DOCTYPE[^>\[]{0,1000}\s(SYSTEM|PUBLIC)\s")


def may_be_cvat(file: Path) -> bool:
    """Whether the beginning of a file shows CVAT's <annotations> instead of VOC's <annotation>."""
    try:
        with file.open("rb") as stream:
            return b"<annotations" in stream.read(4096)
    except OSError:
        return False


def parse_xml(file: Path, max_bytes: int) -> etree._Element:
    """The root element of a label file.

    Raises:
        UnreadableError: OD003 to OD005.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise UnreadableError(
            Finding.of("OD003", file, f"cannot be read: {error.strerror}.")
        ) from None
    if len(data) > max_bytes:
        cause = f"is larger than {max_bytes // 1_000_000} MB."
        raise UnreadableError(Finding.of("OD004", file, cause))
    if b"<!ENTITY" in data:
        raise UnreadableError(Finding.of("OD005", file, "declares XML entities."))
    if EXTERNAL_DTD.search(data):
        raise UnreadableError(Finding.of("OD005", file, "refers to a DTD that lies elsewhere."))
    root = _parsed(file, data)
    if any(True for _ in root.iter(etree.Entity)):
        raise UnreadableError(Finding.of("OD005", file, "uses XML entities."))
    return root


def _parsed(file: Path, data: bytes) -> etree._Element:
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
        raise UnreadableError(Finding.of("OD003", file, f"is not XML: {text}.")) from None


def local_name(element: etree._Element) -> str:
    """The tag without its namespace."""
    return str(element.tag).rpartition("}")[2]


def children(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    """The direct children called `tag` in any namespace: a VOC <part> has a <bndbox> too."""
    return parent.iterchildren(f"{{*}}{tag}")


def child(parent: etree._Element, tag: str) -> etree._Element | None:
    """The first child called `tag`."""
    return next(children(parent, tag), None)


def misplaced(
    root: etree._Element, tags: Sequence[str], parents: Sequence[str]
) -> Iterator[etree._Element]:
    """The elements of one of `tags`, in any namespace, that stand in none of `parents`."""
    for element in root.iter(*(f"{{*}}{tag}" for tag in tags)):
        parent = element.getparent()
        if parent is not None and local_name(parent) not in parents:
            yield element


def parent_of(element: etree._Element) -> str:
    """The tag that an element stands in, as people write it."""
    parent = element.getparent()
    return "nothing" if parent is None else f"<{local_name(parent)}>"


def text(parent: etree._Element, tag: str) -> str:
    """The text of the first child called `tag`; empty where there is none."""
    element = child(parent, tag)
    return "" if element is None else own_text(element)


def own_text(element: etree._Element) -> str:
    """All text in an element."""
    return "".join(str(part) for part in element.itertext()).strip()


def rotation(parent: etree._Element) -> float:
    """Degrees in CVAT's attribute `rotation`, clockwise; 0 where there is none."""
    for attributes in children(parent, "attributes"):
        for attribute in children(attributes, "attribute"):
            if text(attribute, "name") == "rotation":
                return number(text(attribute, "value")) or 0.0
    return 0.0
