"""Records of an object, read in ranges: each range once, into a copy here that fills as it is read.

The copy has the object's size and holes where nothing was read. What is read of it must be whole by the
record's own checksum, which neither a hole nor a half written block is: so nothing else says what it holds.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from odtrain.errors import DataError
from odtrain.io.atomic import make_folder, write_bytes
from odtrain.io.remote import cache
from odtrain.io.remote.store import Ranges

BLOCK = 4 * 2**20
"""Asked for at once where the cache has room for it: records that are read soon."""
LENGTHS = ".lengths"


class OpenedInStore:
    """A record file of a store, as it was when it was opened; for any number of threads.

    Attributes:
        size: of the object, in bytes.
    """

    def __init__(self, file: Path) -> None:
        """Ask for the object as it is now.

        Raises:
            FileNotFoundError: there is none.
            DataError: the store refuses, or is away.
        """
        self._file = file
        self._ranges = Ranges(file)
        self.size = self._ranges.size
        place = cache.place_of(file)
        self._copy = place.with_name(f"{place.name}@{self._ranges.version // 1000:x}{cache.HELD}")
        self._descriptor = _opened(self._copy, self.size)
        self._busy: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def read(self, offset: int, length: int, whole: Callable[[bytes], bool]) -> bytes:
        """So many bytes from `offset` on, fewer at the end.

        Raises:
            DataError: they are not whole, the object is another one now, or the store refuses or is away.
        """
        length = min(length, self.size - offset)
        data = os.pread(self._descriptor, length, offset)
        if whole(data):
            return data
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        begin, end = first * BLOCK, min((last + 1) * BLOCK, self.size)
        if cache.admits(end - begin):
            data = self._through_copy(first, (begin, end), (offset, offset + length), whole)
        else:
            data = self._ranges.read(offset, offset + length)
        if not whole(data):
            problem = f"is damaged at byte {offset}, or was changed while it was read."
            raise DataError(self._file, problem, "Run the command again, or odtrain prepare.")
        return data

    def _through_copy(
        self,
        block: int,
        blocks: tuple[int, int],
        wanted: tuple[int, int],
        whole: Callable[[bytes], bool],
    ) -> bytes:
        with self._busy[block]:
            data = os.pread(self._descriptor, wanted[1] - wanted[0], wanted[0])
            if whole(data):  # another thread has brought it meanwhile
                return data
            read = self._ranges.read(*blocks)
            with suppress(OSError):  # a full disk keeps nothing more
                os.pwrite(self._descriptor, read, blocks[0])
            return read[wanted[0] - blocks[0] : wanted[1] - blocks[0]]

    def lengths(self) -> NDArray[np.int64] | None:
        """Of the payloads, as they were remembered; None where they were not."""
        file = self._copy.with_name(f"{self._copy.name}{LENGTHS}")
        return np.fromfile(file, "<i8") if cache.is_of(file, None) else None

    def remember(self, lengths: NDArray[np.int64]) -> None:
        """Keep them for the next who opens this version."""
        file = self._copy.with_name(f"{self._copy.name}{LENGTHS}")
        write_bytes(file, lengths.astype("<i8").tobytes(), durable=False)

    def close(self) -> None:
        """Let the copy go: it may be taken away."""
        os.close(self._descriptor)


def _opened(copy: Path, size: int) -> int:
    """The copy, of the object's size, held against being taken away as long as it is open."""
    make_folder(copy.parent, durable=False)
    descriptor = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with suppress(ImportError):  # Windows lets nobody delete an open file
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.fstat(descriptor).st_size != size:
        os.truncate(descriptor, size)
    cache.is_of(copy, None)
    return descriptor
