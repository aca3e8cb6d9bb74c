"""What a folder of collected pictures holds and where each came from: `manifest.csv`, only ever added to."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from odtrain.errors import DataError
from odtrain.io.cells import text_in, write_rows

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class ManifestRow:
    """One picture that was collected, or set aside.

    Attributes:
        file: its name in the folder, or its path from there if it was set aside.
        source: a path, `ARCHIVE!MEMBER`, `VIDEO#frame=N` or a URL.
        collected: when, UTC, ISO 8601.
        taken: EXIF's time of the exposure; empty where there is none.
        width: in pixels.
        height: in pixels.
        bytes: of the file as it is kept.
        sha256: of the file as it is kept.
        source_bytes: as it was found.
        source_sha256: as it was found.
        changes: what was done to it; empty where its bytes are the source's.
        duplicate_of: the picture that it was set aside for; empty where it was not.
        differing_bits: of the two difference hashes; empty where it was not set aside.
        likeness: its difference hash.
    """

    file: str
    source: str
    collected: str
    taken: str
    width: int
    height: int
    bytes: int
    sha256: str
    source_bytes: int
    source_sha256: str
    changes: str
    duplicate_of: str
    differing_bits: str
    likeness: str


NAMES = [field.name for field in fields(ManifestRow)]
NUMBERS = ("width", "height", "bytes", "source_bytes")


def read_manifest(folder: Path) -> list[ManifestRow]:
    """The rows of `folder`'s manifest, without a last one that a kill cut off; it is cut off the file.

    Raises:
        DataError: there is a file of that name that odtrain did not write.
    """
    file = folder / MANIFEST
    if not file.is_file():
        return []
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(file, len(whole))
    text = whole.decode("utf-8", "surrogateescape")
    try:
        return list(_rows(file, text))
    except (ValueError, TypeError, KeyError, csv.Error):
        raise _foreign(file) from None


def _rows(file: Path, text: str) -> Iterator[ManifestRow]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if text and reader.fieldnames != NAMES:
        raise _foreign(file)
    for values in reader:
        typed: dict[str, Any] = {name: int(values[name]) for name in NUMBERS}
        yield ManifestRow(**{name: text_in(text) for name, text in values.items()} | typed)


def _foreign(file: Path) -> DataError:
    return DataError(
        file,
        "is not a manifest that odtrain wrote.",
        "Collect into a new folder, or move this file away.",
    )


def append_row(folder: Path, row: ManifestRow) -> None:
    """Add `row`, in one write, so that a kill leaves it whole or not at all; it is not on disk yet."""
    file = folder / MANIFEST
    text = io.StringIO(newline="")
    with file.open("ab") as stream:
        if stream.tell() == 0:
            write_rows(text, [NAMES])
        write_rows(text, [astuple(row)])
        stream.write(text.getvalue().encode("utf-8", "surrogateescape"))
