"""Which files a data set is made of, before any of them is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from odtrain.addresses import is_in_store, is_remote
from odtrain.config.schema import DataConfig
from odtrain.errors import DataError, taken_from
from odtrain.findings import Finding
from odtrain.io.remote.cache import place_of
from odtrain.io.remote.files import found, root_of, stat_of
from odtrain.io.remote.store import FileStat
from odtrain.labels.annotations import normalised
from odtrain.labels.formats.recognise import Sources, why_none
from odtrain.labels.formats.tfrecords import about_records, record_files, unpack
from odtrain.labels.formats.yolo import NAME_LISTS, NAME_TABLES
from odtrain.media.images import SUFFIXES
from odtrain_runtime.pictures import UNSUPPORTED_SUFFIXES

UNPACKED = "pictures"
"""The folder in `data.prepared` for pictures that come out of records."""
CLASS_LISTS = (*NAME_LISTS, *NAME_TABLES, "label_map.pbtxt")
LABEL_FOLDERS = ("annotations", "Annotations", "labels", "xml", "xmls")
"""Where label files lie beside a folder of pictures, most often."""


class Scan(NamedTuple):
    """The files of a data set.

    Attributes:
        files: every file that it may depend on, with those that were unpacked.
        folder: that holds the pictures.
        pictures: in the order of their names, folder by folder.
        labels: the folder of the label files, or the only one.
        sources: what readers of labels may look at; nothing where there are no pictures.
    """

    files: dict[Path, FileStat]
    folder: Path
    pictures: list[Path]
    labels: Path
    sources: Sources


def source_files(config: DataConfig) -> dict[Path, FileStat]:
    """Every file that the data set may depend on, hidden ones and the prepared folder aside.

    Raises:
        DataError: a folder is not there, or cannot be read.
    """
    prepared = Path(config.prepared)
    roots = {
        _label_root(config, again=True): "data.annotations",
        root_of(config.images, again=config.annotations is not None): "data.images",
    }
    files: dict[Path, FileStat] = {}
    for root, key in roots.items():
        if is_remote(root):
            files.update(_in_store(root, prepared, key))
            continue
        if root.is_file():
            files[root] = _stat(root)
            continue
        if not root.is_dir():
            raise DataError(
                root,
                f"is not a folder{taken_from(root)}.",
                f"Set {key} to the folder that holds the files.",
            )
        files.update(_scan(root, {_identity(prepared)} if prepared.is_dir() else set()))
    files |= {
        file: _stat(file)
        for root in roots
        if not is_remote(root)
        for file in _class_lists_above(root)
    }
    for extra in (config.train_list, config.validation_list, config.test_list, config.label_map):
        if extra is not None and (stat := stat_of(Path(extra))) is not None:
            files[Path(extra)] = stat
    return files


def _in_store(root: Path, prepared: Path, key: str) -> dict[Path, FileStat]:
    files = {file: stat for file, stat in found(root).items() if not _lies_in(file, prepared)}
    if not files:
        raise DataError(root, "holds no objects.", f"Set {key} to what is before their names.")
    return files


def _class_lists_above(root: Path) -> Iterator[Path]:
    """Lists of class names one folder up, as Ultralytics' data.yaml lies; of a file, beside it."""
    up = root.parent if root.is_file() or root.name not in ("", "..") else root / ".."
    with suppress(OSError):
        names = sorted(entry.name for entry in os.scandir(up) if entry.name.lower() in CLASS_LISTS)
        yield from (up / name for name in names if (up / name).is_file())


def _stat(file: Path) -> FileStat:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _label_root(config: DataConfig, again: bool = False) -> Path:
    place = config.images if config.annotations is None else config.annotations
    return root_of(place, again=again)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _scan(folder: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, FileStat]]:
    """Files under `folder` in the order of their names; links to folders are followed once."""
    if _identity(folder) in seen:
        return
    seen.add(_identity(folder))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            folder, f"cannot be read: {error.strerror}.", "Give yourself the right to read it."
        ) from None
    for entry in entries:
        if entry.name.startswith((".", "__MACOSX")):
            continue
        if entry.is_dir():
            yield from _scan(folder / entry.name, seen)
        elif entry.is_file():
            entry_status = entry.stat()
            yield folder / entry.name, (entry_status.st_size, entry_status.st_mtime_ns)


