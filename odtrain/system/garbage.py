"""Python's garbage collector, where it looks through much and finds nothing."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

SELDOM = 100_000
"""New objects after which it looks; Python's own 700 have it look a thousand times while modules are read."""


@contextlib.contextmanager
def seldom_collecting() -> Iterator[None]:
    """For work that makes many objects and keeps them: imports, a dictionary for each box."""
    usual = gc.get_threshold()
    gc.set_threshold(max(SELDOM, usual[0]), *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
