"""Flatbuffer tables without generated code: written from, and read by, slot numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table as RawTable


class Reader:
    """A flatbuffer table, read by slot number; a slot that is not there reads as empty."""

    def __init__(self, content: bytes, position: int) -> None:
        """The table that begins at `position` of `content`."""
        self._table = RawTable(content, position)

    def _at(self, slot: int) -> int:
        offset = self._table.Offset(4 + 2 * slot)
        return self._table.Pos + offset if offset else 0

    def byte(self, slot: int) -> int:
        """The number of an 8-bit slot."""
        at = self._at(slot)
        return int(self._table.Get(number_types.Int8Flags, at)) if at else 0

    def text(self, slot: int) -> str:
        """The text of a string slot."""
        at = self._at(slot)
        return self._table.String(at).decode("utf-8") if at else ""

    def table(self, slot: int) -> Reader:
        """The table of a slot that is known to be there."""
        return Reader(self._table.Bytes, self._table.Indirect(self._at(slot)))

    def tables(self, slot: int) -> list[Reader]:
        """The tables of a vector slot."""
        places = (self._table.Indirect(at) for at in self._elements(slot, width=4))
        return [Reader(self._table.Bytes, place) for place in places]

    def floats(self, slot: int) -> tuple[float, ...]:
        """The numbers of a slot that holds a vector of 32-bit floats."""
        read = self._table.Get
        return tuple(
            float(read(number_types.Float32Flags, at)) for at in self._elements(slot, width=4)
        )

    def _elements(self, slot: int, width: int) -> Iterator[int]:
        offset = self._table.Offset(4 + 2 * slot)
        if offset:
            start = self._table.Vector(offset)
            yield from (start + width * index for index in range(self._table.VectorLen(offset)))


@dataclass(frozen=True)
class Number:
    """A scalar of a table."""

    kind: Any
    value: int


@dataclass(frozen=True)
class Numbers:
    """A vector of scalars."""

    kind: Any
    values: tuple[float, ...]


Slots = dict[int, "str | Number | Numbers | Slots | list[Slots]"]
"""A flatbuffer table to be written: slot number -> content."""


def byte(value: int) -> Number:
    """An 8-bit scalar."""
    return Number(number_types.Int8Flags, value)


def floats(*values: float) -> Numbers:
    """A vector of 32-bit floats."""
    return Numbers(number_types.Float32Flags, values)


def build(slots: Slots, identifier: bytes) -> bytes:
    """A finished flatbuffer whose root is `slots`."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, slots), file_identifier=identifier)
    return bytes(builder.Output())


def _write_table(builder: Any, slots: Slots) -> int:
    children = {
        slot: _write(builder, value)
        for slot, value in slots.items()
        if not isinstance(value, Number)
    }
    builder.StartObject(max(slots, default=-1) + 1)
    for slot, offset in children.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, value in slots.items():
        if isinstance(value, Number):
            builder.PrependSlot(value.kind, slot, value.value, None)
    return int(builder.EndObject())


def _write(builder: Any, value: str | Numbers | Slots | list[Slots]) -> int:
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Numbers):
        return _write_vector(builder, value.kind, value.values)
    if isinstance(value, list):
        offsets = [_write_table(builder, table) for table in value]
        return _write_vector(builder, number_types.UOffsetTFlags, offsets)
    return _write_table(builder, value)


def _write_vector(builder: Any, kind: Any, values: Sequence[float]) -> int:
    width = kind.bytewidth
    builder.StartVector(width, len(values), width)
    for value in reversed(values):
        if kind is number_types.UOffsetTFlags:
            builder.PrependUOffsetTRelative(value)
        else:
            builder.Prepend(kind, value)
    return int(builder.EndVector())
