"""Checked pictures -> the CSVs and TFRecord files of a prepared data set."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

from odtrain.annotations import LabelledImage, normalised
from odtrain.dataset import Examined
from odtrain.errors import DataError
from odtrain.inspection import in_threads
from odtrain.pictures import Picture, UnusableError, encode, record_format
from odtrain.splits import SPLITS
from odtrain.tfrecord import BYTES, FLOATS, INTS, Kind, Values, encode_example, frame


def write_records(folder: Path, examined: Examined, shards: int) -> None:
    """Every split in up to `shards` files of nearly equal numbers of pictures, by name.

    Raises:
        DataError: a picture changed since it was checked.
    """
    class_ids = {name: number for number, name in enumerate(examined.class_names, start=1)}
    images = [image for split in SPLITS for image in examined.splits[split]]
    by_name = sorted(images, key=lambda image: normalised(image.image.name))
    source_ids = {image.image: number for number, image in enumerate(by_name, start=1)}

    def record(image: LabelledImage) -> bytes:
        picture = examined.pictures[image.image]
        return frame(_serialized(image, picture, source_ids[image.image], class_ids))

    records = in_threads(record, images, "writing records")
    for split in SPLITS:
        lengths = _shard_lengths(len(examined.splits[split]), shards)
        for number, length in enumerate(lengths):
            file = folder / f"{split}.record-{number:05d}-of-{len(lengths):05d}"
            with file.open("wb") as stream:
                stream.writelines(islice(records, length))


def _shard_lengths(pictures: int, shards: int) -> list[int]:
    """How many pictures each shard gets; no shard is empty."""
    shards = min(shards, pictures)
    return [pictures // shards + (number < pictures % shards) for number in range(shards)]


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
        raise DataError(image.image, error.finding.cause, error.finding.remedy) from None
    return encode_example(_features(image, picture, source_id, class_ids, encoded))


def _features(
    image: LabelledImage,
    picture: Picture,
    source_id: int,
    class_ids: dict[str, int],
    encoded: bytes,
) -> dict[str, tuple[Kind, Values]]:
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
