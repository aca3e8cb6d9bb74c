"""`data.faulty=leave_out`: what cannot be used stays out, is listed, and the rest is trained on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from odtrain.findings import Finding
from odtrain.io.cells import write_rows
from odtrain.labels.annotations import Entry, LabelledImage
from odtrain.labels.formats.reading import UNUSABLE

LEFT_OUT_FILE = "left_out.csv"
"""In the folder of a prepared data set."""
OF_BOXES = ("OD006", "OD007", "OD008", "OD009", "OD032", "OD033")
OF_LABEL_FILES = ("OD003", "OD004", "OD005", "OD030", "OD031")
OF_PICTURES = ("OD010", "OD011", "OD014", "OD019")
LEAVABLE = (*OF_BOXES, *OF_LABEL_FILES, *OF_PICTURES, "OD012")
"""Errors about one box, label file or picture, without which the others can be used."""
MOST = 0.5
"""Share of the labelled pictures that may stay out."""
LEFT = "It is left out: data.faulty=leave_out."
REMEDY = "Look at what is wrong with them; what most have in common is seldom their own fault."
COLUMNS = ("code", "file", "box", "picture", "cause")


def without_faulty(
    images: Sequence[LabelledImage], entries: Mapping[Path, Entry], findings: Sequence[Finding]
) -> tuple[list[LabelledImage], list[Finding]]:
    """The pictures that can be used, and the findings: what is left out is no error any more.

    Args:
        images: with the boxes that can be used.
        entries: what label files say of each picture.
        findings: about them.
    """
    unsure = {Path(finding.file) for finding in findings if finding.code == "OD014"}
    spoilt = [image for image in images if image.image in unsure or _lost_all(image, entries)]
    out = {image.image for image in spoilt}
    kept = [image for image in images if image.image not in out]
    # A file about many pictures hides how many would stay out.
    shared = any(entry.shared for entry in entries.values())
    leavable = [code for code in LEAVABLE if not (shared and code in OF_LABEL_FILES)]
    told = [
        replace(each, severity="warning", remedy=LEFT) if each.code in leavable else each
        for each in findings
    ]
    of_files = {each.file for each in findings if each.code in OF_LABEL_FILES}
    labelled = len(entries) + len(of_files)
    return kept, [*told, *_about_pictures(spoilt, unsure), *_about_most(len(kept), labelled)]


def _lost_all(image: LabelledImage, entries: Mapping[Path, Entry]) -> bool:
    """Whether a picture was labelled with boxes, and none can be used: it is no background."""
    entry = entries[image.image]
    return not image.objects and bool(entry.objects or UNUSABLE in entry.left_out)


def _about_pictures(images: Sequence[LabelledImage], told: set[Path]) -> Iterator[Finding]:
    for image in images:
        if image.image not in told:
            cause = "none of its boxes can be used, so that it is left out too."
            yield Finding.of("OD136", image.image, cause, picture=image.image)


def _about_most(kept: int, labelled: int) -> Iterator[Finding]:
    if labelled - kept > MOST * labelled:
        cause = (
            f"{labelled - kept:,} of {labelled:,} labelled pictures would be left out as faulty."
        )
        yield Finding.of("OD035", "data.faulty=leave_out", cause, remedy=REMEDY)


def left_out_table(findings: Sequence[Finding]) -> str:
    """What was left out as CSV, with a first line of names; empty where nothing was."""
    rows = [
        [each.code, each.file, each.box or "", each.picture or "", each.cause]
        for each in findings
        if each.remedy == LEFT or each.code == "OD136"
    ]
    stream = io.StringIO()
    write_rows(stream, [COLUMNS, *rows] if rows else [])
    return stream.getvalue()
