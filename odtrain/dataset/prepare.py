"""A checked data set -> the files that training reads.

`prepare` writes `*_labels.csv`, `*_list.txt`, `label_map.pbtxt`, `*.record-?????-of-?????` and, last of all,
`dataset.json`: without it, or while it says `complete: false`, the folder counts as not prepared.
`state.json` remembers sizes and dates, so that a data set that did not change is known at a glance.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from odtrain.addresses import is_in_store
from odtrain.config.compose import flattened, without_newer
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import Checked, check
from odtrain.dataset.faulty import LEFT_OUT_FILE, left_out_table
from odtrain.dataset.look import STATE_FILE, STATE_VERSION, memories_as_json
from odtrain.dataset.read import (
    DATASET_FILE,
    FORMAT_VERSION,
    OURS,
    PIECES,
    Dataset,
    intact_dataset,
)
from odtrain.dataset.scan import source_files
from odtrain.dataset.shards import write_lists, write_records
from odtrain.dataset.splits import SPLITS
from odtrain.dataset.ways_out import ways_out
from odtrain.errors import DataError, os_remedy, told_if_not_written
from odtrain.findings import Finding, errors
from odtrain.io.atomic import PART, put, sync
from odtrain.io.locks import alone
from odtrain.io.remote.cache import place_of
from odtrain.io.remote.files import found, read_json, take_there, write_json, write_text
from odtrain.io.remote.store import FileStat, remove
from odtrain.labels.annotations import LabelledImage
from odtrain.labels.formats import csv_table
from odtrain.labels.label_map import label_map_text
from odtrain.system.progress import doing
from odtrain.system.workers import Workers

SHOWN_ERRORS = 10
SHARD_BYTES = 150_000_000
"""Of pictures in a record file: 100 to 200 MB are what TensorFlow's guide on input pipelines advises."""
STAGING = ".new"
KEY_FILE = "key"
"""In the folder `STAGING`: which files are being written there."""


@doing("Preparing the data")
def prepare(
    config: DataConfig, begin: Callable[[], AbstractContextManager[Workers]] | None = None
) -> Dataset:
    """Check the data set of `config` and write its files to `data.prepared`, unless they are there.

    Two of these at once on one folder wait for each other, and one that is killed leaves nothing
    that is taken for whole.

    Args:
        config: which data set.
        begin: the processes to do it with, where there is something to do; None for this machine's.

    Raises:
        DataError: the data set has errors (nothing is written then), or a file cannot be read or
            written.
    """
    folder = Path(config.prepared)
    here = place_of(folder) if is_in_store(folder) else folder
    lock = here.parent / f".{folder.name}.lock"
    waits = f"waiting for another odtrain that prepares {folder}"
    unchanged, _ = unchanged_dataset(config, folder)
    if unchanged is not None:
        return unchanged
    with (
        told_if_not_written(folder, _remedy),
        alone(lock, waits=waits, after=1),
    ):
        unchanged, files = unchanged_dataset(config, folder)
        if unchanged is not None:
            return unchanged
        with begin() if begin else Workers(config.workers) as workers:
            return _renewed(config, folder, files, workers)


def unchanged_dataset(
    config: DataConfig, folder: Path
) -> tuple[Dataset | None, dict[Path, FileStat]]:
    """The prepared data set, if config and every size and date are those it was made of; and those."""
    files = source_files(config)
    dataset = intact_dataset(folder)
    if dataset is None:
        return None, files
    state = read_json(folder / STATE_FILE)
    key = read_json(folder / DATASET_FILE).get("key")
    expected = {"key": key, **_kept_state(config, files)}
    same = all(state.get(name) == value for name, value in expected.items())
    return dataset if same else None, files


def _kept_state(config: DataConfig, files: dict[Path, FileStat]) -> dict[str, Any]:
    """Settings and files as `state.json` keeps them, to be known again."""
    sources = {str(file): list(stat) for file, stat in files.items()}
    return {"config": _settings(config), "sources": sources}


def _settings(config: DataConfig) -> dict[str, Any]:
    aside = {"prepared": None, "workers": None}
    values = without_newer(flattened({"data": asdict(config)}))
    own = {key.removeprefix("data."): value for key, value in values.items()}
    return {**own, **aside, "format_version": FORMAT_VERSION}


