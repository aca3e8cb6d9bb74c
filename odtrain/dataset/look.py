"""Looking into many picture files: several at a time, and unchanged ones not again.

Each process that looks imports this module, so it imports little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from odtrain.errors import unless_memory
from odtrain.findings import Finding
from odtrain.io.remote.files import brought_ahead, read_bytes, read_json
from odtrain.io.remote.store import FileStat
from odtrain.labels.annotations import Entry
from odtrain.media.images import SUFFIXES, Picture, finding_of, inspect
from odtrain.system.workers import Workers
from odtrain_runtime.pictures import UnusableError

STATE_FILE = "state.json"
STATE_VERSION = 4
"""Raised whenever the same file would be remembered differently."""


class Memory(NamedTuple):
    """What is known of a picture from an earlier look, and how to see that it still holds."""

    stat: FileStat
    labelled_size: tuple[int, int] | None
    picture: Picture


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
    return {
        file: {
            "stat": memory.stat,
            "labelled_size": memory.labelled_size,
            # asdict alone would copy every value, which takes longer than writing them all
            "picture": {
                **vars(memory.picture),
                "notes": [asdict(note) for note in memory.picture.notes],
            },
        }
        for file, memory in memories.items()
    }


class Look(NamedTuple):
    """A picture that is to be looked into.

    Attributes:
        file: the picture.
        stat: its size and date.
        labelled_size: (width, height) that its label file gives.
        known: what is remembered of it, though not with this stat.
    """

    file: Path
    stat: FileStat
    labelled_size: tuple[int, int] | None
    known: Memory | None


def expect_looks(files: dict[Path, FileStat], known: dict[str, Memory], workers: Workers) -> None:
    """Have processes started for the pictures that will be looked into, while labels are still read."""
    seen = {file: memory.stat for file, memory in known.items()}
    new = [
        file
        for file, stat in files.items()
        if file.suffix.lower() in SUFFIXES and seen.get(str(file)) != stat
    ]
    workers.start(look_at, len(new))


def look(
    entries: Mapping[Path, Entry],
    files: Mapping[Path, FileStat],
    known: Mapping[str, Memory],
    workers: Workers,
) -> tuple[dict[str, Memory], list[Finding]]:
    """Look into every picture, several at a time; those that cannot be used are missing.

    Returns:
        picture -> what to remember of it, by its path as text, and what is to be said of each.
    """
    looks = [
        Look(picture, files[picture], entry.size, known.get(str(picture)))
        for picture, entry in entries.items()
    ]
    unseen = [one for one in looks if not _holds(one)]
    ahead = {one.file: one.stat for one in unseen} if workers.here else {}
    new = workers.map(look_at, unseen, "checking pictures")
    with brought_ahead(ahead):
        seen = {str(one.file): one.known if _holds(one) else next(new) for one in looks}
    memories = {file: memory for file, memory in seen.items() if isinstance(memory, Memory)}
    findings = [
        finding
        for memory in seen.values()
        for finding in (memory.picture.notes if isinstance(memory, Memory) else [memory])
        if finding is not None
    ]
    return memories, findings


def _holds(look: Look) -> bool:
    """Whether what is remembered of a picture needs no second look."""
    known = look.known
    return bool(known and known.stat == look.stat and known.labelled_size == look.labelled_size)


def look_at(look: Look) -> Memory | Finding:
    """What a picture holds: remembered if its content is the one remembered, else decoded."""
    file, stat, labelled_size, known = look
    try:
        data = read_bytes(file, stat)
        same = known is not None and known.labelled_size == labelled_size
        if known and same and known.picture.content == hashlib.sha256(data).hexdigest():
            return Memory(stat, labelled_size, known.picture)
        return Memory(stat, labelled_size, inspect(file, data, labelled_size))
    except UnusableError as error:
        return finding_of(error)
    except OSError as error:
        return Finding.of("OD010", file, f"cannot be read: {unless_memory(error).strerror}.")
