"""TFRecord files of `tf.train.Example`s, written and indexed without TensorFlow.

Preparing data needs these few formats and nothing else of TensorFlow, whose import alone takes
longer than preparing a small data set. What is written here TensorFlow itself reads in training.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from odtrain.errors import DataError

MASK_DELTA = 0xA282EAD8
"""TFRecord stores checksums rotated by 15 bits plus this (tensorflow/core/lib/hash/crc32c.h)."""
ONE_BYTE = [bytes((value,)) for value in range(0x80)]

PREPARE_AGAIN = "Delete it and run: odtrain prepare"

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


@dataclass(frozen=True, eq=False)
class Index:
    """Where every record of some TFRecord files lies; `read` may be called from many threads.

    Attributes:
        descriptors: of the open files, closed with the index; what replaces the files is not seen.
        file: (N,) which file each record is in.
        offset: (N,) of each record's payload in its file, in bytes.
        length: (N,) of each payload, in bytes.
    """

    descriptors: tuple[int, ...]
    file: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    closer: weakref.finalize = field(init=False, repr=False)  # type: ignore[type-arg]

    def __post_init__(self) -> None:
        """Arrange for the files to be closed."""
        object.__setattr__(self, "closer", weakref.finalize(self, _close_all, self.descriptors))

    def __len__(self) -> int:
        """How many records there are."""
        return len(self.offset)

    def read(self, i: int) -> bytes:
        """The payload of record `i`, counted through all files."""
        return os.pread(self.descriptors[self.file[i]], int(self.length[i]), int(self.offset[i]))


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def read_verified(index: Index, i: int) -> bytes | None:
    """The payload of record `i`, or None if its checksum says that it is damaged."""
    descriptor, offset, length = (
        index.descriptors[index.file[i]],
        int(index.offset[i]),
        index.length[i],
    )
    payload = os.pread(descriptor, int(length) + 4, offset)
    data, checksum = payload[: int(length)], payload[int(length) :]
    return data if checksum == struct.pack("<I", _masked_crc(data)) else None


def index_records(files: Sequence[Path], remedy: str = PREPARE_AGAIN) -> Index:
    """Find every record by walking from length to length.

    Args:
        files: in the order in which their records are counted.
        remedy: what to do about a file that is damaged.

    Raises:
        DataError: a file cannot be opened, or is not a whole TFRecord file.
    """
    descriptors: list[int] = []
    rows: list[tuple[int, int, int]] = []
    try:
        for number, file in enumerate(files):
            descriptors.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            rows += [
                (number, offset, length) for offset, length in _walk(file, descriptors[-1], remedy)
            ]
    except OSError as error:
        _close_all(tuple(descriptors))
        raise DataError(
            files[len(descriptors)], f"cannot be read: {error.strerror}.", remedy
        ) from None
    except DataError:
        _close_all(tuple(descriptors))
        raise
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Index(tuple(descriptors), table[:, 0], table[:, 1], table[:, 2])


def _walk(file: Path, descriptor: int, remedy: str) -> Iterator[tuple[int, int]]:
    """Offset and length of each payload in an open TFRecord file."""
    size = os.fstat(descriptor).st_size
    position = 0
    while position < size:
        head = os.pread(descriptor, 12, position)
        payload = position + 12
        if len(head) < 12 or struct.unpack("<I", head[8:])[0] != _masked_crc(head[:8]):
            raise DataError(file, f"is damaged at byte {position}.", remedy)
        length = int(struct.unpack("<Q", head[:8])[0])
        position = payload + length + 4
        if position > size:
            raise DataError(file, f"ends in the middle of a record, at byte {size}.", remedy)
        yield payload, length
