"""Errors that a user can act on: those of model files and pictures, and what all of odtrain's share."""

from __future__ import annotations

from odtrain_runtime.plain import plain, plain_lines


class OdtrainError(Exception):
    """Says where, what, and what to do: `where: problem` and, on lines of its own, the remedy."""

    def __init__(self, where: object, problem: str, remedy: str) -> None:
        super().__init__(where, problem, remedy)

    def __str__(self) -> str:
        """The message as people see it."""
        where, problem, remedy = self.args
        return f"{plain(where)}: {plain_lines(problem)}\n  {plain_lines(remedy)}"


class ModelFileError(OdtrainError):
    """An exported model file cannot be read or run."""
