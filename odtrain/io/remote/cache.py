"""Copies of what is elsewhere, kept below `$XDG_CACHE_HOME/odtrain/remote` within a bound.

A copy lies under the parts of its address. Size and modification time tell which version it is of: the time
is the version's number (`store.FileStat`), and the time of the last access is when it was last asked for.
Those that nobody asked for longest go first. The bound is a matter of a machine, not of a run:
ODTRAIN_CACHE_GB.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from filelock import FileLock, Timeout

from odtrain.addresses import scheme_of
from odtrain.errors import ConfigError
from odtrain.io.archives import cache_folder
from odtrain.io.atomic import PART, replacing
from odtrain.io.remote.store import FileStat, key_of

VARIABLE = "ODTRAIN_CACHE_GB"
GIGABYTES = 20.0
AFTER_SWEEP = 0.8
"""Of the bound is left when room was made, so that it is not made for every file."""
LOOKED_AGAIN = 0.02
"""Of the bound is written before a process looks at how full the cache is."""
HELD = ".held"
"""How the name ends of a copy that is read in ranges: whoever reads holds a lock on it."""
GIVEN_UP = 86400.0
"""Seconds after which nobody goes on with a file that is not whole."""
DURABLE = 10.0
"""Seconds for which what was just asked for is not taken away."""
DURABLE_FOLDER = 3600.0
"""Of what was unpacked, which is gone as a whole."""
UNPACKED = "unpacked"


def root() -> Path:
    """The folder of all copies."""
    return cache_folder().parent / "remote"


def bound() -> int:
    """Bytes that copies may take.

    Raises:
        ConfigError: the variable is no number.
    """
    text = os.environ.get(VARIABLE) or str(GIGABYTES)
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{VARIABLE}={text}", "is no number of gigabytes.", f"Give one: {VARIABLE}=20"
        ) from None


def place_of(file: Path) -> Path:
    """Where the copy of an object lies."""
    return root().joinpath(scheme_of(file), *PurePosixPath(key_of(file)).parts)


def held(file: Path, stat: FileStat | None) -> Path | None:
    """The copy of this version of an object, of any version where `stat` is None; None where there is none."""
    copy = place_of(file)
    return copy if is_of(copy, stat) else None


def is_of(copy: Path, stat: FileStat | None) -> bool:
    """Whether a copy is there, of this version; it counts as asked for."""
    try:
        known = copy.stat()
        if stat is not None and (known.st_size, known.st_mtime_ns) != stat:
            return False
        os.utime(copy, ns=(time.time_ns(), known.st_mtime_ns))
    except OSError:
        return False
    return True


def keep(copy: Path, stat: FileStat, bring: Callable[[Path], None]) -> Path:
    """Make a copy, whole or not at all.

    Args:
        copy: where it is to lie.
        stat: its size and version.
        bring: writes the content to the path that it is given.

    Raises:
        OSError: the disk refuses.
    """
    with replacing(copy, durable=False) as part:
        bring(part)
        os.utime(part, ns=(time.time_ns(), stat[1]))
    _SPACE.written(stat[0])
    return copy


class _Copy(NamedTuple):
    asked_for: float
    size: int
    file: Path
    durable: float = DURABLE


class _Space:
    """How full the cache is, as far as this process knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = -1
        self._since = 0

    def written(self, size: int) -> None:
        """So much more is there now; room is made where that is too much."""
        with self._lock:
            self._since += size
            if self._known < 0 or self._since > LOOKED_AGAIN * bound():
                self._look(0)

    def admits(self, size: int) -> bool:
        """Whether so much more may be kept, with room made for it if there is any to make."""
        with self._lock:
            if self._known < 0 or self._since > LOOKED_AGAIN * bound():
                self._look(size)
            fits = self._known + self._since + size <= bound()
            self._since += size if fits else 0
            return fits

    def _look(self, more: int) -> None:
        self._known, self._since = sweep(more), 0


_SPACE = _Space()
admits, written = _SPACE.admits, _SPACE.written


def sweep(more: int = 0) -> int:
    """Take away what nobody asked for longest, where all with `more` bytes is beyond the bound.

    Returns:
        bytes that are left.
    """
    folder = root()
    folder.mkdir(parents=True, exist_ok=True)
    copies = sorted(_copies(folder))
    total = sum(copy.size for copy in copies)
    if total + more <= bound():
        return total
    try:
        with FileLock(folder / ".lock", timeout=0):
            for copy in copies:
                if total <= AFTER_SWEEP * bound():
                    break
                if time.time() - copy.asked_for >= copy.durable and _taken_away(copy.file):
                    total -= copy.size
    except Timeout:  # another process is at it
        pass
    return total


def _copies(folder: Path) -> Iterator[_Copy]:
    """Every file below a folder, with the room that it takes on the disk."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if folder.name == UNPACKED and entry.is_dir(follow_symlinks=False):
                inside = sum(copy.size for copy in _copies(Path(entry.path)))
                yield _Copy(entry.stat().st_mtime, inside, Path(entry.path), DURABLE_FOLDER)
            elif entry.is_dir(follow_symlinks=False):
                yield from _copies(Path(entry.path))
            elif not entry.name.endswith(".lock"):
                with suppress(OSError):
                    known = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(PART) and time.time() - known.st_mtime < GIVEN_UP:
                        continue
                    taken = getattr(known, "st_blocks", known.st_size / 512) * 512
                    yield _Copy(known.st_atime, int(taken), Path(entry.path))


def _taken_away(file: Path) -> bool:
    if file.name.endswith(HELD) and is_in_use(file):
        return False
    with suppress(OSError):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        with suppress(OSError):  # others are beside it
            file.parent.rmdir()
        return True
    return False


def is_in_use(file: Path) -> bool:
    """Whether a process holds a copy that is read in ranges."""
    try:
        import fcntl
    except ImportError:  # Windows lets nobody delete an open file
        return False
    try:
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
