"""Checked pictures -> the lists and TFRecord files of a prepared data set.

Record files are written one at a time, by whichever process, whole or not at all. Each of these processes
imports this module, so it imports little.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from odtrain.addresses import is_remote
from odtrain.dataset.tiles import TILE, TILE_OF, Piece
from odtrain.errors import DataError
from odtrain.io.remote.files import is_file, read_bytes, replacing
from odtrain.io.tfrecord import BYTES, FLOATS, INTS, FeatureKind, Values, encode_example, frame
from odtrain.labels.annotations import LabelledImage, normalised
from odtrain.media.images import (
    Picture,
    encode,
    encode_pixels,
    finding_of,
    record_format,
    upright,
)
from odtrain.system.workers import Workers
from odtrain_runtime.pictures import UnusableError
from odtrain_runtime.tiles import Window

if TYPE_CHECKING:
    from odtrain.dataset.check import Checked


class Shard(NamedTuple):
    """One record file and what goes into it.

    Attributes:
        file: where it is to be.
        pieces: pictures or tiles, in order.
        pictures: what the picture of each of the pieces holds.
        source_ids: of each of the pieces.
        class_ids: name -> id, 1-based.
    """

    file: Path
    pieces: list[Piece]
    pictures: list[Picture]
    source_ids: list[int]
    class_ids: dict[str, int]


def write_lists(folder: Path, checked: Checked) -> None:
    """The pictures of each split that has any, one a line: what `data.train_list` and the others take.

    Names alone, or with their folders where two pictures share a name.
    """
    pictures = [image.image for image in checked.images]
    clash = len({normalised(picture.name) for picture in pictures}) < len(pictures)
    root = Path(os.path.commonpath([p.parent for p in pictures])).parent if clash else None
    for split, images in checked.splits.items():
        names = [i.image.name if root is None else i.image.relative_to(root) for i in images]
        if names:
            file = folder / f"{split}_list.txt"
            text = "".join(f"{Path(name).as_posix()}\n" for name in names)
            file.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_records(
    folder: Path, checked: Checked, shards: Mapping[str, int], workers: Workers
) -> None:
    """Every split in as many files as `shards` says, of nearly equal numbers of pictures, by name.

    Files that are there already are kept: they are those of a call that was killed.

    Raises:
        DataError: a picture changed since it was checked.
    """
    class_ids = {name: number for number, name in enumerate(checked.class_names, start=1)}
    by_split = {split: pieces_of(checked, split) for split in checked.splits}
    by_name = sorted(chain.from_iterable(by_split.values()), key=_name_and_place)
    source_ids = {_place(piece): number for number, piece in enumerate(by_name, start=1)}

    def shard(file: Path, part: list[Piece]) -> Shard:
        pictures = [checked.pictures[piece.image.image] for piece in part]
        return Shard(file, part, pictures, [source_ids[_place(piece)] for piece in part], class_ids)

    tasks = []
    for split, pieces in by_split.items():
        rest = iter(pieces)
        lengths = _shard_lengths(len(pieces), shards[split])
        for number, length in enumerate(lengths):
            file = folder / f"{split}.record-{number:05d}-of-{len(lengths):05d}"
            tasks.append(shard(file, list(islice(rest, length))))
    for _ in workers.map(write_shard, tasks, "writing records", chunk=1, pictures=len(by_name)):
        pass


def pieces_of(checked: Checked, split: str) -> list[Piece]:
    """What the records of a split are of: its pictures, or what those of training are cut into."""
    if split == "train" and checked.cut is not None:
        return checked.cut.pieces
    return [Piece(image) for image in checked.splits[split]]


def _place(piece: Piece) -> tuple[Path, Window | None]:
    return piece.image.image, piece.window


def _name_and_place(piece: Piece) -> tuple[str, tuple[int, ...]]:
    return normalised(piece.image.image.name), piece.window or ()


def _shard_lengths(pictures: int, shards: int) -> list[int]:
    """How many pictures each shard gets; no shard is empty."""
    shards = min(shards, pictures)
    return [pictures // shards + (number < pictures % shards) for number in range(shards)]


def write_shard(shard: Shard) -> None:
    """Write a shard, unless it is there: then it is whole, and of the same pictures.

    Raises:
        DataError: a picture changed since it was checked.
    """
    if is_file(shard.file):
        return
    with replacing(shard.file) as part, part.open("wb") as stream:
        rows = zip(shard.pieces, shard.pictures, shard.source_ids, strict=True)
        for _, several in groupby(rows, key=lambda row: row[0].image.image):
            for serialized in _serialized(list(several), shard.class_ids):
                stream.write(frame(serialized))


def _serialized(
    rows: Sequence[tuple[Piece, Picture, int]], class_ids: dict[str, int]
) -> Iterator[bytes]:
    """Pieces of one picture and their boxes, each as a serialized `tf.train.Example`.

    Raises:
        DataError: the picture changed since it was checked.
    """
    (first, _), picture, _ = rows[0]
    try:
        data = _content(first.image, picture)
    except OSError as error:
        problem = f"cannot be read any more: {error.strerror}."
        raise DataError(first.image, problem, "Run the command again.") from None
    if hashlib.sha256(data).hexdigest() != picture.content:
        raise DataError(first.image, "changed while it was read.", "Run the command again.")
    try:
        rgb = upright(first.image, data, picture) if any(row[0].window for row in rows) else None
        for (image, window), _, source_id in rows:
            if window is None or rgb is None:
                encoded, verbatim = encode(image.image, data, picture), picture.verbatim
            else:
                top, left, height, width = window
                part = rgb.crop((left, top, left + width, top + height))
                encoded, verbatim = encode_pixels(part, picture), False
            content = picture.content if verbatim else hashlib.sha256(encoded).hexdigest()
            features = _features(image, picture, source_id, class_ids, encoded, content)
            yield encode_example(features | _of_tile(image, window, picture))
    except UnusableError as error:
        raise DataError(first.image, error.cause, finding_of(error).remedy) from None


def _content(file: Path, picture: Picture) -> bytes:
    """The bytes of a picture: of a copy that is here if these are the ones that were looked at."""
    data = read_bytes(file, as_held=True)
    if is_remote(file) and hashlib.sha256(data).hexdigest() != picture.content:
        data = read_bytes(file)
    return data


def _of_tile(
    image: LabelledImage, window: Window | None, picture: Picture
) -> dict[str, tuple[FeatureKind, Values]]:
    """What a tile's record has besides, or otherwise: its name, where it lies, and in which picture."""
    if window is None:
        return {}
    name = f"{image.image.stem}-y{window.top}-x{window.left}{image.image.suffix}"
    return {
        "image/filename": (BYTES, [_name_bytes(Path(name))]),
        TILE_OF: (BYTES, [_name_bytes(image.image)]),
        TILE: (INTS, [*window, picture.height, picture.width]),
    }


