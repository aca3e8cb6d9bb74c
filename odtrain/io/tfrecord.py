"""TFRecord files of `tf.train.Example`s, written and indexed without TensorFlow.

Preparing data needs these few formats and nothing else of TensorFlow, whose import alone takes
longer than preparing a small data set. What is written here TensorFlow itself reads in training.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from odtrain.addresses import is_in_store
from odtrain.errors import DataError
from odtrain.io.remote.records import OpenedInStore
from odtrain.system.workers import in_threads

MASK_DELTA = 0xA282EAD8
"""TFRecord stores checksums rotated by 15 bits plus this (tensorflow/core/lib/hash/crc32c.h)."""
ONE_BYTE = [bytes((value,)) for value in range(0x80)]

PREPARE_AGAIN = "Delete it and run: odtrain prepare"
HEAD, CHECKSUM = 12, 4
"""Bytes before a payload, its length and that number's checksum, and behind it."""
FRAME = HEAD + CHECKSUM
TOGETHER = 16
"""Records that are asked for at once where they lie in a store."""

Values = Sequence[bytes] | Sequence[float] | Sequence[int]


class FeatureKind(NamedTuple):
    """A field of `tf.train.Feature`, by the type of its values."""

    number: int
    type: type


BYTES, FLOATS, INTS = FeatureKind(1, bytes), FeatureKind(2, float), FeatureKind(3, int)
FEATURE_KINDS = {kind.number: kind for kind in (BYTES, FLOATS, INTS)}


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """One record as it stands in a TFRecord file: length, its checksum, payload, its checksum."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        (
            length,
            struct.pack("<I", _masked_crc(length)),
            payload,
            struct.pack("<I", _masked_crc(payload)),
        )
    )


def encode_example(features: Mapping[str, tuple[FeatureKind, Values]]) -> bytes:
    """A serialized `tf.train.Example`, its keys in alphabetical order so that bytes repeat."""
    entries = [
        _delimited(1, _delimited(1, key.encode()) + _delimited(2, _encode_feature(kind, values)))
        for key, (kind, values) in sorted(features.items())
    ]
    return _delimited(1, b"".join(entries))


def _encode_feature(kind: FeatureKind, values: Values) -> bytes:
    if kind is BYTES:
        content = b"".join(_delimited(1, value) for value in values if isinstance(value, bytes))
    elif kind is FLOATS:
        content = _delimited(1, np.asarray(values, "<f4").tobytes())
    else:
        content = _delimited(1, b"".join(_varint(int(value)) for value in values))
    return _delimited(kind.number, content)


def _delimited(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:  # nearly always
        return ONE_BYTE[value]
    value &= 0xFFFFFFFFFFFFFFFF
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_example(serialized: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """The features of a serialized `tf.train.Example`.

    Raises:
        ValueError: it is none.
    """
    features: dict[str, list[bytes] | list[float] | list[int]] = {}
    try:
        for _, feature_map in _fields(memoryview(serialized)):
            for _, entry in _fields(feature_map):
                parts = dict(_fields(entry))
                for number, content in _fields(parts[2]):
                    features[bytes(parts[1]).decode()] = _decode_values(
                        FEATURE_KINDS[number], content
                    )
    except (IndexError, KeyError) as error:
        raise ValueError("not a tf.train.Example") from error
    return features


def _decode_values(kind: FeatureKind, content: memoryview) -> list[bytes] | list[float] | list[int]:
    values = [value for _, value in _fields(content)]
    if kind is BYTES:
        return [bytes(value) for value in values]
    packed = b"".join(values)
    if kind is FLOATS:
        return [float(value) for value in np.frombuffer(packed, "<f4")]
    return list(_varints(packed))


def _varints(packed: bytes) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _read_varint(memoryview(packed), position)
        yield value - (1 << 64) if value >> 63 else value


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while data[position] & 0x80:
        value |= (data[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")
    return (value | data[position] << shift) & 0xFFFFFFFFFFFFFFFF, position + 1


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field; what is not length-delimited comes as if it were packed."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        start, wire_type = position, tag & 7
        if wire_type == 0:
            _, position = _read_varint(message, position)
        elif wire_type == 2:
            length, start = _read_varint(message, position)
            position = start + length
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > len(message):
            raise ValueError("a field that ends behind its message")
        yield tag >> 3, message[start:position]


class Opened(Protocol):
    """A file that is open to be read, by any number of threads."""

    size: int

    def read(self, offset: int, length: int, whole: Callable[[bytes], bool]) -> bytes:
        """So many bytes from `offset` on, fewer at the end; of a copy only what `whole` takes for whole."""

    def close(self) -> None:
        """Let it go."""


class OpenedHere:
    """A file of this machine's."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, length: int, whole: Callable[[bytes], bool]) -> bytes:
        """Whole or not, it is the file itself."""
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)


