"""What every exported file carries with it: its label list and its passport.

The passport is a flat table of texts: the run and the data a model came from, the version that
wrote it, its format, its input size, and operating thresholds where some were chosen. The label
list has one class name a line; line 0 is class id 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

PLACEHOLDER = "???"
"""First line of the label files that count the background in, as the published COCO ones do."""
BACKGROUND = (PLACEHOLDER, "background", "__background__")
NUMBERED = re.compile(r"(\d{1,5})\s*[\s:,.)]\s*(\S.*)")
"""A line of a numbered list, as Coral's are: `16  cat`."""
MOST_GAPS = 10_000
LABELS_FILE = "labels.txt"
PASSPORT_FILE = "passport.json"
LABELS_NODE = "odtrain/labels"
PASSPORT_NODE = "odtrain/passport"

THRESHOLDS = "thresholds"
"""Entry of a passport: JSON of class name -> lowest score at which its detections are to be shown."""

RESIZE = "resize"
"""How pictures are brought to the input size (`resizing`), where they are not stretched."""


def write_labels(class_names: Sequence[str]) -> str:
    """The text of a label file."""
    return "".join(f"{name}\n" for name in class_names)


def read_labels(text: str) -> tuple[str, ...]:
    """Class names of a label file, index 0 = class id 1, also of one that lists the background."""
    lines = [line.strip() for line in text.removeprefix("\ufeff").rstrip().split("\n")]
    if lines[0] == PLACEHOLDER:
        lines = lines[1:]
    return tuple(lines) if any(lines) else ()


def read_label_list(text: str) -> tuple[str, ...]:
    """Class names of a list that a person gives for a file without any, index 0 = class id 1.

    As `read_labels`; besides, a first line may be called background, a class without a name is called
    `class N`, and lines may be numbered: from 0 with gaps, or from 1 without.
    """
    lines = [line.strip() for line in text.removeprefix("\ufeff").rstrip().splitlines()]
    lines = unnumbered(lines)
    if lines and lines[0].lower() in BACKGROUND:
        lines = lines[1:]
    names = tuple(line or f"class {number}" for number, line in enumerate(lines, start=1))
    return names if any(lines) else ()


def unnumbered(lines: Sequence[str]) -> list[str]:
    """The names of a numbered list, each at its place, "" in gaps; other lists as they are."""
    found = [NUMBERED.fullmatch(line) for line in lines if line]
    named = {int(each[1]): each[2].strip() for each in found if each}
    first, last = min(named, default=-1), max(named, default=-1)
    names = [name for name in named.values() if name != PLACEHOLDER]
    alike = len(named) < len(found) or len(set(names)) < len(names)
    gaps = last - first + 1 - len(named)
    if alike or first not in (0, 1) or gaps > (MOST_GAPS if first == 0 else 0):
        return list(lines)
    return [named.get(number, "") for number in range(first, last + 1)]


def write_passport(passport: Mapping[str, str]) -> str:
    """The text of a passport file."""
    return json.dumps(dict(passport), ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def read_passport(text: str) -> dict[str, str]:
    """The table in a passport file; empty where the text is no such table."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in table.items()} if isinstance(table, dict) else {}


def write_thresholds(thresholds: Mapping[str, float]) -> str:
    """Operating thresholds by class name as a passport holds them, under `THRESHOLDS`."""
    return json.dumps(dict(thresholds), ensure_ascii=False, sort_keys=True)


def read_thresholds(passport: Mapping[str, str]) -> dict[str, float]:
    """Operating thresholds by class name, scores 0-1; empty where the passport has none."""
    try:
        table = json.loads(passport.get(THRESHOLDS, "{}"))
        found = {str(name): float(score) for name, score in table.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: score for name, score in found.items() if 0 <= score <= 1}


def write_size(height: int, width: int) -> str:
    """An input size as a passport holds it."""
    return f"{height}x{width}"


def read_size(passport: Mapping[str, str]) -> tuple[int, int] | None:
    """(height, width) of a passport's `input_size`, in pixels; None where it has none."""
    height, _, width = passport.get("input_size", "").partition("x")
    return (int(height), int(width)) if height.isdigit() and width.isdigit() else None
