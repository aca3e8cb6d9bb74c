"""Names for files and folders, where others may lie already."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path


def numbered(name: Path) -> Iterator[Path]:
    """`name`, then the same with -2, -3, ... behind its stem: to be tried until one is free."""
    yield name
    yield from (name.with_stem(f"{name.stem}-{number}") for number in count(2))


def is_taken(folder: Path) -> bool:
    """Whether a new folder would lie over something: a file, or a folder that is not empty."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