def _renewed(
    config: DataConfig, folder: Path, files: dict[Path, FileStat], workers: Workers
) -> Dataset:
    """Look at the data; write records if pixels, boxes, split or names are new."""
    _refuse_foreign_files(folder)
    checked = check(config, files=files, workers=workers)
    refuse_errors(config, checked.findings)
    digest = content_digest(checked, config)
    shards = _shard_counts(checked, config.shards)
    key = _layout_key(config, checked, digest, shards)
    intact = intact_dataset(folder)
    if intact is not None and read_json(folder / DATASET_FILE).get("key") == key:
        written = intact.files
    else:
        written = _write_files(folder, key, checked, shards, workers)
    counts = _counts(checked)
    state = {
        "key": key,
        **_kept_state(config, files),
        "version": STATE_VERSION,
        "pictures": memories_as_json(checked.memories),
    }
    dataset = Dataset(
        folder,
        config.name,
        digest,
        checked.class_names,
        counts,
        checked.findings,
        written,
        checked.label_format,
    )
    write_json(folder / DATASET_FILE, {"key": key, **dataset.as_json()})
    _write_left_out(folder / LEFT_OUT_FILE, checked)
    # Large, and for us alone: without it every picture is looked at again.
    write_text(folder / STATE_FILE, json.dumps(state), durable=False)
    return dataset


def _write_left_out(file: Path, checked: Checked) -> None:
    table = left_out_table(checked.findings)
    if table:
        write_text(file, table)
    elif is_in_store(file):
        remove([file])
    else:
        file.unlink(missing_ok=True)


def _layout_key(config: DataConfig, checked: Checked, digest: str, shards: dict[str, int]) -> str:
    """Tells whether files that were written from the same content would be the same files too."""
    names = {
        split: [image.image.name for image in images] for split, images in checked.splits.items()
    }
    parts = [FORMAT_VERSION, digest, config.name, shards, names]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _shard_counts(checked: Checked, asked: int | None) -> dict[str, int]:
    """For each split how many files: `asked`, or so many that each has about `SHARD_BYTES`."""
    counts = {}
    recorded = checked.cut.area if checked.cut else {}
    for split, images in checked.splits.items():
        size = sum(
            checked.memories[str(image.image)].stat[0] * _times_recorded(image, recorded)
            for image in images
        )
        counts[split] = asked or max(1, round(size / SHARD_BYTES))
    return counts


def _times_recorded(image: LabelledImage, recorded: dict[str, float]) -> float:
    """How often the pixels of a picture are recorded, in tiles that overlap."""
    whole = image.height * image.width
    return recorded.get(str(image.image), whole) / whole


def _counts(checked: Checked) -> dict[str, dict[str, int]]:
    counts = {
        split: {"images": len(images), "boxes": sum(len(image.objects) for image in images)}
        for split, images in checked.splits.items()
    }
    if checked.cut is not None:
        counts["train"][PIECES] = len(checked.cut.pieces)
    return counts


def content_digest(checked: Checked, config: DataConfig) -> str:
    """sha256 over what training depends on: pixels, boxes, classes, flags, split, class order and tiles.

    File names, dates and the order of files do not enter.
    """
    lines = sorted(
        f"{split} {checked.pictures[image.image].pixels} {_objects_digest(image)}"
        for split, images in checked.splits.items()
        for image in images
    )
    cut = [] if checked.cut is None else [asdict(config.tiles), config.seed]
    return hashlib.sha256(json.dumps([checked.class_names, lines, *cut]).encode()).hexdigest()


def _objects_digest(image: LabelledImage) -> str:
    digest = hashlib.sha256()
    for item in image.objects:
        digest.update(struct.pack("<4f2?", *item.yxyx, item.difficult, item.truncated))
        digest.update(json.dumps(item.name).encode())
    return digest.hexdigest()


def refuse_errors(config: DataConfig, findings: Sequence[Finding]) -> None:
    """Raise a DataError that shows errors of every kind before more of one, and how to go on."""
    faults = errors(findings)
    if not faults:
        return
    seen: Counter[str] = Counter()
    ranked = []
    for finding in faults:
        ranked.append((seen[finding.code], finding))
        seen[finding.code] += 1
    shown = sorted(ranked, key=lambda pair: pair[0])[: max(SHOWN_ERRORS, len(seen))]
    lines = [str(finding) for _, finding in shown]
    if len(faults) > len(lines):
        lines.append(f"and {len(faults) - len(lines)} more; to see all of them: odtrain check")
    problem = (
        f"{len(faults)} error{'s' if len(faults) > 1 else ''} in the data; nothing was written."
    )
    remedy = "\n  ".join([*lines, *ways_out(config, faults)])
    raise DataError(config.images, problem, remedy)