def scan(config: DataConfig, files: dict[Path, FileStat]) -> tuple[Scan, list[Finding]]:
    """What `files`, as `source_files` gives them, are to the data set; OD001 and OD234."""
    labels, folder = _label_root(config), root_of(config.images)
    unpacked, findings = _unpacked(config, labels, files)
    files = {**files, **unpacked}
    pictures = list(unpacked)
    if pictures:
        folder = _unpacked_into(config)
    else:
        pictures = _pictures_in(folder, files)
    if not pictures:
        findings = findings or [Finding.of("OD001", folder, "holds no pictures.")]
        return Scan(files, folder, [], labels, Sources(())), findings
    return Scan(files, folder, pictures, labels, _sources(config, files, pictures)), findings


def _unpacked(
    config: DataConfig, labels: Path, files: dict[Path, FileStat]
) -> tuple[dict[Path, FileStat], list[Finding]]:
    """The pictures in the record files among `files`, if there are no others or records are named.

    They are unpacked into the prepared folder, once.
    """
    records = record_files([file for file in files if _lies_in(file, labels)])
    if not records or config.format not in ("auto", "tfrecord"):
        return {}, []
    others = _pictures_in(root_of(config.images), files) and labels not in files
    if others and config.format == "auto":
        return {}, []
    folder = _unpacked_into(config)
    pictures = {picture: _stat(picture) for picture in unpack(records, folder)}
    if not pictures:
        return {}, list(about_records(records))
    cause = f"{len(pictures):,} pictures were unpacked from records into {folder}."
    return pictures, [Finding.of("OD234", labels, cause)]


def _unpacked_into(config: DataConfig) -> Path:
    """Where pictures out of records are kept; here, if the prepared data are in a store."""
    prepared = Path(config.prepared)
    return (place_of(prepared) if is_in_store(prepared) else prepared) / UNPACKED


def _pictures_in(root: Path, files: dict[Path, FileStat]) -> list[Path]:
    known = SUFFIXES | UNSUPPORTED_SUFFIXES
    return [file for file in files if file.suffix.lower() in known and _lies_in(file, root)]


def _lies_in(file: Path, root: Path) -> bool:
    """What `Path.is_relative_to` says, several times as fast: it is asked of every file."""
    parts = root.parts  # none for the folder "."
    return file.parts[: len(parts)] == parts and file.is_absolute() == root.is_absolute()


def _sources(config: DataConfig, files: dict[Path, FileStat], pictures: Sequence[Path]) -> Sources:
    """What readers of labels may look at; lists of the split are no label files."""
    root = _label_root(config)
    beside = (config.train_list, config.validation_list, config.test_list, config.label_map)
    lists = [Path(file) for file in beside if file is not None and Path(file) in files]
    mine: list[Path] = []
    others: list[Path] = []
    for file in files:
        (mine if _lies_in(file, root) else others).append(file)
    mine = [file for file in mine if not _is_one_of(file, lists)]
    if config.label_map is not None:
        others.insert(0, Path(config.label_map))
    stems = frozenset(normalised(picture.stem) for picture in pictures)
    unpacked = any(_lies_in(picture, _unpacked_into(config)) for picture in pictures)
    named, take = config.format != "auto", config.crowd == "take"
    return Sources(mine, others, stems, named, unpacked, take)


def _is_one_of(file: Path, lists: Sequence[Path]) -> bool:
    return any(
        file == other
        or (
            file.name == other.name
            and not is_remote(file)
            and not is_remote(other)
            and file.samefile(other)
        )
        for other in lists
    )


def no_labels(root: Path) -> Finding:
    """OD002, with the folder beside it that probably holds them; of a file, what it is."""
    if is_remote(root):
        return Finding.of("OD002", root, "holds no label files.")
    if root.is_file():
        return why_none(root)
    candidates = [root.absolute().parent / name for name in LABEL_FOLDERS]
    beside = [folder for folder in candidates if folder.is_dir() and _holds_labels(folder)]
    remedy = f"Set data.annotations={beside[0]}" if beside else None
    tables = sorted(file for file in root.glob("*.*") if file.suffix.lower() in (".csv", ".json"))
    none = [] if beside or not tables else [f"{tables[0].name} {why_none(tables[0]).cause}"]
    cause = " ".join(["holds no label files.", *none])
    return Finding.of("OD002", root, cause, remedy=remedy)


def _holds_labels(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("*.xml", "*.txt", "*.json", "*.csv"))
