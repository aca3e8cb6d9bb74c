"""A checked data set -> the files that training reads; and those files -> pictures and boxes.

`prepare` writes `*_labels.csv`, `*_list.txt`, `label_map.pbtxt`, `*.record-?????-of-?????` and, last of all,
`dataset.json`: without it, or while it says `complete: false`, the folder counts as not prepared.
`state.json` remembers sizes and dates, so that a data set that did not change is known at a glance.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.config.schema import DataConfig
from odtrain.dataset.check import (
    DATASET_FILE,
    Dataset,
    Examined,
    content_digest,
    examine,
    read_dataset,
)
from odtrain.dataset.pairing import scan_sources
from odtrain.dataset.record_files import shard_counts, write_lists, write_records
from odtrain.dataset.scan import (
    STATE_FILE,
    STATE_VERSION,
    FileStat,
    memories_as_json,
    read_json,
    read_memories,
)
from odtrain.dataset.splits import SPLITS
from odtrain.errors import DataError, os_remedy, told_if_not_written
from odtrain.findings import Finding, errors
from odtrain.io.atomic import PART, put, sync, write_text
from odtrain.io.locks import alone
from odtrain.io.tfrecord import decode_example
from odtrain.io.tfrecord import index_records as index_records
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.labels.formats import csv_table
from odtrain.labels.label_map import label_map_text
from odtrain.structures import GroundTruth, UInt8Image
from odtrain.system.workers import Workers, in_threads

FORMAT_VERSION = 2
"""Raised whenever the same data set would give other files."""
SHOWN_ERRORS = 10
OURS = "odtrain_dataset"
"""The key by which a `dataset.json` of this program is known."""
STAGING = ".new"
KEY_FILE = "key"
"""In the folder `STAGING`: which files are being written there."""


@dataclass(frozen=True, eq=False)
class Example:
    """One picture of a record, decoded by TensorFlow as in training, and what is in it."""

    image: UInt8Image
    truth: GroundTruth
    source_id: int


def prepare(config: DataConfig) -> Dataset:
    """Check the data set of `config` and write its files to `data.prepared`, unless they are there.

    Two of these at once on one folder wait for each other, and one that is killed leaves nothing
    that is taken for whole.

    Raises:
        DataError: the data set has errors (nothing is written then), or a file cannot be read or
            written.
    """
    folder = Path(config.prepared)
    unchanged = _unchanged_dataset(config, folder, scan_sources(config))
    if unchanged is not None:
        return unchanged
    with (
        told_if_not_written(folder, _remedy),
        _locked(folder),
        Workers(config.workers) as workers,
    ):
        files = scan_sources(config)
        return _unchanged_dataset(config, folder, files) or _renewed(config, folder, files, workers)


def _unchanged_dataset(
    config: DataConfig, folder: Path, files: dict[Path, FileStat]
) -> Dataset | None:
    """The prepared data set, if config and every size and date are those it was made of."""
    dataset = _intact_dataset(folder)
    if dataset is None:
        return None
    state = read_json(folder / STATE_FILE)
    key = read_json(folder / DATASET_FILE).get("key")
    expected = {"key": key, "config": _settings(config), "sources": _sources(files)}
    return dataset if all(state.get(name) == value for name, value in expected.items()) else None


def _intact_dataset(folder: Path) -> Dataset | None:
    """The prepared data set, if all its files are there in full length."""
    try:
        dataset = read_dataset(folder)
        sizes = {name: (folder / name).stat().st_size for name in dataset.files}
    except (DataError, OSError):
        return None
    return dataset if sizes == dataset.files else None


def _sources(files: dict[Path, FileStat]) -> dict[str, list[int]]:
    return {str(file): list(stat) for file, stat in files.items()}


def _settings(config: DataConfig) -> dict[str, Any]:
    aside = {"prepared": None, "workers": None}
    return {**asdict(config), **aside, "format_version": FORMAT_VERSION}


def _renewed(
    config: DataConfig, folder: Path, files: dict[Path, FileStat], workers: Workers
) -> Dataset:
    """Look at the data; write records if pixels, boxes, split or names are new."""
    _refuse_foreign_files(folder)
    examined = examine(config, files, workers)
    refuse_errors(config, examined.findings)
    digest = content_digest(examined)
    shards = shard_counts(examined, config.shards)
    key = _layout_key(config, examined, digest, shards)
    intact = _intact_dataset(folder)
    if intact is not None and read_json(folder / DATASET_FILE).get("key") == key:
        written = intact.files
    else:
        written = _write_files(folder, key, examined, shards, workers)
    dataset = Dataset(
        folder,
        config.name,
        digest,
        examined.class_names,
        _counts(examined),
        examined.findings,
        written,
        examined.label_format,
    )
    values = {"key": key, **_dataset_as_json(dataset)}
    write_text(folder / DATASET_FILE, json.dumps(values, indent=1))
    state = {
        "key": key,
        "config": _settings(config),
        "sources": _sources(files),
        "version": STATE_VERSION,
        "pictures": memories_as_json(examined.memories),
    }
    # Large, and for us alone: without it every picture is looked at again.
    write_text(folder / STATE_FILE, json.dumps(state), durable=False)
    return dataset


def _dataset_as_json(dataset: Dataset) -> dict[str, Any]:
    values = {name: value for name, value in asdict(dataset).items() if name != "folder"}
    return {OURS: FORMAT_VERSION, "complete": True, **values}


def _layout_key(config: DataConfig, examined: Examined, digest: str, shards: dict[str, int]) -> str:
    """Tells whether files that were written from the same content would be the same files too."""
    names = {
        split: [image.image.name for image in images] for split, images in examined.splits.items()
    }
    parts = [FORMAT_VERSION, digest, config.name, shards, names]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _counts(examined: Examined) -> dict[str, dict[str, int]]:
    return {
        split: {"images": len(images), "boxes": sum(len(image.objects) for image in images)}
        for split, images in examined.splits.items()
    }


def refuse_errors(config: DataConfig, findings: Sequence[Finding]) -> None:
    """Raise a DataError that shows the first errors, a few of each kind before more of one."""
    found = errors(list(findings))
    if not found:
        return
    codes = [finding.code for finding in found]
    rank = [codes[:position].count(code) for position, code in enumerate(codes[:1000])]
    shown = [
        finding for _, finding in sorted(zip(rank, found, strict=False), key=lambda pair: pair[0])
    ]
    lines = [str(finding) for finding in shown[:SHOWN_ERRORS]]
    if len(found) > len(lines):
        lines.append(f"and {len(found) - len(lines)} more; to see all of them: odtrain check")
    problem = f"{len(found)} error{'s' if len(found) > 1 else ''} in the data; nothing was written."
    raise DataError(config.images, problem, "\n  ".join(lines))


def _refuse_foreign_files(folder: Path) -> None:
    """Raise a DataError if `folder` holds files of someone else that would be overwritten."""
    if OURS in read_json(folder / DATASET_FILE):
        return
    ours = [DATASET_FILE, STATE_FILE, "label_map.pbtxt", "*_labels.csv", "*_list.txt"]
    ours.append("*.record-*-of-*")
    foreign = sorted(file for pattern in ours for file in folder.glob(pattern))
    if foreign:
        problem = "is there already and was not written by odtrain."
        raise DataError(foreign[0], problem, "Set data.prepared to a folder of its own.")


def _locked(folder: Path) -> AbstractContextManager[None]:
    """Alone on `folder`, by a lock file beside it."""
    waits = f"waiting for another odtrain that prepares {folder}"
    return alone(folder.parent / f".{folder.name}.lock", waits=waits, after=1)


def _remedy(error: OSError) -> str:
    choose = "set data.prepared to a folder"
    return os_remedy(error, choose) or "Set data.prepared to a folder that can be written."


def _write_files(
    folder: Path, key: str, examined: Examined, shards: dict[str, int], workers: Workers
) -> dict[str, int]:
    """Write CSVs, label map and records aside, then put them in place of the old ones.

    What is aside since a kill is gone on with, if it is of the same `key`.

    Returns:
        name -> bytes of what was written.
    """
    staging = folder / STAGING
    _begin(staging, key)
    try:
        (staging / "label_map.pbtxt").write_text(
            label_map_text(examined.class_names), encoding="utf-8"
        )
        for split in SPLITS:
            images = examined.splits[split]
            names = [Path(image.image.name) for image in images]
            csv_table.write(staging / f"{split}_labels.csv", images, names)
        write_lists(staging, examined)
        write_records(staging, examined, shards, workers)
        files = [file for file in sorted(staging.iterdir()) if file.name != KEY_FILE]
        written = {file.name: file.stat().st_size for file in files}
        _swap(folder, staging, written)
    except Exception:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(staging, ignore_errors=True)
    return written


def _begin(staging: Path, key: str) -> None:
    """Leave in `staging` whole files of `key` alone."""
    if not (staging / KEY_FILE).is_file() or (staging / KEY_FILE).read_text() != key:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        write_text(staging / KEY_FILE, key)
    for file in staging.glob(f"*{PART}"):
        file.unlink()


def _swap(folder: Path, staging: Path, written: dict[str, int]) -> None:
    """Move `written` from `staging` into `folder`, marked as incomplete while it lasts."""
    old = read_json(folder / DATASET_FILE).get("files", {})
    marked = {OURS: FORMAT_VERSION, "complete": False, "files": {**old, **written}}
    sync(staging)
    write_text(folder / DATASET_FILE, json.dumps(marked, indent=1))
    for name in old.keys() - written.keys():
        (folder / name).unlink(missing_ok=True)
    for name in written:
        put(staging / name, folder / name, durable=False)
    sync(folder / DATASET_FILE)


def read_truths(dataset: Dataset, split: str) -> list[GroundTruth]:
    """What is in each picture of `split`, in the order of its records; no picture is decoded.

    Raises:
        DataError: a record file is missing or damaged.
    """
    index = index_records(dataset.records(split))
    return [_truth_of(decode_example(index.read(i))) for i in range(len(index))]


@dataclass(frozen=True, eq=False)
class LabelledSplit:
    """What is in each picture of a split, and which pictures they are.

    Attributes:
        class_names: index 0 = class id 1.
        truths: one per picture, in the order of the records.
        keys: (P,) one per picture, of its encoded pixels, boxes and class names; equal pictures are
            told apart by their number.
    """

    class_names: tuple[str, ...]
    truths: list[GroundTruth]
    keys: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Equal for the same labelled pictures under the same classes, in any order."""
        parts = [*self.class_names, *sorted(self.keys)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def part(self, rows: Sequence[int]) -> LabelledSplit:
        """The pictures of those rows alone."""
        truths, keys = [self.truths[i] for i in rows], [self.keys[i] for i in rows]
        return LabelledSplit(self.class_names, truths, tuple(keys))


def read_labelled(dataset: Dataset, split: str) -> LabelledSplit:
    """The labels of `split` with a key for each picture; no picture is decoded.

    Raises:
        DataError: a record file is missing or damaged.
    """
    index = index_records(dataset.records(split))
    truths: list[GroundTruth] = []
    keys: list[str] = []
    counts: Counter[str] = Counter()
    for i in range(len(index)):
        example: dict[str, Any] = decode_example(index.read(i))
        truths.append(_truth_of(example))
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
    examples: Iterator[dict[str, Any]] = (decode_example(index.read(i)) for i in range(len(index)))
    return {int(example["image/source_id"][0]): _name_of(example) for example in examples}


def labelled_images(dataset: Dataset) -> list[LabelledImage]:
    """Every picture of every split with its objects, as far as the records know them.

    Pictures are called by their path where `state.json` remembers it, else by their name alone.

    Raises:
        DataError: a record file is missing or damaged.
    """
    paths = {Path(file).name: Path(file) for file in read_memories(dataset.folder)}
    return [
        LabelledImage(
            paths.get(truth.name, Path(truth.name)),
            None,
            truth.height,
            truth.width,
            tuple(
                LabelledObject(
                    dataset.class_names[number - 1], (ymin, xmin, ymax, xmax), False, False
                )
                for number, (ymin, xmin, ymax, xmax) in zip(
                    truth.classes.tolist(), truth.boxes.tolist(), strict=True
                )
            ),
        )
        for split in SPLITS
        for truth in read_truths(dataset, split)
    ]


def _name_of(example: dict[str, Any]) -> str:
    return str(example["image/filename"][0], "utf-8", "surrogateescape")


def _truth_of(example: dict[str, Any]) -> GroundTruth:
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
        return Example(image, _truth_of(example), int(example["image/source_id"][0]))

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
