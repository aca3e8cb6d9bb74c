"""What a key of the configuration may be, as the metadata of its field: `checks` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rules = Mapping[str, Any]
"""What a key may be, as its field's metadata; `checks` reads it."""


def one_of(*choices: str | None) -> Rules:
    """One of these."""
    return {"choices": choices}


def each_of(*choices: str) -> Rules:
    """A list of one or more of these."""
    return {"each_of": choices}


def at_least(least: float) -> Rules:
    """A number no smaller than this, or null where the key's type has it."""
    return {"at_least": least}


def between(least: float, most: float) -> Rules:
    """A number from `least` to `most`."""
    return {"at_least": least, "at_most": most}


FRACTION: Rules = {"fraction": "all"}
"""A number from 0 to 1."""
PART: Rules = {"fraction": "part"}
"""A fraction that leaves something of the whole."""
COUNT_OR_AUTO: Rules = {"number_or": "auto"}
"""A whole number from 1 on, or `auto`."""
FOLDER_NAME: Rules = {"folder_name": True}
"""The name of one folder, on any system."""
LABEL_FORMAT: Rules = one_of(
    *("auto", "voc", "yolo", "coco", "createml", "labelme"),
    *("label_studio", "cvat", "csv", "tfrecord"),
)
"""One of the formats that labels are read in, or `auto`."""
