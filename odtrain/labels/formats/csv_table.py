"""The tutorial's CSV: a row an object, as xml_to_csv.py writes it; an empty class is background."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from odtrain.findings import Finding
from odtrain.io.cells import text_in, write_rows
from odtrain.labels.annotations import LabelledImage, UnreadableError, WrittenObject
from odtrain.labels.formats.reading import (
    Reading,
    Sources,
    class_name,
    decode,
    entry_of_picture,
    number,
    picture_name,
    printable,
    read_bytes,
    size_of,
)

HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
"""That of the tutorial's xml_to_csv.py."""
NEEDED = {"filename", "class", "xmin", "ymin", "xmax", "ymax"}
DELIMITERS = (",", ";", "\t")
"""Excel writes semicolons where numbers have commas, as in most of Europe."""
SHOWN_COLUMNS = 12


class Table(NamedTuple):
    """The rows of a table of labels.

    Attributes:
        columns: how many the first line names.
        rows: line number, how many cells, and cells by their column, of each.
        delimiter: between cells.
    """

    columns: int
    rows: list[tuple[int, int, dict[str, str]]]
    delimiter: str


def read(sources: Sources) -> Reading:
    """Every .csv file whose first line names the tutorial's columns, in any order."""
    reading = Reading()
    misfits: list[Path] = []
    for file in sources.with_suffix(".csv"):
        try:
            table = _table(file)
        except UnreadableError as error:
            reading.refuse(error)
            continue
        if table is not None:
            reading.files += 1
            _read_rows(file, table, reading)
        else:
            misfits.append(file)
    for file in misfits if sources.named and not reading.files else []:
        reading.fault(file, "OD031", misfit(file))
    return reading


def misfit(file: Path) -> str:
    """Why a file is no table of labels: the columns that it has, and those that are looked for.

    Raises:
        UnreadableError: OD030.
    """
    lines = decode(read_bytes(file))[0].splitlines()
    words = re.split(r"[,;\t]", lines[0][:1000])[:SHOWN_COLUMNS] if lines else []
    found = ", ".join(printable(word).strip()[:40] or '""' for word in words) or "nothing"
    return f"its first line is {found}; needed are the columns {', '.join(sorted(NEEDED))}."


def _table(file: Path) -> Table | None:
    """The rows; None if the file is another kind of table.

    Raises:
        UnreadableError: OD030.
    """
    lines = decode(read_bytes(file))[0].splitlines()
    try:
        for delimiter in DELIMITERS:
            rows = csv.reader(lines, delimiter=delimiter)
            header = [name.strip().lower() for name in next(rows, [])]
            if set(header) >= NEEDED:
                return Table(len(header), list(_cells(header, rows)), delimiter)
        return None
    except csv.Error as error:
        raise UnreadableError(Finding.of("OD030", file, f"is not CSV: {error}.")) from None


def _cells(header: Sequence[str], rows: Any) -> Iterator[tuple[int, int, dict[str, str]]]:
    for row in rows:
        if any(cell.strip() for cell in row):
            length = len(row) - next(i for i, cell in enumerate(reversed(row)) if cell.strip())
            yield rows.line_num, length, dict(zip(header, map(text_in, row), strict=False))


def _read_rows(file: Path, table: Table, reading: Reading) -> None:
    """Add the entries, in the order of the pictures' names."""

    def name_in(row: tuple[int, int, dict[str, str]]) -> str:
        return picture_name(row[2]["filename"])

    whole = []
    for row in table.rows:
        if row[1] <= table.columns:
            whole.append(row)
        else:
            cause = f"line {row[0]} has {row[1]} cells, the first line {table.columns}."
            remedy = f'Put quotes, ", around what has "{table.delimiter}" in it.'
            reading.fault(file, "OD032", cause, remedy)
    for name, of_picture in groupby(sorted(whole, key=name_in), name_in):
        objects: list[WrittenObject] = []
        size = None
        for line, _, cells in of_picture:
            size = size or size_of(cells.get("width"), cells.get("height"))
            item = _object(file, line, cells, table.delimiter, reading)
            objects += [item] if item else []
        left_out = reading.left_out()
        if name:
            entry = entry_of_picture(file, [name], size, objects, left_out, shared=True)
            reading.entries.append(entry)
        else:
            reading.fault(file, "OD032", "a row has no filename.")


def _object(
    file: Path, line: int, cells: dict[str, str], delimiter: str, reading: Reading
) -> WrittenObject | None:
    name = class_name(cells.get("class", ""))
    corners = [cells.get(side, "").strip() for side in HEADER[4:]]
    if not name and not any(corners):
        return None
    points = [side if delimiter == "," else side.replace(",", ".") for side in corners]
    values = [value for value in map(number, points) if value is not None]
    if not name or len(values) < 4:
        lacks = "has no class" if not name else f'"{name}", lacks a number in xmin to ymax'
        reading.spoil(file, "OD032", f"line {line} {lacks}.")
        return None
    sides = values[0], values[1], values[2], values[3]
    return WrittenObject(name, sides, at=f"line {line}")


def write(file: Path, images: Sequence[LabelledImage], names: Sequence[Path]) -> None:
    """One row per box, in pixels; an image without boxes is a row with empty class and box."""
    with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        write_rows(stream, [HEADER])
        for image, name in zip(images, names, strict=True):
            start = [name.as_posix(), image.width, image.height]
            boxes = [[item.name, *image.corners(item)] for item in image.objects]
            write_rows(stream, ([*start, *cells] for cells in boxes or [[""] * 5]))
