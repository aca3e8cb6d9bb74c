"""Flatbuffer tables without generated code, written from slot numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
from flatbuffers import number_types


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
