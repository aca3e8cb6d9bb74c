"""Protocol buffers field by field, as the bytes hold them: nothing is copied or unpacked that is not asked for.

The format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10
MOST_FIELDS = 4_000_000
"""Of a file: a network of a thousand layers has some ten thousand."""


class Field(NamedTuple):
    """A field: its number, how it is written, its value if that is a number, and where its bytes are."""

    number: int
    kind: int
    value: int
    start: int
    end: int


class Message:
    """A part of some bytes that is a message; parts of one file share what is `left` to read."""

    def __init__(
        self,
        content: memoryview,
        start: int = 0,
        end: int | None = None,
        left: list[int] | None = None,
    ) -> None:
        """The message between `start` and `end`."""
        self.content, self.start = content, start
        self.end = len(content) if end is None else end
        self._left = [MOST_FIELDS] if left is None else left

    def __iter__(self) -> Iterator[Field]:
        """The fields in their order.

        Raises:
            ValueError: the bytes are no message, or there are too many fields.
        """
        at = self.start
        while at < self.end:
            self._left[0] -= 1
            if self._left[0] < 0:
                raise ValueError(f"more than {MOST_FIELDS:,} fields")
            tag, at = self._varint(at)
            number, kind = tag >> 3, tag & 7
            begin, value = at, 0
            if kind == VARINT:
                value, at = self._varint(at)
            elif kind in (FIXED64, FIXED32):
                at += 8 if kind == FIXED64 else 4
            elif kind == BYTES:
                length, begin = self._varint(at)
                at = begin + length
            else:
                raise ValueError(f"a field of kind {kind}")
            if number == 0 or at > self.end:
                raise ValueError("it ends in the middle of a field")
            yield Field(number, kind, value, begin, at)

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(LONGEST_VARINT):
            if at >= self.end:
                raise ValueError("it ends in the middle of a field")
            byte = self.content[at]
            at += 1
            value |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                return value, at
        raise ValueError("a number of more than 64 bits")

    def inside(self, field: Field) -> Message:
        """The message that a field holds."""
        if field.kind != BYTES:
            raise ValueError(f"field {field.number} is no message")
        return Message(self.content, field.start, field.end, self._left)

    def text(self, field: Field, longest: int) -> str:
        """The text that a field holds.

        Raises:
            ValueError: it is longer, or no UTF-8.
        """
        if field.kind != BYTES or field.end - field.start > longest:
            raise ValueError(f"a text of more than {longest:,} bytes")
        return bytes(self.content[field.start : field.end]).decode("utf-8")

    def numbers(self, field: Field) -> Iterator[int]:
        """The whole numbers of a field that is repeated, packed or not."""
        if field.kind == VARINT:
            yield field.value
            return
        at, packed = field.start, self.inside(field)
        while at < field.end:
            self._left[0] -= 1
            if self._left[0] < 0:
                raise ValueError(f"more than {MOST_FIELDS:,} fields")
            value, at = packed._varint(at)
            yield value
