"""XML label files, parsed without entities, DTD or network, and read by tag name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html.entities import html5
from pathlib import Path

from lxml import etree

from odtrain.errors import unless_memory
from odtrain.findings import Finding
from odtrain.io.remote.files import local
from odtrain.labels.annotations import UnreadableError
from odtrain.labels.formats.reading import Reading, decode, number

EXTERNAL_DTD = re.compile(rb"<!DOCTYPE[^>\[]{0,1000}\s(SYSTEM|PUBLIC)\s")
DECLARATION = re.compile(r"\A\s*<\?xml\s[^>]{0,200}\?>")
AMPERSAND = re.compile(r"&(?!#\d+;|#x[0-9a-fA-F]+;|(?:amp|lt|gt|quot|apos);)(?P<name>\w{1,40};)?")
AGAIN = "Save it again in labelImg, or delete it."
ErrorTypes = etree.ErrorTypes
AMPERSAND_ERRORS = (
    ErrorTypes.ERR_ENTITYREF_SEMICOL_MISSING,
    ErrorTypes.ERR_UNDECLARED_ENTITY,
    ErrorTypes.ERR_NAME_REQUIRED,
)
PROBLEMS = {
    ErrorTypes.ERR_DOCUMENT_EMPTY: "no tag begins there",
    ErrorTypes.ERR_DOCUMENT_START: "no tag begins there",
    ErrorTypes.ERR_DOCUMENT_END: "there is more behind the last tag",
    ErrorTypes.ERR_TAG_NAME_MISMATCH: "another tag is closed than the one that was opened last",
    ErrorTypes.ERR_TAG_NOT_FINISHED: "it ends before its tags are closed",
    ErrorTypes.ERR_GT_REQUIRED: "a tag lacks its >",
    ErrorTypes.ERR_LT_REQUIRED: "a tag lacks its <",
    ErrorTypes.ERR_LTSLASH_REQUIRED: "it ends before its tags are closed",
    ErrorTypes.ERR_INVALID_CHAR: "a character is not allowed there",
    ErrorTypes.ERR_NAME_REQUIRED: "a tag has no name",
    ErrorTypes.ERR_ATTRIBUTE_REDEFINED: "an attribute is there twice",
    ErrorTypes.ERR_NS_DECL_ERROR: "a prefix is not declared",
}
"""What the parser found -> how people say it."""


def may_be_cvat(file: Path) -> bool:
    """Whether the beginning of a file shows CVAT's <annotations> instead of VOC's <annotation>."""
    try:
        with local(file, as_held=True).open("rb") as stream:
            return b"<annotations" in stream.read(4096)
    except OSError:
        return False


def parse_xml(file: Path, max_bytes: int, reading: Reading, again: str = AGAIN) -> etree._Element:
    """The root element of a label file.

    Args:
        file: to read.
        max_bytes: it may have.
        reading: is told what was put right meanwhile.
        again: what to do about a file that is not XML.

    Raises:
        UnreadableError: OD003 to OD005.
    """
    try:
        with local(file, as_held=True).open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except OSError as error:
        raise UnreadableError(
            Finding.of(
                "OD003", file, f"cannot be read: {unless_memory(error).strerror}.", remedy=again
            )
        ) from None
    if len(data) > max_bytes:
        cause = f"is larger than {max_bytes // 1_000_000} MB."
        raise UnreadableError(Finding.of("OD004", file, cause))
    root = _parsed(file, data, reading, again)
    if any(True for _ in root.iter(etree.Entity)):
        raise UnreadableError(Finding.of("OD005", file, "uses XML entities."))
    return root


def _refuse_declarations(file: Path, data: bytes) -> None:
    if b"<!ENTITY" in data:
        raise UnreadableError(Finding.of("OD005", file, "declares XML entities."))
    if EXTERNAL_DTD.search(data):
        raise UnreadableError(Finding.of("OD005", file, "refers to a DTD that lies elsewhere."))


def _parsed(file: Path, data: bytes, reading: Reading, again: str) -> etree._Element:
    """The root, also of a file whose encoding is not what it says, or that begins with blanks."""
    _refuse_declarations(file, data)
    with suppress(etree.XMLSyntaxError, LookupError):
        return etree.fromstring(data, _parser())
    text, encoding = decode(data)
    body = DECLARATION.sub(lambda found: re.sub(r"\S", " ", found[0]), text)
    as_utf8 = body.encode("utf-8", "replace")
    _refuse_declarations(file, as_utf8)
    try:
        root = etree.fromstring(as_utf8, _parser("utf-8"))
    except etree.XMLSyntaxError as error:
        if getattr(error, "code", 0) == ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from error
        cause, remedy = _about_text(body, error)
        raise UnreadableError(Finding.of("OD003", file, cause, remedy=remedy or again)) from None
    reading.tally(encoding)
    return root


def _about_text(text: str, error: etree.XMLSyntaxError) -> tuple[str, str | None]:
    """What is wrong with a text that is not XML, and what to do where that is known."""
    if not text.strip():
        return "is not XML: it is empty.", None
    line, column = error.position or (1, 1)
    code: int = getattr(error, "code", 0)
    if code not in AMPERSAND_ERRORS or (found := AMPERSAND.search(text)) is None:
        said = PROBLEMS.get(code, "what stands there is no XML")
        return f"is not XML: line {line}, column {column}: {said}.", None
    line = text.count("\n", 0, found.start()) + 1
    place = f"line {line}, column {found.start() - text.rfind(chr(10), 0, found.start())}"
    name = found["name"]
    if name in html5:
        written = "".join(f"&#{ord(sign)};" for sign in html5[name])
        return f"is not XML: {place}: &{name} is HTML's.", f"Write {written} instead."
    said = f"&{name} stands for nothing" if name else "a & stands alone"
    return f"is not XML: {place}: {said}.", "Write &amp; for a & that is meant as such."


def _parser(encoding: str | None = None) -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        huge_tree=False,
        encoding=encoding,
    )


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
    if not len(element):  # nearly every one
        return (element.text or "").strip()
    return "".join(str(part) for part in element.itertext()).strip()


def rotation(parent: etree._Element) -> float:
    """Degrees in CVAT's attribute `rotation`, clockwise; 0 where there is none."""
    for attributes in children(parent, "attributes"):
        for attribute in children(attributes, "attribute"):
            if text(attribute, "name") == "rotation":
                return number(text(attribute, "value")) or 0.0
    return 0.0
