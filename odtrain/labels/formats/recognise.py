"""Label files of every tool, read by format; `data.format=auto` finds out which it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from odtrain.findings import Finding
from odtrain.labels.annotations import Entry, UnreadableError
from odtrain.labels.formats import (
    coco,
    createml,
    csv_table,
    cvat,
    label_studio,
    labelme,
    tfrecords,
    voc,
    yolo,
)
from odtrain.labels.formats.documents import DocumentFormat, misfit, read_documents
from odtrain.labels.formats.reading import Reading, Sources

__all__ = ["FORMATS", "Labels", "Reading", "Sources", "read_labels", "why_none"]


READ = (
    "Name a file or a folder of them that is .xml, .txt, .json, .csv or .record and of a format in "
    "docs/formats.md."
)


class Labels(NamedTuple):
    """The labels of a data set.

    Attributes:
        format: a row of `FORMATS`; empty where there are no label files.
        entries: one for each picture that a file tells of.
    """

    format: str
    entries: list[Entry]


def read_labels(sources: Sources, root: Path, name: str) -> tuple[Labels, list[Finding]]:
    """Read the label files as the format `name`, or as what they are if that is `auto`.

    Args:
        sources: what may be read.
        root: where they lie, for findings.
        name: a row of `FORMATS`, or `auto`.
    """
    readings = _read_all(sources) if name == "auto" else {name: _read_one(sources, name)}
    used = {name: reading for name, reading in readings.items() if reading.files}
    broken = {name: reading for name, reading in readings.items() if reading.findings}
    if not used and not broken:
        return Labels("", []), []
    chosen = max(used or broken, key=lambda name: len(readings[name].entries))
    reading = readings[chosen]
    about_choice = _about_the_choice(root, chosen, used) if name == "auto" else []
    return Labels(chosen, reading.entries), [*reading.concluded(root), *about_choice]


def why_none(file: Path) -> Finding:
    """Why a file that the user has named holds no labels: OD031, or OD030 where it cannot be read."""
    suffix = file.suffix.lower()
    try:
        if suffix == ".csv":
            cause = csv_table.misfit(file)
        elif suffix == ".json":
            cause = misfit(file, DOCUMENTS)
        elif suffix == ".txt":
            cause = "has lines that are not class cx cy width height, all numbers."
        else:
            cause = f"is no label file: {suffix or 'a name without suffix'} is not read."
    except UnreadableError as error:
        return error.finding
    return Finding.of("OD031", file, cause, remedy=READ)


def _read_one(sources: Sources, name: str) -> Reading:
    if name in DOCUMENTS:
        return read_documents(sources, {name: DOCUMENTS[name]})[name]
    return READERS[name](sources)


def _read_all(sources: Sources) -> dict[str, Reading]:
    """By every reader, in the order of `FORMATS`; records only where there is nothing else."""
    if sources.unpacked:
        return {"tfrecord": READERS["tfrecord"](sources)}
    readings = {
        **{name: read(sources) for name, read in READERS.items() if name != "tfrecord"},
        **read_documents(sources, DOCUMENTS),
    }
    if not any(reading.files for reading in readings.values()):
        readings["tfrecord"] = READERS["tfrecord"](sources)
    return {name: readings[name] for name in FORMATS if name in readings}


def _about_the_choice(root: Path, chosen: str, used: dict[str, Reading]) -> list[Finding]:
    """OD230, and OD130 where another format was there too; of plain VOC, the default, nothing."""
    findings = []
    if chosen != "voc" and chosen in used:
        cause = f"labels are read as {FORMATS[chosen]}: {_counted(used[chosen])}."
        findings.append(Finding.of("OD230", root, cause))
    for name, reading in used.items():
        if name != chosen:
            cause = (
                f"holds labels as {FORMATS[name]} too ({_counted(reading)}); taken are those as "
                f"{FORMATS[chosen]} ({_counted(used[chosen])})."
            )
            remedy = f"Set data.format={name} to take the others, or data.format={chosen}."
            findings.append(Finding.of("OD130", root, cause, remedy=remedy))
    return findings


def _counted(reading: Reading) -> str:
    files, pictures = reading.files, len(reading.entries)
    of_pictures = f"{pictures:,} picture{'s' if pictures != 1 else ''}"
    return f"{files:,} file{'s' if files != 1 else ''} about {of_pictures}"


READERS: dict[str, Callable[[Sources], Reading]] = {
    "voc": voc.read,
    "cvat": cvat.read,
    "yolo": yolo.read,
    "csv": csv_table.read,
    "tfrecord": tfrecords.read,
}
DOCUMENTS: dict[str, DocumentFormat] = {
    "coco": coco.FORMAT,
    "labelme": labelme.FORMAT,
    "createml": createml.FORMAT,
    "label_studio": label_studio.FORMAT,
}
FORMATS = {
    "voc": "Pascal VOC XML",
    "yolo": "YOLO text",
    "coco": "COCO JSON",
    "createml": "CreateML JSON",
    "labelme": "LabelMe JSON",
    "label_studio": "Label Studio JSON",
    "cvat": "CVAT XML",
    "csv": "CSV with the tutorial's columns",
    "tfrecord": "TFRecord",
}
"""The names that `data.format` takes, and what people call them; of equally many, the first is taken."""
