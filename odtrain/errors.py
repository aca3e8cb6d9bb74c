"""Errors a user can act on. Anything else that escapes is a bug in odtrain.

OdtrainError
├── ConfigError      a key, type or choice of the configuration is wrong
├── DataError        a picture, a label file or a dataset does not hold what it should
├── CheckpointError  weights cannot be had, or are not those of this network
├── TrainingError    training cannot start, or its loss left the numbers
├── ModelFileError   an exported model file cannot be read or run
└── TrackingError    a run, model or version cannot be found or written
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path

from odtrain.secrets import masked
from odtrain_runtime.errors import ModelFileError as ModelFileError
from odtrain_runtime.errors import OdtrainError as OdtrainError
from odtrain_runtime.plain import plain

MAY_NOT = "{choose} that you may write to."
REMEDIES = {
    errno.ENOSPC: "Free space on that disk, or {choose} on another one.",
    errno.EDQUOT: "Free space in your quota, or {choose} elsewhere.",
    errno.EACCES: MAY_NOT,
    errno.EPERM: MAY_NOT,
    errno.EROFS: MAY_NOT,
}
"""What to do where the operating system refuses to read or write."""
OF_MEMORY = (
    "Cannot allocate memory",
    "OOM when allocating",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment from shared object",
)
"""What the C library, TensorFlow, C++, Python and the loader of libraries say when there is no more."""


class _Masked(OdtrainError):
    """Shows no password and no token of the addresses that it speaks of."""

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        plain = masked(str(where))
        super().__init__(where if plain == str(where) else plain, masked(problem), masked(remedy))


class ConfigError(_Masked):
    """A key, type or choice of the configuration is wrong."""


class DataError(_Masked):
    """A picture, a label file or a dataset does not hold what it should."""


class CheckpointError(_Masked):
    """Weights cannot be had, or are not those of this network."""


class TrainingError(_Masked):
    """Training cannot start, or its loss left the numbers."""


class TrackingError(_Masked):
    """A run, model or version cannot be found or written."""


def choose(where: str, name: str, choices: dict[str, object] | list[str]) -> str:
    """Return `name` if it is one of `choices`.

    Raises:
        ConfigError: it is not; the message lists the choices.
    """
    if name not in choices:
        raise ConfigError(
            where, f'unknown "{name}".', f"Choose one of: {', '.join(sorted(choices))}."
        )
    return name


def unless_memory(error: OSError) -> OSError:
    """The error itself.

    Raises:
        MemoryError: it says that memory ran out, which says nothing of the file.
    """
    if error.errno == errno.ENOMEM:
        raise MemoryError from error
    return error


def is_of_memory(error: BaseException) -> bool:
    """Whether it came of memory that ran out, which libraries say in ways of their own."""
    if isinstance(error, MemoryError | BrokenExecutor):
        return True
    if any(words in str(error) for words in OF_MEMORY):
        return True
    came_of = error.__cause__ or error.__context__
    return came_of is not None and is_of_memory(came_of)


def taken_from(path: str | Path) -> str:
    """`, taken from FOLDER`: where a relative path was looked for; of others nothing."""
    given = Path(path).expanduser()
    return "" if given.is_absolute() else f", taken from {Path.cwd()}"


def first_line(problem: BaseException) -> str:
    """The first line of what went wrong; its kind where it says nothing."""
    text = str(problem).strip()
    return plain(text.splitlines()[0]) if text else type(problem).__name__


def os_remedy(error: OSError, choose: str = "choose a folder") -> str | None:
    """What to do about what the operating system refused; None where that is not about disk or rights.

    Args:
        error: what it said.
        choose: how the user takes another place.
    """
    remedy = REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    return remedy.format(choose=choose[0].upper() + choose[1:] if remedy == MAY_NOT else choose)


@contextmanager
def told_if_not_written(
    where: object,
    remedy: str | Callable[[OSError], str],
    kind: Callable[[object, str, str], OdtrainError] = DataError,
) -> Iterator[None]:
    """Turn what the operating system refuses meanwhile into an error that says what to do.

    Args:
        where: what is written, for errors that name no file.
        remedy: what to do, for some error or for any.
        kind: of the error that is raised.
    """
    try:
        yield
    except OSError as error:
        told = remedy if isinstance(remedy, str) else remedy(error)
        problem = f"cannot be written: {error.strerror or error}."
        raise kind(error.filename or where, problem, told) from error
