"""What native libraries print past Python's `sys.stderr`, for which they have no setting."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

STDERR = 2
_one_at_a_time = threading.Lock()  # the descriptor is the whole process's


@contextmanager
def stderr_into(file: IO[Any]) -> Iterator[None]:
    """Inside, the process's standard error goes into `file`."""
    with _one_at_a_time:
        sys.stderr.flush()
        saved = os.dup(STDERR)
        os.dup2(file.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, STDERR)
            os.close(saved)