@dataclass(frozen=True, eq=False)
class Index:
    """Where every record of some TFRecord files lies; `read` may be called from many threads.

    Attributes:
        opened: the files, closed with the index; what replaces them is not seen.
        file: (N,) which file each record is in.
        offset: (N,) of each record's payload in its file, in bytes.
        length: (N,) of each payload, in bytes.
    """

    opened: tuple[Opened, ...]
    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    closer: weakref.finalize = field(init=False, repr=False)  # type: ignore[type-arg]

    def __post_init__(self) -> None:
        """Arrange for the files to be closed."""
        object.__setattr__(self, "closer", weakref.finalize(self, _close_all, self.opened))

    def __len__(self) -> int:
        """How many records there are."""
        return len(self.offset)

    def read(self, i: int) -> bytes:
        """The payload of record `i`, counted through all files."""
        return self._with_checksum(i)[:-CHECKSUM]

    def read_all(self) -> Iterator[bytes]:
        """Every payload, in order; from elsewhere many are asked for at once."""
        if all(isinstance(each, OpenedHere) for each in self.opened):
            return map(self.read, range(len(self)))
        return in_threads(self.read, range(len(self)), threads=TOGETHER)

    def read_verified(self, i: int) -> bytes | None:
        """The payload of record `i`, or None if its checksum says that it is damaged."""
        payload = self._with_checksum(i)
        return payload[:-CHECKSUM] if _is_whole(payload) else None

    def _with_checksum(self, i: int) -> bytes:
        opened: Opened = self.opened[self.file[i]]
        return opened.read(int(self.offset[i]), int(self.length[i]) + CHECKSUM, _is_whole)


def _is_whole(payload: bytes) -> bool:
    """Whether bytes end with the checksum of those before."""
    checksum: bytes = payload[-CHECKSUM:]
    return checksum == struct.pack("<I", _masked_crc(payload[:-CHECKSUM]))


def _close_all(opened: Sequence[Opened]) -> None:
    for each in opened:
        each.close()


def index_records(files: Sequence[Path], remedy: str = PREPARE_AGAIN) -> Index:
    """Find every record by walking from length to length.

    Args:
        files: here or in a store, in the order in which their records are counted.
        remedy: what to do about a file that is damaged.

    Raises:
        DataError: a file cannot be opened, or is not a whole TFRecord file.
    """
    opened: list[Opened] = []
    try:
        for file in files:
            opened.append(OpenedInStore(file) if is_in_store(file) else OpenedHere(file))
        ends = [each for each in opened if isinstance(each, OpenedInStore)]
        walk = partial(_lengths, remedy=remedy)
        pairs = list(zip(files, opened, strict=True))
        lengths = list(in_threads(walk, pairs, threads=TOGETHER) if ends else map(walk, pairs))
    except OSError as error:
        _close_all(opened)
        raise DataError(files[len(opened)], f"cannot be read: {error.strerror}.", remedy) from None
    except DataError:
        _close_all(opened)
        raise
    offsets = [np.cumsum(each + FRAME) - each - CHECKSUM for each in lengths]
    counts = [len(each) for each in lengths]
    return Index(
        tuple(opened),
        np.repeat(np.arange(len(files), dtype=np.int64), counts),
        np.concatenate([np.empty(0, np.int64), *offsets]),
        np.concatenate([np.empty(0, np.int64), *lengths]),
    )


def _lengths(pair: tuple[Path, Opened], remedy: str) -> NDArray[np.int64]:
    """Length of each payload in a TFRecord file, which a store's copy may remember."""
    file, opened = pair
    known = opened.lengths() if isinstance(opened, OpenedInStore) else None
    if known is not None and int(known.sum()) + FRAME * len(known) == opened.size:
        return known
    lengths = np.fromiter(_walk(file, opened, remedy), np.int64)
    if isinstance(opened, OpenedInStore):
        opened.remember(lengths)
    return lengths


def _walk(file: Path, opened: Opened, remedy: str) -> Iterator[int]:
    """Length of each payload in an open TFRecord file."""
    position = 0
    while position < opened.size:
        head = opened.read(position, HEAD, _is_whole)
        if len(head) < HEAD or not _is_whole(head):
            raise DataError(file, f"is damaged at byte {position}.", remedy)
        length = int(struct.unpack("<Q", head[:8])[0])
        position += FRAME + length
        if position > opened.size:
            size = opened.size
            raise DataError(file, f"ends in the middle of a record, at byte {size}.", remedy)
        yield length
