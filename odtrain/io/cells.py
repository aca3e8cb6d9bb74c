r"""Texts in CSV, which people open in spreadsheets: nothing in a cell runs, and all is read back as it was.

A spreadsheet takes a cell that begins with = + - or @ for a formula. An apostrophe before it makes it
a text, as people write it themselves. Unseen characters are written by their numbers, behind `'\`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import IO

from odtrain_runtime.plain import CONTROL

RUNS = re.compile(r"'*[=+\-@]")
"""What would run, and what looks like it was written here."""
PARTED = re.compile(r";(?=\s*[=+\-@])")
"""Where spreadsheets of many countries begin another cell, one that would run."""
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
MARK = "'\\"
ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4})")


def write_rows(stream: IO[str], rows: Iterable[Iterable[object]]) -> None:
    """Write rows of CSV, each value as its `cell`."""
    csv.writer(stream, lineterminator="\n").writerows(map(cell, row) for row in rows)


def cell(value: object) -> object:
    """A value as a cell; numbers stay as they are."""
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    if CONTROL.search(value) or value.startswith(MARK) or PARTED.search(value):
        return MARK + re.sub(f"\\\\|{CONTROL.pattern}|{PARTED.pattern}", _numbered, value)
    return f"'{value}" if RUNS.match(value) else value


def text_in(written: str) -> str:
    """The text of a cell that `cell` wrote; what others wrote is mostly itself."""
    if written.startswith(MARK):
        return ESCAPE.sub(_meant, written[len(MARK) :])
    return written[1:] if written.startswith("'") and RUNS.match(written) else written


def _numbered(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] == "\\":
        return "\\\\"
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _meant(found: re.Match[str]) -> str:
    return "\\" if found[1] == "\\" else chr(int(found[1][1:], 16))
