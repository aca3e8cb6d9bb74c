"""Trainings compute side by side, files are timed alone: who may compute on this machine now.

Two files in a folder are locked by the kernel, so that the locks of a killed process are free at once.
Whoever computes holds `floor` together with the others; whoever times holds it alone, and closes `gate`
while it waits. At a closed gate the others leave the floor: between two steps, two pictures, two files.
A process that takes no part waits for nobody: all of this does nothing then, and where the system has no
such locks (Windows).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

VARIABLE = "ODTRAIN_TURNS"
"""The folder, for the processes that this one starts."""
TIMED_BY = "ODTRAIN_TIMED_BY"
"""The module that has files timed on another machine, for the processes that this one starts."""

Item = TypeVar("Item")


class _Turns:
    """What this process holds."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.gate: IO[bytes] = (folder / "gate").open("wb")
        self.floor: IO[bytes] = (folder / "floor").open("wb")


_own: _Turns | None = None


def take_part(folder: Path | None = None) -> None:
    """Compute beside others from now on; without `folder`, where the process that began this one does."""
    global _own
    inherited = os.environ.get(VARIABLE)
    if fcntl is None or (folder is None and inherited is None):
        return
    chosen = folder or Path(str(inherited))
    os.environ[VARIABLE] = str(chosen)
    _own = _Turns(chosen)
    _return_to(_own)


def timing_module(module: str) -> list[str]:
    """How Python is given a module that times a file: as it is, or by the one that has it done elsewhere."""
    elsewhere = os.environ.get(TIMED_BY)
    return ["-m", elsewhere, module] if elsewhere else ["-m", module]


def give_way() -> None:
    """Wait while somebody times, or is about to."""
    if _own is None:
        return
    try:
        fcntl.flock(_own.gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(_own.floor, fcntl.LOCK_UN)
        _return_to(_own)
    else:
        fcntl.flock(_own.gate, fcntl.LOCK_UN)


def giving_way(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, giving way before each."""
    for item in items:
        give_way()
        yield item


@contextmanager
def away() -> Iterator[None]:
    """Compute nothing inside: another process does, in its own turn."""
    if _own is None:
        yield
        return
    fcntl.flock(_own.floor, fcntl.LOCK_UN)
    try:
        yield
    finally:
        _return_to(_own)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, no other process that takes part computes."""
    if _own is None:
        yield
        return
    fcntl.flock(_own.floor, fcntl.LOCK_UN)
    fcntl.flock(_own.gate, fcntl.LOCK_EX)
    try:
        fcntl.flock(_own.floor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(_own.floor, fcntl.LOCK_SH)
        fcntl.flock(_own.gate, fcntl.LOCK_UN)


def _return_to(turns: _Turns) -> None:
    """Behind the gate first, so that who times is not kept waiting by those who come."""
    fcntl.flock(turns.gate, fcntl.LOCK_SH)
    fcntl.flock(turns.floor, fcntl.LOCK_SH)
    fcntl.flock(turns.gate, fcntl.LOCK_UN)
