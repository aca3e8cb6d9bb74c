"""What native libraries print past Python's `sys.stderr`, for which they have no setting."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

STDERR = 2
_one_at_a_time = threading.Lock()  # the descriptor is the whole process's
_outside: list[IO[str]] = []
"""What standard error was before `stderr_into`, while inside of it."""


@contextmanager
def stderr_into(file: IO[Any]) -> Iterator[None]:
    """Inside, the process's standard error goes into `file`; what is written to `PEOPLE` does not."""
    with _one_at_a_time:
        sys.stderr.flush()
        saved = os.dup(STDERR)
        os.dup2(file.fileno(), STDERR)
        outside = open(saved, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        _outside.append(outside)
        try:
            yield
        finally:
            _outside.clear()
            sys.stderr.flush()
            os.dup2(saved, STDERR)
            with suppress(OSError):  # a terminal that is gone
                outside.close()
            os.close(saved)


class _People:
    """Standard error as people see it, as far as tqdm and `print` need a stream."""

    def _now(self) -> IO[str]:
        ours = sys.stderr is sys.__stderr__ and _outside
        return _outside[0] if ours else sys.stderr

    def write(self, text: str) -> int:
        """Write and show it at once."""
        stream = self._now()
        written = stream.write(text)
        stream.flush()
        return written

    def __eq__(self, other: object) -> bool:
        """A line to the one makes way for a bar on the other."""
        return other is self or other is sys.stderr

    def __hash__(self) -> int:
        return id(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now(), name)


PEOPLE = _People()
"""Where people read: standard error, also inside of `stderr_into`."""
