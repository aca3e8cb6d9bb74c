"""What `serve.log` kept, read back as numbers that can be compared: one row of each kind a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.errors import DataError
from odtrain.evaluation.two_samples import Values
from odtrain.media.phash import BITS, NEAR, as_words, distances
from odtrain_runtime.seen.looks import CELLS
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
        runs: that the models come from, "" of one that did not say.
    """

    rows: list[dict[str, Any]]
    kept: dict[int, Path]
    model: str
    class_names: tuple[str, ...]
    thinned: int = 0
    broken: int = 0
    runs: tuple[str, ...] = ()

    def numbers(self, kind: str) -> Values:
        """(N, D) of one of `KINDS`; of sizes, those of pictures in which an object was found."""
        return _NUMBERS[kind](self.rows, len(self.class_names))


def read_usage(folder: Path, run: str = "") -> Usage:
    """The logs of a folder, in the order of time, without pictures that repeat the one before.

    A camera that shows one scene for an hour has seen one picture, not thousands.

    Args:
        folder: that a server wrote to.
        run: whose logs to take, if there are some, where several models served one after the other.

    Raises:
        DataError: there is no log, it cannot be read, or there are logs of models of different classes.
    """
    logs = [_read(file) for file in sorted(folder.glob("log-*.jsonl"))]
    if not logs:
        remedy = "Name a folder that odtrain serve serve.log=DIR has written."
        raise DataError(folder, "holds no log.", remedy)
    own = [log for log in logs if run and log.rows and log.head.get("run") == run]
    logs, broken = own or logs, sum(log.broken for log in own or logs)
    rows = sorted((row for log in logs for row in log.rows), key=lambda row: row["time"])
    if not rows:
        unread = f" {broken} lines cannot be read." if broken else ""
        problem = f"holds logs in which no picture is.{unread}"
        raise DataError(folder, problem, "Let it serve, and ask again.")
    heads = [log.head for log in logs if log.rows]
    names = {tuple(head["classes"]) for head in heads}
    if len(names) > 1:
        shown = "; ".join(sorted(", ".join(each) for each in names))
        remedy = "Move the logs of one of them to a folder of its own."
        raise DataError(folder, f"has logs of models of different classes: {shown}.", remedy)
    fresh = list(_fresh(rows))
    kept = {
        place: folder / PICTURES / str(row["picture"])
        for place, row in enumerate(fresh)
        if "picture" in row and (folder / PICTURES / str(row["picture"])).is_file()
    }
    model, runs = (
        tuple(dict.fromkeys(str(head.get(key, "")) for head in heads)) for key in ("model", "run")
    )
    thinned = len(rows) - len(fresh)
    return Usage(fresh, kept, ", ".join(model), names.pop(), thinned, broken, runs)


@dataclass(frozen=True, eq=False)
class _Log:
    """A file: its first line, empty where that is none of ours; the others; how many could not be read."""

    head: dict[str, Any]
    rows: list[dict[str, Any]]
    broken: int


def _read(file: Path) -> _Log:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}."
        raise DataError(file, problem, "Move it elsewhere, or let it be read.") from error
    head = _parsed(_head, lines[0]) if lines else None
    if head is None:
        return _Log({}, [], len(lines))
    rows = [row for line in lines[1:] if (row := _parsed(_row, line)) is not None]
    return _Log(head, rows, len(lines) - 1 - len(rows))


def _parsed(check: Callable[[dict[str, Any]], bool], line: bytes) -> dict[str, Any] | None:
    """The object of a line, if it is one that `check` takes."""
    try:
        values = json.loads(line)
        return values if check(values) else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _head(values: dict[str, Any]) -> bool:
    return values["version"] == VERSION and all(isinstance(one, str) for one in values["classes"])


def _row(values: dict[str, Any]) -> bool:
    found = [values[key] for key in ("scores", "classes", "areas")]
    plain = [values[key] for key in ("time", "brightness", "contrast", "sharpness")]
    return (
        all(math.isfinite(value) for part in (plain, values["layout"], *found) for value in part)
        and all(isinstance(number, int) for number in values["classes"])
        and len({len(part) for part in found}) == 1
        and len(values["layout"]) == CELLS * CELLS * 3
        and len(bytes.fromhex(values["likeness"])) * 8 == BITS
    )


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
