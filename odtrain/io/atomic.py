"""Files and folders that are there whole or not at all, and on disk when their writer returns.

What is written lies beside its place under a name of its own, `.NAME.OWNER.part`, or `.NAME.new-OWNER` for a
folder. An error leaves none of these; one of a process that was killed is removed by the next that writes
into the same folder.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

PRIVATE = 0o600
"""Mode of a file that may hold a secret: for this user alone."""
PART = ".part"
"""How the name of a file ends that is not whole yet."""
LEFT = re.compile(r"\..+\.(?:new-)?(?P<host>[0-9a-f]{8})-(?P<process>\d+)-\d+(?:\.part)?")
LONGEST_NAME = 200
"""Bytes of a name that its part's name repeats; file systems take 255 in all."""
WINDOWS = sys.platform == "win32"
MANY = 32
"""From so many files on, one call for the whole file system costs less than one for each."""
SECONDS_BETWEEN = 1.0

_tidied: set[Path] = set()


def write_bytes(
    file: Path, content: bytes, *, durable: bool = True, mode: int | None = None
) -> None:
    """Write a file, in folders made for it.

    Args:
        file: the old content stays until the new one is whole.
        content: all of it.
        durable: whether it must be on disk when this returns; not for what is made again when it is lost.
        mode: who may read it; None for whom the system lets by default.

    Raises:
        OSError: the disk refuses; the old content is still there.
    """
    with replacing(file, durable=durable) as part:
        if mode is not None:
            part.touch(mode)
        part.write_bytes(content)


def write_text(file: Path, text: str, *, durable: bool = True, mode: int | None = None) -> None:
    """Write a file as UTF-8, as `write_bytes` does; undecodable names in it stay what they were."""
    write_bytes(file, text.encode("utf-8", "surrogateescape"), durable=durable, mode=mode)


def write_json(file: Path, content: Mapping[str, Any], *, mode: int | None = None) -> None:
    """Write an object for people to read too, as `write_bytes` does."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n", mode=mode)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of our own; empty where it is missing or not whole."""
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def copy(source: Path, file: Path) -> None:
    """Copy a file, as `write_bytes` writes it."""
    with replacing(file) as part:
        shutil.copyfile(source, part)


@contextmanager
def replacing(file: Path, *, durable: bool = True) -> Iterator[Path]:
    """The path to write to, closed at the end; it takes the place of `file` if there was no error.

    Args:
        file: see `write_bytes`.
        durable: see `write_bytes`.
    """
    part = part_of(file, durable=durable)
    try:
        yield part
        put(part, file, durable=durable)
    except OSError as error:
        if error.filename == str(part):
            error.filename = str(file)
        _name(error, file)
        raise
    finally:
        part.unlink(missing_ok=True)


def part_of(file: Path, *, durable: bool = True) -> Path:
    """Where `file` is written until it is whole: for writers that `put` it in its place themselves."""
    try:
        _tidy(make_folder(file.parent, durable=durable))
    except OSError as error:
        error.filename = str(file)
        raise
    return _beside(file, f".{_owner()}{PART}")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """The new folder to fill; without an error it takes the place of `folder`, which is not there or empty."""
    part = _beside(folder, f".new-{_owner()}")
    try:
        _tidy(make_folder(folder.parent))
        part.mkdir()
        yield part
        put(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put(part: Path, target: Path, *, durable: bool = True) -> None:
    """Move what is whole, a file or a folder, to its place in the same file system."""
    if durable:
        sync(part)
    try:
        if WINDOWS and part.is_dir() and target.is_dir():
            target.rmdir()  # which replaces no folder, not even an empty one
        part.replace(target)
    except OSError as error:  # nobody knows the part
        error.filename, error.filename2 = str(target), None
        raise
    if durable:
        _sync(target.absolute().parent)


def append(file: Path, data: bytes) -> None:
    """Add to the end of a file, in one write; it is on disk when this returns."""
    try:
        with file.open("ab") as stream:
            stream.write(data)
        sync(file)
    except OSError as error:
        _name(error, file)
        raise


def _name(error: OSError, file: Path) -> None:
    """Say which file it was that a disk refused where the system does not, for who knows no better place."""
    if error.filename is None:
        error.filename2 = str(file)


def make_folder(folder: Path, *, durable: bool = True) -> Path:
    """`folder`, made with those above it unless it is there; new names are on disk when this returns."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in new if durable else ():
        _sync(each.parent)
    return folder


def sync(*paths: Path) -> None:
    """Have files, folders with all that is in them, and their names on disk when this returns."""
    named = [each for path in paths for each in (path, *path.rglob("*"))]
    every = [each for each in named if each.is_file() or each.is_dir()]
    if len(every) < MANY or WINDOWS:
        for each in (*every, *{path.absolute().parent for path in paths}):
            _sync(each)
    else:
        for each in {each.stat().st_dev: each for each in every}.values():
            _sync_file_system(each)


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    except (
        PermissionError,
        IsADirectoryError,
    ):  # a folder that may be written, and not be read; any folder of Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that has no such thing
            raise
    finally:
        os.close(handle)


def _sync_file_system(path: Path) -> None:
    """Linux has a call for one of them, which Python does not know."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return os.sync()
    handle = os.open(path, os.O_RDONLY)
    try:
        if call(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(handle)


class Settling:
    """Has what is appended to a file on disk, about once a second, since each time costs milliseconds.

    What is written survives a kill at once; a power cut costs what was written since.
    """

    def __init__(self, file: Path) -> None:
        """Of a file that is there."""
        self._file = file
        self._before: list[Path] = []
        self._at = float("-inf")
        self._waits = False

    def due(self, *before: Path, at_once: bool = False) -> None:
        """Something was appended; the files `before`, of which it speaks, are on disk before it is.

        Raises:
            OSError: the disk refuses.
        """
        self._before += before
        self._waits = True
        if at_once or time.monotonic() - self._at >= SECONDS_BETWEEN:
            self.now()

    def now(self) -> None:
        """Have all of it on disk.

        Raises:
            OSError: the disk refuses.
        """
        if not self._waits:
            return
        sync(*self._before)
        sync(self._file)
        self._before, self._waits, self._at = [], False, time.monotonic()


# ---- names of what is not whole yet


def _beside(path: Path, ending: str) -> Path:
    name = os.fsencode(path.name)[:LONGEST_NAME].decode("utf-8", "ignore")
    return path.with_name(f".{name}{ending}")


def _owner() -> str:
    return f"{_host()}-{os.getpid()}-{threading.get_native_id()}"


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _tidy(folder: Path) -> None:
    """Remove what processes of this machine left in `folder` that are gone; this one looks once."""
    if (known := folder.absolute()) in _tidied:
        return
    _tidied.add(known)
    for left in folder.iterdir():
        match = LEFT.fullmatch(left.name)
        if match and match["host"] == _host() and not psutil.pid_exists(int(match["process"])):
            _remove(left)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink() if path.is_file() else shutil.rmtree(path)
