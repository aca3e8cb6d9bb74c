"""Looking into many picture files: several at a time, and unchanged ones not again."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from odtrain.annotations import Entry
from odtrain.findings import Finding, found
from odtrain.pictures import Picture, UnusableError, inspect

FileStat = tuple[int, int]
"""Size in bytes and modification time in ns."""
STATE_FILE = "state.json"
STATE_VERSION = 3
"""Raised whenever the same file would be remembered differently."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Memory:
    """What is known of a picture from an earlier look, and how to see that it still holds."""

    stat: FileStat
    labelled_size: tuple[int, int] | None
    picture: Picture


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of our own; empty where it is missing or not whole."""
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def read_memories(folder: Path) -> dict[str, Memory]:
    """What an earlier preparation in `folder` remembers of each picture, by its path."""
    state = read_json(folder / STATE_FILE)
    if state.get("version") != STATE_VERSION:
        return {}
    return {file: _memory_from(values) for file, values in state["pictures"].items()}


def _memory_from(values: dict[str, Any]) -> Memory:
    notes = tuple(Finding(**note) for note in values["picture"]["notes"])
    taken = values["picture"]["taken"]
    known = {"notes": notes, "taken": taken and (taken[0], taken[1])}
    picture = Picture(**{**values["picture"], **known})
    size = values["labelled_size"]
    width_height = None if size is None else (size[0], size[1])
    return Memory((values["stat"][0], values["stat"][1]), width_height, picture)


def memories_as_json(memories: dict[str, Memory]) -> dict[str, Any]:
    """What `read_memories` reads back."""
    return {file: asdict(memory) for file, memory in memories.items()}


def inspect_all(
    entries: dict[Path, Entry],
    files: dict[Path, FileStat],
    known: dict[str, Memory],
    findings: list[Finding],
) -> dict[str, Memory]:
    """Look into every picture, several at a time; pictures that cannot be used are missing."""

    def look(picture: Path) -> Memory | Finding:
        size = entries[picture].size
        return _look_at(picture, files[picture], size, known.get(str(picture)))

    memories = {}
    looks = in_threads(look, list(entries), "checking pictures")
    for picture, memory in zip(entries, looks, strict=True):
        if isinstance(memory, Finding):
            findings.append(memory)
        else:
            memories[str(picture)] = memory
            findings += memory.picture.notes
    return memories


def _look_at(
    file: Path, stat: FileStat, labelled_size: tuple[int, int] | None, known: Memory | None
) -> Memory | Finding:
    """What `file` holds: remembered if its stat, or else its content, is the one remembered."""
    known = known if known and known.labelled_size == labelled_size else None
    if known and known.stat == stat:
        return known
    try:
        data = file.read_bytes()
        if known and known.picture.content == hashlib.sha256(data).hexdigest():
            return Memory(stat, labelled_size, known.picture)
        return Memory(stat, labelled_size, inspect(file, data, labelled_size))
    except UnusableError as error:
        return error.finding
    except OSError as error:
        return found("OD010", file, f"cannot be read: {error.strerror}.")


def in_threads(
    function: Callable[[T], R],
    items: Iterable[T],
    doing: str | None = None,
    workers: int | None = None,
) -> Iterator[R]:
    """`function` of each item in order, a few items ahead; Pillow and hashlib let threads run.

    `workers` are as many as there are cores, if it does not say how many.
    """
    workers = workers or os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    progress = tqdm(
        total=len(items) if isinstance(items, Sized) else None,
        desc=doing,
        unit=" pictures",
        delay=1,
        mininterval=0.5,
        leave=False,
        disable=not doing,
    )
    rest = iter(items)
    pending: deque[Future[R]] = deque()
    try:
        pending.extend(pool.submit(function, item) for item in islice(rest, 8 * workers))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(rest, 1))
            progress.update()
            yield result
    finally:
        progress.close()
        pool.shutdown(wait=False, cancel_futures=True)
