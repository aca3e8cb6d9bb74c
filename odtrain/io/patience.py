"""How long a command that only looks waits for a store, all its questions together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

ALL_SECONDS = 15.0
"""For all slow answers together."""
QUICK_SECONDS = 1.0
"""An answer that came sooner costs nothing: many versions need many of them."""


class Patience:
    """What is left of `ALL_SECONDS`."""

    def __init__(self) -> None:
        """Nobody has waited yet."""
        self.left = ALL_SECONDS

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for one answer."""
        begun = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - begun
            if took > QUICK_SECONDS:
                self.left = max(self.left - took, 0.0)


_patience: ContextVar[Patience | None] = ContextVar("odtrain_patience", default=None)


@contextmanager
def one_patience() -> Iterator[Patience]:
    """One for all that is asked in this block, and in blocks like it within."""
    held = _patience.get()
    if held is not None:
        yield held
        return
    patience = Patience()
    token = _patience.set(patience)
    try:
        yield patience
    finally:
        _patience.reset(token)
