"""Which labels somebody has looked at after a model doubted them, so that they are not doubted again.

Kept beside the prepared data set: a picture is known by its bytes, and its labels must be what they were then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from odtrain.io.remote.files import read_json, write_json
from odtrain.labels.annotations import LabelledImage

FILE = "decided.json"


def note_decided(prepared: Path, images: Mapping[str, LabelledImage]) -> None:
    """Remember labels that are right; `images` by the sha256 of the picture's file, hexadecimal."""
    known = read_json(prepared / FILE)
    write_json(
        prepared / FILE, {**known, **{key: labels_digest(one) for key, one in images.items()}}
    )


def is_decided(known: Mapping[str, str], sha256: str, image: LabelledImage) -> bool:
    """Whether a picture's labels are those that somebody found right.

    Args:
        known: as `read_decided` gives it.
        sha256: of the picture's file, hexadecimal.
        image: the picture with its labels.
    """
    return known.get(sha256) == labels_digest(image)


def read_decided(prepared: Path) -> dict[str, str]:
    """sha256 of each picture that was looked at -> what its labels were."""
    return read_json(prepared / FILE)


def labels_digest(image: LabelledImage) -> str:
    """By which the labels of a picture are known again: classes and boxes, to the pixel, in any order."""
    boxes = sorted([item.name, *image.corners(item, 0)] for item in image.objects)
    return hashlib.sha256(repr(boxes).encode("utf-8", "surrogateescape")).hexdigest()
