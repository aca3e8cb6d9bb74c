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


class OdtrainError(Exception):
    """Says where, what, and what to do: `where: problem` and, on lines of its own, the remedy."""

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        super().__init__(where, problem, remedy)

    def __str__(self) -> str:
        """The message as people see it."""
        where, problem, remedy = self.args
        return f"{where}: {problem}\n  {remedy}"


class ConfigError(OdtrainError):
    """A key, type or choice of the configuration is wrong."""


class DataError(OdtrainError):
    """A picture, a label file or a dataset does not hold what it should."""


class CheckpointError(OdtrainError):
    """Weights cannot be had, or are not those of this network."""


class TrainingError(OdtrainError):
    """Training cannot start, or its loss left the numbers."""


class ModelFileError(OdtrainError):
    """An exported model file cannot be read or run."""


class TrackingError(OdtrainError):
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
