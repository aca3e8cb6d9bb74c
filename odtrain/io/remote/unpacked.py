"""Data sets that come as one archive: unpacked once, into the cache and nowhere else."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from odtrain.errors import DataError
from odtrain.io.archives import BROKEN, TARBALLS
from odtrain.io.atomic import replacing_folder
from odtrain.io.checksums import sha256_of
from odtrain.io.locks import alone
from odtrain.io.remote import cache

ARCHIVES = (".zip", *TARBALLS)
MOST_TIMES, MOST_AT_LEAST = 20, 2 * 2**30
"""An archive may unpack to so many times its size, or to this much: pictures are compressed already."""
BLOCK = 2**20
Member = tuple[str, Callable[[], IO[bytes]]]
"""Name, and what opens the content."""
AGAIN = "Get it again: it is truncated, or something else under this name."


def is_archive(file: Path) -> bool:
    """Whether a file is one that is unpacked, by its name."""
    return file.name.lower().endswith(ARCHIVES)


def unpacked(name: Path, archive: Path) -> Path:
    """The folder that holds what is in an archive; unpacked once, however many ask.

    Args:
        name: as the user has it, for messages.
        archive: the file here.

    Raises:
        DataError: it is no whole archive, unpacks to too much, or has members that would be written elsewhere.
    """
    folder = cache.root() / cache.UNPACKED / sha256_of(archive)[:16]
    with alone(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            with replacing_folder(folder) as part:
                _unpack(name, archive, part)
            cache.written(archive.stat().st_size)
        os.utime(folder)  # it counts as asked for
    return folder


def _unpack(name: Path, archive: Path, folder: Path) -> None:
    try:
        with closing(_members(archive)) as members:
            _write(name, members, folder, max(MOST_TIMES * archive.stat().st_size, MOST_AT_LEAST))
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, *BROKEN) as error:
        raise DataError(name, f"is not a whole archive ({error}).", AGAIN) from error


def _write(name: Path, members: Iterator[Member], folder: Path, left: int) -> None:
    """Write the members into the folder, `left` bytes at most."""
    for member, opened in members:
        parts = PurePosixPath(member.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
            problem = f'is not unpacked: "{member}" would be written outside its folder.'
            raise DataError(name, problem, "Do not trust it.")
        file = folder.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        with opened() as content, file.open("wb") as copy:
            while block := content.read(BLOCK):
                left -= len(block)
                if left < 0:
                    problem = f"is not unpacked: it holds more than {MOST_TIMES} times its size."
                    raise DataError(name, problem, "Unpack it by hand if you trust it.")
                copy.write(block)


def _members(archive: Path) -> Generator[Member, None, None]:
    """Each plain file; links, devices and folders are passed over."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as files:
            for info in files.infolist():
                if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
                    yield info.filename, partial(files.open, info)
        return
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.isreg():
                yield entry.name, partial(_content, tar, entry)


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(entry)
    assert content is not None  # it is a plain file
    return content
