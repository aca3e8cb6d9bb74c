"""What odtrain says while it works: on the terminal beside progress bars, and in a file with time and place.

Modules say things by `logging.getLogger(__name__)`: INFO and above is for whoever runs the command, in the
words that they read; DEBUG is for who looks for a fault. Imported as a library odtrain adds no handler
before a job is called.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from odtrain.secrets import masked
from odtrain_runtime.native_stderr import PEOPLE
from odtrain_runtime.plain import plain_lines

ROOT = logging.getLogger("odtrain")
ROOT.addHandler(logging.NullHandler())
IN_FILES = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LEVELS = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}
"""By how much is said: with -q, by default, with -v."""

MOST_REMEMBERED = 1000


class Terminal(logging.Handler):
    """Lines on stderr as they are, above a progress bar that may be there."""

    last = 0.0
    """When something was said, on the clock of `time.monotonic`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; a terminal that is gone stops nothing."""
        try:
            line = plain_lines(self.format(record))
            where = f"{record.name}: " if record.levelno < logging.INFO else ""
            Terminal.last = time.monotonic()
            tqdm.write(masked(where + line), file=PEOPLE)
        except OSError:
            return


def show(verbosity: int = 0) -> None:
    """Say things on the terminal from now on; a later call changes how much.

    Args:
        verbosity: a key of `LEVELS`; what lies beyond counts as the nearest.
    """
    terminal = next((one for one in ROOT.handlers if isinstance(one, Terminal)), None)
    if terminal is None:
        terminal = Terminal()
        ROOT.addHandler(terminal)
    terminal.setLevel(LEVELS[max(min(verbosity, max(LEVELS)), min(LEVELS))])
    # Handlers choose; the file of a run has everything. Others' handlers, which libraries put up when they
    # warn, would say all of it again.
    ROOT.setLevel(logging.DEBUG)
    ROOT.propagate = False


def last_said() -> float:
    """When the last line was said on the terminal, on the clock of `time.monotonic`."""
    return Terminal.last


def told() -> int | None:
    """The lowest level that is said on the terminal; None where nothing is."""
    return next((one.level for one in ROOT.handlers if isinstance(one, Terminal)), None)


def show_if_nobody_does() -> None:
    """As `show`, for a job called from Python, unless the program has set up logging of its own."""
    own = [one for one in ROOT.handlers if not isinstance(one, logging.NullHandler | _Memory)]
    if not own and not logging.getLogger().handlers:
        show()


class _Memory(logging.Handler):
    """What was said before there was a file for it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=MOST_REMEMBERED)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def remembering() -> Iterator[None]:
    """Keep what is said until the file of a run begins: the first one has it too."""
    memory = _Memory()
    ROOT.addHandler(memory)
    try:
        yield
    finally:
        ROOT.removeHandler(memory)


@contextmanager
def collected() -> Iterator[list[str]]:
    """The lines that are said meanwhile, from warnings on, for whoever says them elsewhere."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    handler = Lines(logging.WARNING)
    ROOT.addHandler(handler)
    try:
        yield lines
    finally:
        ROOT.removeHandler(handler)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain_lines(super().format(record))


class _File(logging.FileHandler):
    def format(self, record: logging.LogRecord) -> str:
        """With a traceback, where there is one; without passwords."""
        return masked(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk stops no training: the line was on the terminal too."""


@contextmanager
def also_in(file: Path) -> Iterator[None]:
    """Append all that is said meanwhile to a file, with time, level and module, and what is remembered."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = _File(file, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(_Plain(IN_FILES))
    before = ROOT.level
    ROOT.setLevel(logging.DEBUG)
    ROOT.addHandler(handler)
    for memory in [one for one in ROOT.handlers if isinstance(one, _Memory)]:
        ROOT.removeHandler(memory)
        for record in memory.records:
            handler.handle(record)
    try:
        yield
    finally:
        ROOT.removeHandler(handler)
        ROOT.setLevel(before)
        with suppress(OSError):  # the disk is still full
            handler.close()
