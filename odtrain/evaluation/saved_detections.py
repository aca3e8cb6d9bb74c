"""What was found in a split, kept beside the run: two runs are compared in seconds, without their networks.

A folder holds `labels.npz`, the pictures' keys and boxes; `evaluated.npz`, what the numbers `eval/` of the
run are of; and a file for each export, such as `tflite_int8.npz`. Boxes and scores are kept as float32,
so that every number follows from them again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odtrain.errors import DataError
from odtrain.io.atomic import replacing
from odtrain.structures import Detections, GroundTruth, LabelledSplit

FOLDER = "detections"
LABELS = "labels.npz"
EVALUATED = "evaluated"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Kept:
    """What one detector found in a split.

    Attributes:
        split: digest of the labelled pictures.
        detections: one per picture, in the order of `labels.npz`.
        class_names: that the class ids mean, index 0 = class id 1.
        facts: further numbers and texts: `sha256` of the file that ran, `latency_ms_p50`, ...
    """

    split: str
    detections: list[Detections]
    class_names: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def write_labelled(folder: Path, split: LabelledSplit) -> None:
    """Write `labels.npz` into a folder, which is made."""
    truths = split.truths
    _write(
        folder / LABELS,
        class_names=np.array(split.class_names, np.str_),
        keys=np.array(split.keys, np.str_),
        names=np.array([truth.name for truth in truths], np.str_),
        sizes=np.array([(truth.height, truth.width) for truth in truths], np.int64).reshape(-1, 2),
        counts=np.array([len(truth.classes) for truth in truths], np.int64),
        boxes=_joined([truth.boxes for truth in truths], (0, 4), np.float32),
        classes=_joined([truth.classes for truth in truths], (0,), np.int64),
    )


def read_labelled(folder: Path) -> LabelledSplit:
    """Read what `write_labelled` wrote.

    Raises:
        DataError: it is not there, or is damaged.
    """
    content = _read(folder / LABELS, "class_names keys names sizes counts boxes classes")
    boxes, classes = (_parted(content[key], content["counts"]) for key in ("boxes", "classes"))
    rows = zip(content["names"].tolist(), content["sizes"].tolist(), boxes, classes, strict=True)
    truths = [GroundTruth(name, size[0], size[1], box, ids) for name, size, box, ids in rows]
    names, keys = tuple(content["class_names"].tolist()), tuple(content["keys"].tolist())
    return LabelledSplit(names, truths, keys)


def write_kept(file: Path, kept: Kept) -> None:
    """Write what a detector found; the folder is made."""
    found = kept.detections
    _write(
        file,
        split=np.array(kept.split),
        class_names=np.array(kept.class_names, np.str_),
        facts=np.array(json.dumps(kept.facts)),
        counts=np.array([len(each) for each in found], np.int64),
        boxes=_joined([each.boxes for each in found], (0, 4), np.float32),
        scores=_joined([each.scores for each in found], (0,), np.float32),
        classes=_joined([each.classes for each in found], (0,), np.int32),
    )


def read_kept(file: Path) -> Kept:
    """Read what `write_kept` wrote.

    Raises:
        DataError: it is not there, or is damaged.
    """
    content = _read(file, "split class_names facts counts boxes scores classes")
    parts = (_parted(content[key], content["counts"]) for key in ("boxes", "scores", "classes"))
    detections = [
        Detections(boxes, scores, classes.astype(np.int64))
        for boxes, scores, classes in zip(*parts, strict=True)
    ]
    names = tuple(content["class_names"].tolist())
    return Kept(str(content["split"]), detections, names, json.loads(str(content["facts"])))


def under_names(
    detections: Sequence[Detections], names: Sequence[str], wanted: Sequence[str]
) -> list[Detections]:
    """The detections with the class ids that `wanted` gives their names; unknown names are dropped."""
    ids = np.array([0, *(_place(name, wanted) for name in names)], np.int64)
    renamed = []
    for found in detections:
        known = np.where((found.classes > 0) & (found.classes <= len(names)), found.classes, 0)
        classes = ids[known]
        keep = classes > 0
        renamed.append(Detections(found.boxes[keep], found.scores[keep], classes[keep]))
    return renamed


def _place(name: str, names: Sequence[str]) -> int:
    return list(names).index(name) + 1 if name in names else 0


def _write(file: Path, **arrays: Any) -> None:
    with replacing(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, version=np.array(VERSION), **arrays)


def _read(file: Path, keys: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as content:
            return {key: content[key] for key in keys.split()}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(
            file,
            f"holds no detections that can be read: {problem or type(problem).__name__}",
            "Evaluate the run again: odtrain evaluate source=RUN_ID.",
        ) from problem


def _joined(parts: Sequence[NDArray[Any]], empty: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros(empty, dtype), *parts]).astype(dtype)


def _parted(values: NDArray[Any], counts: NDArray[np.int64]) -> list[NDArray[Any]]:
    return np.split(values, np.cumsum(counts)[:-1]) if len(counts) else []
