"""TFRecord files of the TensorFlow 1 Object Detection API: labels and pictures in one.

The pictures are unpacked into a folder of odtrain's own, so that they are checked, split and drawn as
pictures of any data set are; the user's file is only read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from odtrain.errors import DataError
from odtrain.findings import Finding
from odtrain.io.atomic import read_json, write_bytes
from odtrain.io.remote.files import local, stat_of
from odtrain.io.tfrecord import decode_example, index_records
from odtrain.labels.annotations import Entry, UnreadableError, WrittenObject
from odtrain.labels.formats.reading import (
    CROWD,
    UNUSABLE,
    Corners,
    Reading,
    Sources,
    class_name,
    entry_of_picture,
    flag,
    number,
    picture_name,
    printable,
    size_of,
)
from odtrain.labels.label_map import read_label_map
from odtrain.system.progress import Bar

RECORD_NAME = re.compile(
    r"(?P<part>.+?)(\.(tfrecords?|records?)(-\d{5}-of-\d{5})?|-\d{5}-of-\d{5}(\.(tfrecords?|records?))?)",
    re.IGNORECASE,
)
SPLIT_WORDS = {"train", "training", "validation", "valid", "val", "test", "testing"}
MANIFEST = "unpacked.json"
MAX_LABEL_MAP_BYTES = 2_000_000
MOST_USELESS = 10_000
"""Records without a picture, damaged ones included, after which a file is not read any further."""
TOO_MANY = f"has more than {MOST_USELESS:,} records without a picture; it is not read any further."
MAGIC = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
"""How a file begins -> the suffix that tells the truth about it."""
SIDES = ("xmin", "ymin", "xmax", "ymax")
WITH_PICTURES = (
    "Write the records again with the pictures in them (CVAT: Save images), or give pictures and labels "
    "in another format."
)
COMPRESSED = {b"\x1f\x8b": "GZIP", b"\x78\x01": "ZLIB", b"\x78\x9c": "ZLIB", b"\x78\xda": "ZLIB"}
"""How a compressed file begins -> by what it is compressed."""
REMEDY = "Write it again, or move it out of the folder."


def record_files(files: Sequence[Path]) -> list[Path]:
    """Those of `files` whose names are of TFRecord files."""
    return [file for file in files if RECORD_NAME.fullmatch(file.name)]


def read(sources: Sources) -> Reading:
    """What the records say; pictures are called as `unpack` calls them."""
    reading = Reading(crowd=sources.crowd)
    ids = _Ids(sources, reading)
    names = _Names()
    for file in record_files(sources.labels):
        try:
            reading.files += 1
            for position, example in _examples(file, reading):
                if name := names.of(file, example):
                    reading.entries.append(_entry(file, position, name, example, ids, reading))
                else:
                    reading.fault(file, "OD032", f"record {position} has no image/encoded.")
        except UnreadableError as error:
            reading.refuse(error)
    return reading


def about_records(files: Sequence[Path]) -> Iterator[Finding]:
    """Why no picture comes out of these files: of each OD030 if it cannot be read, else OD001."""
    for file in files:
        reading = Reading()
        try:
            count = sum(1 for _ in _examples(file, reading))
        except UnreadableError as error:
            yield error.finding
            continue
        yield from reading.findings[:1]
        if count:
            cause = f"holds {count:,} records, but no picture: none has image/encoded."
            yield Finding.of("OD001", file, cause, remedy=WITH_PICTURES)
        elif not reading.findings:
            yield Finding.of("OD001", file, "holds no records.", remedy=REMEDY)


def _examples(file: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    """Position (from 1) and features of each record that can be read.

    Raises:
        UnreadableError: OD030.
    """
    try:
        index = index_records([file], REMEDY)
    except DataError as error:
        _, cause, remedy = error.args
        if kind := COMPRESSED.get(_beginning(file)):
            cause = f"is compressed by {kind}, and records are read uncompressed."
            remedy = (
                f"Unpack it: mv {file} {file}.gz && gunzip {file}.gz" if kind == "GZIP" else REMEDY
            )
        raise UnreadableError(Finding.of("OD030", file, cause, remedy=remedy)) from None
    useless = 0
    for i in range(len(index)):
        if useless > MOST_USELESS:
            raise UnreadableError(Finding.of("OD030", file, TOO_MANY, remedy=WITH_PICTURES))
        payload = index.read_verified(i)
        try:
            if payload is not None:
                example = decode_example(payload)
                useless += not example.get("image/encoded")
                yield i + 1, example
                continue
            cause = f"record {i + 1} is damaged: its checksum is wrong."
        except ValueError:
            cause = f"record {i + 1} is no tf.train.Example."
        useless += 1
        reading.fault(file, "OD032", cause)


def _beginning(file: Path) -> bytes:
    with suppress(OSError), local(file, as_held=True).open("rb") as stream:
        return stream.read(2)
    return b""


class _Names:
    """The name, with folder and suffix, of each picture; the same for the same records."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.last: dict[str, int] = {}

    def of(self, file: Path, example: dict[str, Any]) -> str:
        """`train/img1.jpg`; empty where the record has no picture."""
        encoded = _first_bytes(example, "image/encoded")
        if not encoded:
            return ""
        written = picture_name(_text(example, "image/filename")).rpartition("/")[2]
        stem = printable(Path(written).stem).strip(" .")[:80] or "image"
        suffix = next((MAGIC[start] for start in MAGIC if encoded.startswith(start)), ".jpg")
        number = self.last.get(stem, 1)  # all before are taken
        while (free := stem if number == 1 else f"{stem}-{number}").casefold() in self.taken:
            number += 1
        self.last[stem] = number
        self.taken.add(free.casefold())
        return f"{_part(file)}/{free}{suffix}"


