"""One at a time, of processes and threads of one machine, by lock files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from odtrain.errors import OdtrainError

logger = logging.getLogger(__name__)


@contextmanager
def alone(
    file: Path, *, busy: OdtrainError | None = None, waits: str = "", after: float = 0
) -> Iterator[None]:
    """Hold a lock; a process that is killed gives it back.

    Args:
        file: of the lock; made, with the folder that it is in. It stays.
        busy: raised where another one holds it; without, this waits.
        waits: told on stderr when this has waited for `after` seconds.
        after: see `waits`.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=after if busy or waits else -1)
    except Timeout:
        if busy:
            raise busy from None
        logger.info(waits)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
