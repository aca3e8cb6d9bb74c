"""The tutorial's CSV: a row an object, as xml_to_csv.py writes it; an empty class is background."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from odtrain.findings import Finding
from odtrain.io.cells import cell, text_in
from odtrain.labels.annotations import LabelledImage, UnreadableError, WrittenObject
from odtrain.labels.formats.reading import (
    Reading,
    Sources,
    class_name,
    decode,
    entry_of_picture,
    number,
    picture_name,
    read_bytes,
    size_of,
)

HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
"""That of the tutorial's xml_to_csv.py."""
NEEDED = {"filename", "class", "xmin", "ymin", "xmax", "ymax"}


def read(sources: Sources) -> Reading:
    """Every .csv file whose first line names the tutorial's columns, in any order."""
    reading = Reading()
    misfits: list[Path] = []
    for file in sources.with_suffix(".csv"):
        try:
            rows = _rows(file)
        except UnreadableError as error:
            reading.refuse(error)
            continue
        if rows is not None:
            reading.files += 1
            _read_rows(file, rows, reading)
        else:
            misfits.append(file)
    for file in misfits if sources.named and not reading.files else []:
        reading.fault(file, "OD031", f"its first line is not {','.join(HEADER)}.")
    return reading


def _rows(file: Path) -> list[tuple[int, dict[str, str]]] | None:
    """Line number and cells of each row; None if the file is another kind of table.

    Raises:
        UnreadableError: OD030.
    """
    lines = decode(read_bytes(file))[0].splitlines()
    try:
        rows = csv.reader(lines)
        header = [name.strip().lower() for name in next(rows, [])]
        if not NEEDED <= set(header):
            return None
        return [
            (rows.line_num, dict(zip(header, map(text_in, row), strict=False)))
            for row in rows
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise UnreadableError(Finding.of("OD030", file, f"is not CSV: {error}.")) from None


def _read_rows(file: Path, rows: list[tuple[int, dict[str, str]]], reading: Reading) -> None:
    """Add the entries, in the order of the pictures' names."""

    def name_in(row: tuple[int, dict[str, str]]) -> str:
        return picture_name(row[1]["filename"])

    for name, of_picture in groupby(sorted(rows, key=name_in), name_in):
        objects: list[WrittenObject] = []
        size = None
        for line, cells in of_picture:
            size = size or size_of(cells.get("width"), cells.get("height"))
            item = _object(file, line, cells, reading)
            objects += [item] if item else []
        if name:
            reading.entries.append(entry_of_picture(file, [name], size, objects, shared=True))
        else:
            reading.fault(file, "OD032", "a row has no filename.")


def _object(file: Path, line: int, cells: dict[str, str], reading: Reading) -> WrittenObject | None:
    name = class_name(cells.get("class", ""))
    corners = [cells.get(side, "").strip() for side in HEADER[4:]]
    if not name and not any(corners):
        return None
    values = [value for value in map(number, corners) if value is not None]
    if not name or len(values) < 4:
        lacks = "has no class" if not name else f'"{name}", lacks a number in xmin to ymax'
        reading.fault(file, "OD032", f"line {line} {lacks}.")
        return None
    return WrittenObject(name, (values[0], values[1], values[2], values[3]))


def write(file: Path, images: Sequence[LabelledImage], names: Sequence[Path]) -> None:
    """One row per box, in pixels; an image without boxes is a row with empty class and box."""
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADER)
        for image, name in zip(images, names, strict=True):
            start = [cell(name.as_posix()), image.width, image.height]
            boxes = [[cell(item.name), *image.corners(item)] for item in image.objects]
            writer.writerows([*start, *cells] for cells in boxes or [[""] * 5])