def _features(
    image: LabelledImage,
    picture: Picture,
    source_id: int,
    class_ids: dict[str, int],
    encoded: bytes,
    sha256: str,
) -> dict[str, tuple[FeatureKind, Values]]:
    """The keys that the TF1 Object Detection API and Model Garden read."""
    objects = image.objects
    ymin, xmin, ymax, xmax = ([item.yxyx[side] for item in objects] for side in range(4))
    return {
        "image/encoded": (BYTES, [encoded]),
        "image/format": (BYTES, [record_format(picture.format).encode()]),
        "image/height": (INTS, [image.height]),
        "image/width": (INTS, [image.width]),
        "image/filename": (BYTES, [_name_bytes(image.image)]),
        "image/source_id": (BYTES, [str(source_id).encode()]),
        "image/key/sha256": (BYTES, [sha256.encode()]),
        "image/object/bbox/ymin": (FLOATS, ymin),
        "image/object/bbox/xmin": (FLOATS, xmin),
        "image/object/bbox/ymax": (FLOATS, ymax),
        "image/object/bbox/xmax": (FLOATS, xmax),
        "image/object/class/text": (BYTES, [item.name.encode() for item in objects]),
        "image/object/class/label": (INTS, [class_ids[item.name] for item in objects]),
        "image/object/difficult": (INTS, [int(item.difficult) for item in objects]),
        "image/object/truncated": (INTS, [int(item.truncated) for item in objects]),
    }


def _name_bytes(file: Path) -> bytes:
    return file.name.encode("utf-8", errors="surrogateescape")
