"""How many pixels of strangers' pictures are decoded at once, and that their memory is given back."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MOST_PIXELS = 100_000_000
"""Decoded at once, by all requests together: 0.3 GB, and about as much again on the way there."""
MMAP_THRESHOLD = -3
"""glibc's M_MMAP_THRESHOLD: from how many bytes on memory goes back to the system when it is freed."""
LARGE = 1 << 22


class PixelTurns:
    """Lets pictures be worked on side by side as long as all of them have few pixels, the others wait."""

    def __init__(self, most: int = MOST_PIXELS) -> None:
        """`most` pixels at once; a picture with more is worked on alone."""
        self._most = self._left = most
        self._changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until a picture of so many pixels may be worked on."""
        share = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= share)
            self._left -= share
        try:
            yield
        finally:
            with self._changed:
                self._left += share
                self._changed.notify_all()


def give_memory_back() -> None:
    """Have this process return what pictures took as soon as it is freed, where the C library is glibc.

    Left to itself, each thread keeps what its largest pictures needed.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE)
