"""Checked pictures -> the lists and TFRecord files of a prepared data set.

Record files are written one at a time, by whichever process, whole or not at all. Each of these processes
imports this module, so it imports little.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from odtrain.errors import DataError
from odtrain.io.atomic import replacing
from odtrain.io.tfrecord import BYTES, FLOATS, INTS, FeatureKind, Values, encode_example, frame
from odtrain.labels.annotations import LabelledImage, normalised
from odtrain.media.images import Picture, encode, finding_of, record_format
from odtrain.system.workers import Workers
from odtrain_runtime.pictures import UnusableError

if TYPE_CHECKING:
    from odtrain.dataset.check import Checked


class Shard(NamedTuple):
    """One record file and what goes into it.

    Attributes:
        file: where it is to be.
        images: in order.
        pictures: what each of the images holds.
        source_ids: of each of the images.
        class_ids: name -> id, 1-based.
    """

    file: Path
    images: list[LabelledImage]
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
    by_name = sorted(checked.images, key=lambda image: normalised(image.image.name))
    source_ids = {image.image: number for number, image in enumerate(by_name, start=1)}

    def shard(file: Path, part: list[LabelledImage]) -> Shard:
        pictures = [checked.pictures[image.image] for image in part]
        return Shard(file, part, pictures, [source_ids[image.image] for image in part], class_ids)

    tasks = []
    for split, images in checked.splits.items():
        rest = iter(images)
        lengths = _shard_lengths(len(images), shards[split])
        for number, length in enumerate(lengths):
            file = folder / f"{split}.record-{number:05d}-of-{len(lengths):05d}"
            tasks.append(shard(file, list(islice(rest, length))))
    for _ in workers.map(write_shard, tasks, "writing records", chunk=1, pictures=len(by_name)):
        pass


def _shard_lengths(pictures: int, shards: int) -> list[int]:
    """How many pictures each shard gets; no shard is empty."""
    shards = min(shards, pictures)
    return [pictures // shards + (number < pictures % shards) for number in range(shards)]


def write_shard(shard: Shard) -> None:
    """Write a shard, unless it is there: then it is whole, and of the same pictures.

    Raises:
        DataError: a picture changed since it was checked.
    """
    if shard.file.exists():
        return
    with replacing(shard.file) as part, part.open("wb") as stream:
        rows = zip(shard.images, shard.pictures, shard.source_ids, strict=True)
        for image, picture, source_id in rows:
            stream.write(frame(_serialized(image, picture, source_id, shard.class_ids)))


def _serialized(
    image: LabelledImage, picture: Picture, source_id: int, class_ids: dict[str, int]
) -> bytes:
    """The picture and its boxes as a serialized `tf.train.Example`.

    Raises:
        DataError: the picture changed since it was checked.
    """
    try:
        data = image.image.read_bytes()
    except OSError as error:
        problem = f"cannot be read any more: {error.strerror}."
        raise DataError(image.image, problem, "Run the command again.") from None
    if hashlib.sha256(data).hexdigest() != picture.content:
        raise DataError(image.image, "changed while it was read.", "Run the command again.")
    try:
        encoded = encode(image.image, data, picture)
    except UnusableError as error:
        raise DataError(image.image, error.cause, finding_of(error).remedy) from None
    return encode_example(_features(image, picture, source_id, class_ids, encoded))


def _features(
    image: LabelledImage,
    picture: Picture,
    source_id: int,
    class_ids: dict[str, int],
    encoded: bytes,
) -> dict[str, tuple[FeatureKind, Values]]:
    """The keys that the TF1 Object Detection API and Model Garden read."""
    objects = image.objects
    sha256 = picture.content if picture.verbatim else hashlib.sha256(encoded).hexdigest()
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
