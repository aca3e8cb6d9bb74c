"""What `serve.log` kept, read back as numbers that can be compared: one row of each kind a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.errors import DataError
from odtrain.evaluation.two_samples import Values
from odtrain.media.phash import NEAR, as_words, distances
from odtrain_runtime.seen.usage_log import PICTURES, VERSION

SURE = 0.3
"""Score from which a detection counts as an object here: low enough for a model that is seldom sure."""
KINDS = ("light", "contrast", "sharpness", "layout", "objects", "scores", "sizes", "classes")
"""What is compared; docs/drift.md says what each is."""


@dataclass(frozen=True, eq=False)
class Usage:
    """Pictures that a model looked at.

    Attributes:
        rows: what was logged of each, as `usage_log.seen_as_json` has it, and `time`.
        kept: place of each that was kept as a file -> the file.
        model: that looked, by its name.
        class_names: that it told apart, index 0 = class id 1.
        thinned: pictures left out since they show what the one before them shows.
        broken: lines that cannot be read, as the last one of a server that was killed.
    """

    rows: list[dict[str, Any]]
    kept: dict[int, Path]
    model: str
    class_names: tuple[str, ...]
    thinned: int = 0
    broken: int = 0

    def numbers(self, kind: str) -> Values:
        """(N, D) of one of `KINDS`; of sizes, those of pictures in which an object was found."""
        return _NUMBERS[kind](self.rows, len(self.class_names))


def read_usage(folder: Path) -> Usage:
    """The logs of a folder, in the order of time, without pictures that repeat the one before.

    A camera that shows one scene for an hour has seen one picture, not thousands.

    Raises:
        DataError: there is no log, or logs of models that tell other classes apart.
    """
    files = sorted(folder.glob("log-*.jsonl"))
    if not files:
        remedy = "Name a folder that odtrain serve serve.log=DIR has written."
        raise DataError(folder, "holds no log.", remedy)
    rows: list[dict[str, Any]] = []
    heads, broken = [], 0
    for file in files:
        head, lines, bad = _read(file)
        heads += [head] if head else []
        rows += lines
        broken += bad
    if not heads or not rows:
        raise DataError(
            folder, "holds logs in which no picture is.", "Let it serve, and ask again."
        )
    names = {tuple(head["classes"]) for head in heads}
    if len(names) > 1:
        shown = "; ".join(sorted(", ".join(each) for each in names))
        remedy = "Move the logs of one of them to a folder of its own."
        raise DataError(folder, f"has logs of models of different classes: {shown}.", remedy)
    rows.sort(key=lambda row: row["time"])
    fresh = list(_fresh(rows))
    kept = {
        place: folder / PICTURES / str(row["picture"])
        for place, row in enumerate(fresh)
        if "picture" in row and (folder / PICTURES / str(row["picture"])).is_file()
    }
    thinned = len(rows) - len(fresh)
    return Usage(fresh, kept, heads[-1]["model"], names.pop(), thinned, broken)


def _read(file: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """The first line, the others, and how many could not be read."""
    head, rows, broken = None, list[dict[str, Any]](), 0
    for number, line in enumerate(file.read_bytes().splitlines()):
        try:
            values = json.loads(line)
            if number == 0:
                head = values if values["version"] == VERSION and values["classes"] else None
            elif set(values) >= NEEDED:
                rows.append(values)
            else:
                broken += 1
        except (ValueError, KeyError, TypeError):
            broken += 1
    return (head, rows, broken) if head else (None, [], broken + len(rows))


NEEDED = {
    "time",
    "brightness",
    "contrast",
    "sharpness",
    "layout",
    "likeness",
    "scores",
    "classes",
    "areas",
}


def _fresh(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    last = None
    for row in rows:
        word = as_words([row["likeness"]])
        if last is None or int(distances(last[0], word)[0]) > NEAR:
            last = word
            yield dict(row)


def _column(key: str, rows: Sequence[Mapping[str, Any]]) -> Values:
    return np.array([[row[key]] for row in rows], np.float64).reshape(-1, 1)


def _sure(row: Mapping[str, Any]) -> list[int]:
    return [place for place, score in enumerate(row["scores"]) if score >= SURE]


def _sizes(rows: Sequence[Mapping[str, Any]]) -> Values:
    """Mean side of the objects of each picture, as logarithm: twice as large is one step anywhere."""
    sides = [[max(row["areas"][place], 1e-6) for place in _sure(row)] for row in rows]
    means = [np.mean(np.log2(np.sqrt(each))) for each in sides if each]
    return np.array(means, np.float64).reshape(-1, 1)


def _classes(rows: Sequence[Mapping[str, Any]], classes: int) -> Values:
    counts = np.zeros((len(rows), classes))
    for number, row in enumerate(rows):
        for place in _sure(row):
            if 1 <= row["classes"][place] <= classes:
                counts[number, row["classes"][place] - 1] += 1
    return counts


_NUMBERS = {
    "light": lambda rows, _: _column("brightness", rows),
    "contrast": lambda rows, _: _column("contrast", rows),
    "sharpness": lambda rows, _: np.log1p(_column("sharpness", rows)),
    "layout": lambda rows, _: np.array([row["layout"] for row in rows], np.float64),
    "objects": lambda rows, _: np.array([[len(_sure(row))] for row in rows], np.float64),
    "scores": lambda rows, _: np.array([[max(row["scores"], default=0)] for row in rows]),
    "sizes": lambda rows, _: _sizes(rows),
    "classes": _classes,
}