def _part(file: Path) -> str:
    """The split that a record file's name speaks of, else the name itself."""
    match = RECORD_NAME.fullmatch(file.name)
    part = match["part"] if match else file.stem
    words = [word for word in re.split(r"[^a-z]+", part.lower()) if word in SPLIT_WORDS]
    return words[-1] if words else printable(part).strip(" .") or "records"


class _Ids:
    """Class names by number, from the label map among the files."""

    def __init__(self, sources: Sources, reading: Reading) -> None:
        self.maps: dict[Path, tuple[str, ...]] = {}
        self.broken = False
        for file in [*sources.labels, *sources.others]:
            if file.suffix.lower() == ".pbtxt" and _is_small(file):
                try:
                    self.maps[file] = read_label_map(file)
                except DataError as error:
                    where, cause, remedy = error.args
                    self.broken = True
                    about = Finding.of("OD020", where, cause, remedy=remedy or None)
                    reading.findings.append(about)
                except RecursionError:
                    self.broken = True
                    reading.fault(file, "OD020", "is nested too deep.")

    def name(self, file: Path, class_id: Any) -> str:
        """The name of `class_id` in the label map nearest to `file`; empty where it has none."""
        beside = [names for where, names in self.maps.items() if where.parent == file.parent]
        different = set(beside or self.maps.values())
        if len(different) != 1 or not isinstance(class_id, int):
            return ""
        names = next(iter(different))
        return class_name(names[class_id - 1]) if 1 <= class_id <= len(names) else ""


def _is_small(file: Path) -> bool:
    try:
        return _stat(file)[0] <= MAX_LABEL_MAP_BYTES
    except OSError:
        return False


def _first_bytes(example: dict[str, Any], key: str) -> bytes:
    values = example.get(key) or [b""]
    return values[0] if isinstance(values[0], bytes) else b""


def _text(example: dict[str, Any], key: str) -> str:
    return _first_bytes(example, key).decode("utf-8", "replace")


def _entry(
    file: Path,
    position: int,
    name: str,
    example: dict[str, Any],
    ids: _Ids,
    reading: Reading,
) -> Entry:
    sides = [example.get("image/width") or [None], example.get("image/height") or [None]]
    size = size_of(sides[0][0], sides[1][0])
    objects = [
        item
        for i, corners in enumerate(_boxes(file, position, example, reading))
        if (item := _object(file, position, i, corners, example, ids, reading))
    ]
    left_out = reading.left_out()
    return entry_of_picture(file, [name], size, objects, left_out, relative=True, shared=True)


