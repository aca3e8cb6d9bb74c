"""Record files, one at a time, by whichever process; written whole or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from odtrain.errors import DataError
from odtrain.io.atomic import replacing
from odtrain.io.tfrecord import BYTES, FLOATS, INTS, Kind, Values, encode_example, frame
from odtrain.labels.annotations import LabelledImage
from odtrain.media.images import Picture, encode, finding_of, record_format
from odtrain_runtime.pictures import UnusableError


@dataclass(frozen=True)
class Shard:
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
