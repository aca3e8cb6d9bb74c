"""Flatbuffer tables without generated code, read by slot numbers."""

from __future__ import annotations

from collections.abc import Iterator

from flatbuffers import number_types
from flatbuffers.table import Table as RawTable

LONGEST_VECTOR = 10_000
LONGEST_STRING = 1 << 16
"""Of what a file says of itself: a stranger's may let ten bytes stand for many things at once."""
MOST_READ = 1 << 22
"""Bytes of all lists and texts together, each as often as it is read."""


class Reader:
    """A flatbuffer table, read by slot number; a slot that is not there reads as empty."""

    def __init__(self, content: bytes, position: int, left: list[int] | None = None) -> None:
        """The table that begins at `position` of `content`; tables of one file share what is `left`."""
        self._table = RawTable(content, position)
        self._left = [MOST_READ] if left is None else left

    def _spend(self, size: int) -> None:
        self._left[0] -= size
        if self._left[0] < 0:
            raise ValueError(f"more than {MOST_READ} bytes about itself")

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
        if not at:
            return ""
        length = self._table.Get(number_types.UOffsetTFlags, self._table.Indirect(at))
        if length > LONGEST_STRING:
            raise ValueError(f"a text of {length} bytes")
        self._spend(length)
        return str(self._table.String(at), "utf-8")

    def table(self, slot: int) -> Reader:
        """The table of a slot that is known to be there."""
        return Reader(self._table.Bytes, self._table.Indirect(self._at(slot)), self._left)

    def tables(self, slot: int) -> list[Reader]:
        """The tables of a vector slot."""
        places = (self._table.Indirect(at) for at in self._elements(slot, width=4))
        return [Reader(self._table.Bytes, place, self._left) for place in places]

    def floats(self, slot: int) -> tuple[float, ...]:
        """The numbers of a slot that holds a vector of 32-bit floats."""
        read = self._table.Get
        return tuple(
            float(read(number_types.Float32Flags, at)) for at in self._elements(slot, width=4)
        )

    def _elements(self, slot: int, width: int) -> Iterator[int]:
        offset = self._table.Offset(4 + 2 * slot)
        if offset:
            start, length = self._table.Vector(offset), self._table.VectorLen(offset)
            if length > LONGEST_VECTOR:
                raise ValueError(f"a list of {length} parts")
            self._spend(width * length)
            yield from (start + width * index for index in range(length))