def _boxes(
    file: Path, position: int, example: dict[str, Any], reading: Reading
) -> list[Corners | None]:
    """The box of each object; None for one that is no number."""
    sides = [example.get(f"image/object/bbox/{side}") or [] for side in SIDES]
    if len({len(side) for side in sides}) > 1:
        reading.spoil(file, "OD032", f"record {position} has boxes of which a side is missing.")
        return []
    boxes: list[Corners | None] = []
    for values in zip(*sides, strict=True):
        known = [value for value in map(number, values) if value is not None]
        boxes.append((known[0], known[1], known[2], known[3]) if len(known) == 4 else None)
    return boxes


def _object(
    file: Path,
    position: int,
    i: int,
    corners: Corners | None,
    example: dict[str, Any],
    ids: _Ids,
    reading: Reading,
) -> WrittenObject | None:
    def value(key: str) -> Any:
        values = example.get(f"image/object/{key}") or []
        return values[i] if i < len(values) else None

    if flag(value("is_crowd")):
        if not reading.crowd:
            reading.leave_out(CROWD)
            return None
        reading.tally("crowd_taken")
    text = value("class/text")
    name = class_name(text.decode("utf-8", "replace")) if isinstance(text, bytes) else ""
    numbered = ids.name(file, value("class/label"))
    if name and numbered not in ("", name):
        reading.tally("disagree")
    name = name or numbered
    said = f"object {i + 1} of record {position}"
    if not name:
        cause = f"{said} has neither a class/text nor a class/label that a label map names."
        reading.leave_out(UNUSABLE)
        if not ids.broken:  # then that is to be put right first
            reading.fault(file, "OD034", cause)
        return None
    if corners is None:
        reading.spoil(file, "OD032", f'{said}, "{name}", has a side that is no number.')
        return None
    return WrittenObject(name, corners, flag(value("difficult")), flag(value("truncated")))


def unpack(files: Sequence[Path], folder: Path) -> list[Path]:
    """The pictures in the record files, each written to `folder` unless it is there already.

    A picture is there whole or not at all. What an earlier call wrote of files that are no longer
    given is removed. What is wrong with a file, `read` says.
    """
    sources = {str(file): _stat(file) for file in files}
    manifest = folder / MANIFEST
    earlier = read_json(manifest)
    written: dict[str, int] = earlier.get("pictures", {})
    if earlier.get("sources") == sources and all(
        _stat(folder / name)[0] == size for name, size in written.items()
    ):
        return [folder / name for name in written]
    pictures: dict[str, int] = {}
    names = _Names()
    for name, encoded in Bar(
        _pictures(files, names), doing="unpacking records", delay=1, leave=False
    ):
        _write(folder / name, encoded)
        pictures[name] = len(encoded)
    for name in written.keys() - pictures.keys():
        if picture_name(name) == name:
            (folder / name).unlink(missing_ok=True)
    _write(manifest, json.dumps({"sources": sources, "pictures": pictures}).encode())
    return [folder / name for name in pictures]


def _pictures(files: Sequence[Path], names: _Names) -> Iterator[tuple[str, bytes]]:
    for file in files:
        try:
            for _, example in _examples(file, Reading()):
                if name := names.of(file, example):
                    yield name, _first_bytes(example, "image/encoded")
        except UnreadableError:
            continue


def _stat(file: Path) -> list[int]:
    try:
        stat = stat_of(file)
    except OSError:
        return [-1, -1]
    return [-1, -1] if stat is None else list(stat)


def _write(file: Path, data: bytes) -> None:
    """Write `file` so that it is there whole or not at all; not again if it holds `data`."""
    if file.is_file() and _stat(file)[0] == len(data) and file.read_bytes() == data:
        return
    write_bytes(file, data, durable=False)  # one that a power cut cuts short is unpacked again