def _refuse_foreign_files(folder: Path) -> None:
    """Raise a DataError if `folder` holds files of someone else that would be overwritten."""
    if OURS in read_json(folder / DATASET_FILE):
        return
    ours = [DATASET_FILE, STATE_FILE, "label_map.pbtxt", "*_labels.csv", "*_list.txt"]
    ours.append("*.record-*-of-*")
    there = found(folder) if is_in_store(folder) else folder.glob("*")
    foreign = sorted(
        file
        for file in there
        if file.parent == folder and any(fnmatchcase(file.name, pattern) for pattern in ours)
    )
    if foreign:
        problem = "is there already and was not written by odtrain."
        raise DataError(foreign[0], problem, "Set data.prepared to a folder of its own.")


def _remedy(error: OSError) -> str:
    choose = "set data.prepared to a folder"
    return os_remedy(error, choose) or "Set data.prepared to a folder that can be written."


def _write_files(
    folder: Path, key: str, checked: Checked, shards: dict[str, int], workers: Workers
) -> dict[str, int]:
    """Write CSVs, label map and records aside, then put them in place of the old ones.

    What is aside since a kill is gone on with, if it is of the same `key`.

    Returns:
        name -> bytes of what was written.
    """
    if is_in_store(folder):
        return _write_there(folder, key, checked, shards, workers)
    staging = folder / STAGING
    _begin(staging, key)
    try:
        _write_tables(staging, checked)
        write_records(staging, checked, shards, workers)
        files = [file for file in sorted(staging.iterdir()) if file.name != KEY_FILE]
        written = {file.name: file.stat().st_size for file in files}
        _swap(folder, staging, written)
    except Exception:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(staging, ignore_errors=True)
    return written


def _write_tables(folder: Path, checked: Checked) -> None:
    """Write label map, CSVs and lists."""
    label_map = label_map_text(checked.class_names)
    (folder / "label_map.pbtxt").write_text(label_map, encoding="utf-8")
    for split in SPLITS:
        images = checked.splits[split]
        names = [Path(image.image.name) for image in images]
        csv_table.write(folder / f"{split}_labels.csv", images, names)
    write_lists(folder, checked)


def _write_there(
    folder: Path, key: str, checked: Checked, shards: dict[str, int], workers: Workers
) -> dict[str, int]:
    """As `_write_files`, in a store, which has no way to put several objects in place at once.

    The folder counts as not prepared from the first object on until `dataset.json` says otherwise. An object is
    there whole or not at all, so that what a killed call left of the same `key` is kept.
    """
    values, unfinished = read_json(folder / DATASET_FILE), read_json(folder / KEY_FILE)
    old = {*values.get("files", {}), *(file.name for file in found(folder) if _is_record(file))}
    if unfinished.get("key") != key:
        marked = {OURS: FORMAT_VERSION, "complete": False, "files": dict.fromkeys(old, -1)}
        write_json(folder / DATASET_FILE, marked)
        remove([folder / name for name in old])
        write_json(folder / KEY_FILE, {"key": key})
    with TemporaryDirectory(prefix="odtrain-") as scratch:
        _write_tables(Path(scratch), checked)
        tables = {folder / file.name: file for file in Path(scratch).iterdir()}
        take_there(tables, "writing labels")
        written = {file.name: here.stat().st_size for file, here in tables.items()}
    write_records(folder, checked, shards, workers)
    there = {file.name: stat[0] for file, stat in found(folder).items() if _is_record(file)}
    remove([folder / KEY_FILE])
    return dict(sorted({**written, **there}.items()))


def _is_record(file: Path) -> bool:
    return fnmatchcase(file.name, "*.record-*-of-*")


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
    write_json(folder / DATASET_FILE, marked)
    for name in old.keys() - written.keys():
        (folder / name).unlink(missing_ok=True)
    for name in written:
        put(staging / name, folder / name, durable=False)
    sync(folder / DATASET_FILE)
