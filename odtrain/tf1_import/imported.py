"""What a pipeline.config comes to, and what its readers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from odtrain.io.textproto import Field, Message, Token

EXAMPLE = "It is the file whose first lines are: model { ssd { num_classes: 90"
PLACEHOLDER = "PATH_TO_BE_CONFIGURED"
"""What the samples say where a path belongs."""

Value = bool | float | int | str | None | list[float] | list[int]


@dataclass
class Imported:
    """What a pipeline.config comes to.

    Attributes:
        file: it.
        values: dotted key of odtrain -> value.
        num_classes: that the file says, None if it says nothing.
        label_map: that the file names, None if it names none.
        train_records: paths, as they are written.
        eval_records: the same of what is evaluated.
        checkpoint: that training starts from; None for random weights.
        changed: what is done in another way, a sentence each.
        lost: what could not be carried over, a sentence each.
        ignored: names of fields that do not change the result.
    """

    file: Path
    values: dict[str, Value] = field(default_factory=dict)
    num_classes: int | None = None
    label_map: str | None = None
    train_records: list[str] = field(default_factory=list)
    eval_records: list[str] = field(default_factory=list)
    checkpoint: str | None = None
    changed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def lose(self, place: Token, what: str) -> None:
        """Note what could not be carried over, by line."""
        self.lost.append(f"line {place.line}: {what}")

    def change(self, place: Token, what: str) -> None:
        """Note what is done in another way, by line."""
        self.changed.append(f"line {place.line}: {what}")

    def expect(self, message: Message, name: str, ours: Value, default: Value) -> None:
        """Note a field whose value, or default, is another than what odtrain always does."""
        read: Callable[[str], Value] = message.word
        if isinstance(ours, bool):
            read = message.truth
        elif isinstance(ours, int | float):
            read = message.number
        found = message.one(name)
        value = default if found is None else read(name)
        if value != ours:
            said = f"{name}: {_shown(value)}" + ("" if found else " (its default)")
            self.lose(found.token if found else message.start, f"{said}; here {_shown(ours)}.")


def needed(message: Message, name: str) -> Message:
    """A message that must be there.

    Raises:
        DataError: it is not.
    """
    found = message.message(name)
    if found is None:
        raise message.reader.fail(message.start, f"{message.start.text} has no {name} {{ }}.")
    return found


def pass_over(each: Field) -> None:
    """Nothing inside is told one by one: the field as a whole was."""
    if isinstance(each.value, Message):
        for inner in each.value.fields:
            each.value.asked.add(inner.name)
            pass_over(inner)


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
