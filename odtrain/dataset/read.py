"""A prepared data set, read back: what is in it, and its pictures and boxes.

`dataset.json` tells of it; without it, or while it says `complete: false`, the folder counts as not prepared.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.addresses import is_in_store
from odtrain.dataset.look import read_memories
from odtrain.dataset.splits import SPLITS
from odtrain.dataset.tiles import TILE, TILE_OF
from odtrain.errors import DataError
from odtrain.findings import Finding
from odtrain.io.remote.files import found, read_json
from odtrain.io.tfrecord import decode_example, index_records
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.labels.formats.recognise import FORMATS
from odtrain.structures import GroundTruth, LabelledSplit, UInt8Image
from odtrain.system.workers import in_threads

DATASET_FILE = "dataset.json"
FORMAT_VERSION = 2
"""Raised whenever the same data set would give other files."""
PIECES = "pieces"
"""In the counts of a training split that is cut into tiles: how many records it has."""
OURS = "odtrain_dataset"
"""The key by which a `dataset.json` of this program is known."""


@dataclass(frozen=True)
class Dataset:
    """A prepared data set, as `dataset.json` in its folder tells of it.

    Attributes:
        folder: holds the records, CSVs and label map.
        name: what the user calls it.
        digest: sha256 over pixels, boxes, classes and split: what training depends on.
        class_names: the first has id 1.
        counts: split -> {"images": ..., "boxes": ...}; a split without images has zeros. Of training
            pictures that are cut into tiles, `PIECES` too.
        findings: warnings and remarks of the data doctor.
        files: name -> bytes of every file that was written for it.
        label_format: of the label files, a row of `formats.FORMATS`.
    """

    folder: Path
    name: str
    digest: str
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    files: dict[str, int] = field(default_factory=dict)
    label_format: str = "voc"

    def records(self, split: str) -> list[Path]:
        """The shards of `split` in order; none where it has no images."""
        prefix = f"{split}.record-"
        return [self.folder / name for name in sorted(self.files) if name.startswith(prefix)]

    def as_json(self) -> dict[str, Any]:
        """What `read_dataset` reads back."""
        values = {name: value for name, value in asdict(self).items() if name != "folder"}
        values["findings"] = [finding.as_dict() for finding in self.findings]
        return {OURS: FORMAT_VERSION, "complete": True, **values}


@dataclass(frozen=True, eq=False)
class Example:
    """One picture of a record, decoded by TensorFlow as in training, and what is in it."""

    image: UInt8Image
    truth: GroundTruth
    source_id: int


def read_dataset(folder: Path) -> Dataset:
    """The data set that was prepared in `folder`.

    Raises:
        DataError: there is none, or its preparation did not end.
    """
    values = read_json(folder / DATASET_FILE)
    if not values.get("complete"):
        problem = "holds no prepared data set." if not values else "was not prepared to the end."
        raise DataError(folder, problem, "Run: odtrain prepare")
    return Dataset(
        folder,
        values["name"],
        values["digest"],
        tuple(values["class_names"]),
        values["counts"],
        tuple(Finding(**finding) for finding in values["findings"]),
        values["files"],
        values.get("label_format", "voc"),
    )


def intact_dataset(folder: Path) -> Dataset | None:
    """The prepared data set, if all its files are there in full length."""
    if not read_json(folder / DATASET_FILE).get("complete"):
        return None
    dataset = read_dataset(folder)
    if is_in_store(folder):
        there = {file.name: stat[0] for file, stat in found(folder).items()}
    else:
        there = {name: _size(folder / name) for name in dataset.files}
    whole = all(there.get(name) == size for name, size in dataset.files.items())
    return dataset if whole else None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def describe(dataset: Dataset) -> str:
    """The data set on one screen, for people."""
    rows = [
        f"  {split:<12}{count['images']:>7} pictures{count['boxes']:>8} boxes"
        + (f", in {count[PIECES]} pieces" if PIECES in count else "")
        for split, count in dataset.counts.items()
    ]
    severities = Counter(finding.severity for finding in dataset.findings)
    seen = ", ".join(f"{number} {severity}" for severity, number in severities.items())
    lines = [
        f"{dataset.name}, prepared in {dataset.folder}",
        *rows,
        f"  labels: {FORMATS[dataset.label_format]}",
        f"  classes: {', '.join(dataset.class_names)}",
        f"  findings: {seen}; to see them: odtrain check" if seen else "  findings: none",
        f"  digest: {dataset.digest[:16]}",
    ]
    return "\n".join(lines)


def read_truths(dataset: Dataset, split: str) -> list[GroundTruth]:
    """What is in each picture of `split`, in the order of its records; no picture is decoded.

    Raises:
        DataError: a record file is missing or damaged.
    """
    index = index_records(dataset.records(split))
    return [truth_of(decode_example(payload)) for payload in index.read_all()]


def read_labelled(dataset: Dataset, split: str) -> LabelledSplit:
    """The labels of `split` with a key for each picture; no picture is decoded.

    Raises:
        DataError: a record file is missing or damaged.
    """
    index = index_records(dataset.records(split))
    truths: list[GroundTruth] = []
    keys: list[str] = []
    counts: Counter[str] = Counter()
    for payload in index.read_all():
        example: dict[str, Any] = decode_example(payload)
        truths.append(truth_of(example))
        key = _picture_key(example["image/encoded"][0], truths[-1], dataset.class_names)
        counts[key] += 1
        keys.append(key if counts[key] == 1 else f"{key}-{counts[key]}")
    return LabelledSplit(dataset.class_names, truths, tuple(keys))


def _picture_key(encoded: bytes, truth: GroundTruth, class_names: Sequence[str]) -> str:
    names = [class_names[class_id - 1] for class_id in truth.classes.tolist()]
    labels = json.dumps([names, truth.boxes.tolist()])
    return hashlib.sha256(encoded + labels.encode()).hexdigest()[:24]


def read_names(dataset: Dataset, split: str) -> dict[int, str]:
    """Source id -> file name of each picture of `split`.

    Raises:
        DataError: a record file is missing or damaged.
    """
    index = index_records(dataset.records(split))
    examples: Iterator[dict[str, Any]] = map(decode_example, index.read_all())
    return {int(example["image/source_id"][0]): _name_of(example) for example in examples}


def labelled_images(dataset: Dataset) -> list[LabelledImage]:
    """Every picture of every split with its objects, as far as the records know them.

    Pictures are called by their path where `state.json` remembers it, else by their name alone. Of a picture
    that was cut, and is in no record as a whole, the objects are those that lie whole in a tile.

    Raises:
        DataError: a record file is missing or damaged.
    """
    paths = {Path(file).name: Path(file) for file in read_memories(dataset.folder)}
    pictures: list[LabelledImage] = []
    parts: dict[str, LabelledImage] = {}
    for split in SPLITS:
        index = index_records(dataset.records(split))
        for payload in index.read_all():
            example: dict[str, Any] = decode_example(payload)
            truth = truth_of(example)
            if TILE in example:
                name = str(example[TILE_OF][0], "utf-8", "surrogateescape")
                before = parts.get(name)
                parts[name] = _with_tile(
                    before, example, truth, dataset, paths.get(name, Path(name))
                )
                continue
            objects = _objects(truth.boxes.tolist(), truth, dataset)
            file = paths.get(truth.name, Path(truth.name))
            pictures.append(LabelledImage(file, None, truth.height, truth.width, objects))
    whole = {picture.image for picture in pictures}
    return [*pictures, *(part for part in parts.values() if part.image not in whole)]


def _with_tile(
    before: LabelledImage | None,
    example: dict[str, Any],
    truth: GroundTruth,
    dataset: Dataset,
    file: Path,
) -> LabelledImage:
    """A picture with what lies whole in one more of its tiles."""
    top, left, _, _, height, width = example[TILE]
    sides = np.array([truth.height, truth.width] * 2)
    inside = (truth.boxes > 0).all(axis=1) & (truth.boxes < 1).all(axis=1)
    pixels = truth.boxes[inside].astype(float) * sides + [top, left, top, left]
    boxes = np.round(pixels, 2) / [height, width, height, width]
    shown = replace(truth, classes=truth.classes[inside])
    known = () if before is None else before.objects
    objects = dict.fromkeys([*known, *_objects(boxes.tolist(), shown, dataset)])
    return LabelledImage(file, None, height, width, tuple(objects))


def _objects(
    boxes: Sequence[Sequence[float]], truth: GroundTruth, dataset: Dataset
) -> tuple[LabelledObject, ...]:
    return tuple(
        LabelledObject(dataset.class_names[number - 1], (ymin, xmin, ymax, xmax), False, False)
        for number, (ymin, xmin, ymax, xmax) in zip(truth.classes.tolist(), boxes, strict=True)
    )


def _name_of(example: dict[str, Any]) -> str:
    return str(example["image/filename"][0], "utf-8", "surrogateescape")


def truth_of(example: dict[str, Any]) -> GroundTruth:
    """What is in the picture, or tile, of a decoded record."""
    sides = [example[f"image/object/bbox/{side}"] for side in ("ymin", "xmin", "ymax", "xmax")]
    return GroundTruth(
        name=_name_of(example),
        height=example["image/height"][0],
        width=example["image/width"][0],
        boxes=np.array(sides, np.float32).T.reshape(-1, 4),
        classes=np.array(example["image/object/class/label"], np.int64),
    )


def read_examples(dataset: Dataset, split: str) -> Iterator[Example]:
    """Every picture of `split` with its boxes, in the order of its records.

    Raises:
        DataError: a record file is missing or damaged.
    """
    import tensorflow as tf

    index = index_records(dataset.records(split))

    def read(i: int) -> Example:
        example: dict[str, Any] = decode_example(index.read(i))
        encoded = example["image/encoded"][0]
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
        return Example(image, truth_of(example), int(example["image/source_id"][0]))

    yield from in_threads(read, range(len(index)))


def parse_example(serialized: Any) -> dict[str, Any]:
    """The tensors of one record, for a `tf.data` pipeline.

    Args:
        serialized: scalar string tensor, a `tf.train.Example`.

    Returns:
        encoded (scalar string), boxes ((N, 4) float32, yxyx fractions), classes ((N,) int64,
        1-based), source_id (scalar int64), filename (scalar string), height and width (scalar
        int64, pixels).
    """
    import tensorflow as tf

    boxes = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
    spec: dict[str, Any] = {
        key: tf.io.FixedLenFeature((), tf.string)
        for key in ("image/encoded", "image/source_id", "image/filename")
    }
    spec |= {key: tf.io.FixedLenFeature((), tf.int64) for key in ("image/height", "image/width")}
    spec |= {key: tf.io.RaggedFeature(tf.float32) for key in boxes}
    spec["image/object/class/label"] = tf.io.RaggedFeature(tf.int64)
    parsed = tf.io.parse_single_example(serialized, spec)
    return {
        "encoded": parsed["image/encoded"],
        "boxes": tf.stack([parsed[key] for key in boxes], axis=-1),
        "classes": parsed["image/object/class/label"],
        "source_id": tf.strings.to_number(parsed["image/source_id"], tf.int64),
        "filename": parsed["image/filename"],
        "height": parsed["image/height"],
        "width": parsed["image/width"],
    }
