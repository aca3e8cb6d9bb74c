"""Which files there are, and which label file belongs to which picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from odtrain.config.schema import DataConfig
from odtrain.dataset.scan import FileStat
from odtrain.dataset.splits import PictureNames, given_split
from odtrain.errors import DataError
from odtrain.findings import Finding, found
from odtrain.labels.annotations import Entry, normalised
from odtrain.labels.formats.reading import before_upload
from odtrain.labels.formats.recognise import Labels, Sources, read_labels
from odtrain.labels.formats.tfrecords import record_files, unpack
from odtrain.media.images import SUFFIXES
from odtrain_runtime.pictures import UNSUPPORTED_SUFFIXES

UNPACKED = "pictures"
"""The folder in `data.prepared` for pictures that come out of records."""
MAX_UNMATCHED = 100
"""Findings about pictures that one label file tells of and that are not there."""
LABEL_FOLDERS = ("annotations", "Annotations", "labels", "xml", "xmls")
"""Where label files lie beside a folder of pictures, most often."""


def scan_sources(config: DataConfig) -> dict[Path, FileStat]:
    """Every file that the data set may depend on, hidden ones and the prepared folder aside.

    Raises:
        DataError: a folder is not there, or cannot be read.
    """
    prepared = Path(config.prepared)
    roots = {_labels_root(config): "data.annotations", Path(config.images): "data.images"}
    files: dict[Path, FileStat] = {}
    for root, key in roots.items():
        if root.is_file():
            files[root] = _stat(root)
            continue
        if not root.is_dir():
            raise DataError(
                root, "is not a folder.", f"Set {key} to the folder that holds the files."
            )
        files.update(_scan(root, {_identity(prepared)} if prepared.is_dir() else set()))
    for extra in (config.train_list, config.validation_list, config.test_list, config.label_map):
        if extra is not None and Path(extra).is_file():
            files[Path(extra)] = _stat(Path(extra))
    return files


def _stat(file: Path) -> FileStat:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _labels_root(config: DataConfig) -> Path:
    return Path(config.images if config.annotations is None else config.annotations)


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


def unpacked_pictures(
    config: DataConfig, files: dict[Path, FileStat], findings: list[Finding]
) -> dict[Path, FileStat]:
    """The pictures in the record files among `files`, if there are no others or records are named.

    They are unpacked into the prepared folder, once. Adds OD234.
    """
    root = _labels_root(config)
    records = record_files([file for file in files if _lies_in(file, root)])
    if not records or config.format not in ("auto", "tfrecord"):
        return {}
    others = _pictures_in(Path(config.images), files) and not root.is_file()
    if others and config.format == "auto":
        return {}
    folder = _unpacked(config)
    pictures = unpack(records, folder)
    if pictures:
        cause = f"{len(pictures):,} pictures were unpacked from records into {folder}."
        findings.append(found("OD234", root, cause))
    return {picture: _stat(picture) for picture in pictures}


def _unpacked(config: DataConfig) -> Path:
    return Path(config.prepared) / UNPACKED


def _pictures_in(root: Path, files: dict[Path, FileStat]) -> list[Path]:
    known = SUFFIXES | UNSUPPORTED_SUFFIXES
    return [file for file in files if file.suffix.lower() in known and _lies_in(file, root)]


def _lies_in(file: Path, root: Path) -> bool:
    """What `Path.is_relative_to` says, several times as fast: it is asked of every file."""
    parts = root.parts  # none for the folder "."
    return file.parts[: len(parts)] == parts and file.is_absolute() == root.is_absolute()


def matched_entries(
    config: DataConfig, files: dict[Path, FileStat], findings: list[Finding]
) -> tuple[dict[Path, Entry], dict[Path, str], str]:
    """Every picture that is used and has labels, the split as far as it is given, and the format."""
    root = _unpacked(config)
    pictures = _pictures_in(root, files)
    if not pictures:
        root = Path(config.images)
        pictures = _pictures_in(root, files)
    if not pictures:
        findings.append(found("OD001", root, "holds no pictures."))
        return {}, {}, ""
    given, about_lists = given_split(config, root, pictures)
    findings += about_lists
    used = [picture for picture in pictures if picture in given] if given else pictures
    labels = _labels(config, files, pictures)
    entries, about_labels = labels.reading.entries, labels.reading.findings
    findings += about_labels
    if not labels.format:
        findings.append(_no_labels(config))
        return {}, {}, ""
    broken = {normalised(Path(finding.file).stem) for finding in about_labels}
    entries_by_picture = _match(used, entries, len(used) < len(pictures), findings)
    for picture in used:
        if picture not in entries_by_picture and normalised(picture.stem) not in broken:
            findings.append(found("OD102", picture, "has no label file."))
    return entries_by_picture, given, labels.format


def _labels(config: DataConfig, files: dict[Path, FileStat], pictures: Sequence[Path]) -> Labels:
    """What the label files say; lists of the split are none."""
    root = _labels_root(config)
    named = (config.train_list, config.validation_list, config.test_list, config.label_map)
    lists = [Path(file) for file in named if file is not None and Path(file).is_file()]
    mine: list[Path] = []
    others: list[Path] = []
    for file in files:
        (mine if _lies_in(file, root) else others).append(file)
    mine = [file for file in mine if not _is_one_of(file, lists)]
    if config.label_map is not None:
        others.insert(0, Path(config.label_map))
    stems = frozenset(normalised(picture.stem) for picture in pictures)
    folder = _unpacked(config)
    unpacked = any(_lies_in(picture, folder) for picture in pictures)
    sources = Sources(mine, others, stems, config.format != "auto", unpacked)
    return read_labels(sources, root, config.format)


def _is_one_of(file: Path, lists: Sequence[Path]) -> bool:
    return any(file.name == other.name and file.samefile(other) for other in lists)


def _no_labels(config: DataConfig) -> Finding:
    root = _labels_root(config)
    candidates = [root.absolute().parent / name for name in LABEL_FOLDERS]
    beside = [folder for folder in candidates if folder.is_dir() and _holds_labels(folder)]
    remedy = f"Set data.annotations={beside[0]}" if beside else None
    return found("OD002", root, "holds no label files.", remedy=remedy)


def _holds_labels(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("*.xml", "*.txt", "*.json", "*.csv"))


def _match(
    pictures: Sequence[Path], entries: Sequence[Entry], some_left_out: bool, findings: list[Finding]
) -> dict[Path, Entry]:
    """Picture -> its entry, by the label file's own name first, then by the name it gives."""
    names = PictureNames(pictures)
    candidates: dict[Path, list[Entry]] = defaultdict(list)
    ambiguous: set[Path] = set()
    unmatched: dict[Path, list[Entry]] = defaultdict(list)
    for entry in entries:
        called = [*entry.names, *before_upload(entry.names)]
        matches = next(filter(None, (_named(names, entry, name) for name in called)), [])
        if not matches and not some_left_out:
            unmatched[entry.label_file].append(entry)
        for picture in matches:
            candidates[picture].append(entry)
        ambiguous.update(matches[1:])
    findings += _without_picture(unmatched)
    for clash in names.clashes():
        if any(picture in candidates for picture in clash) and (
            ambiguous.intersection(clash) or not all(picture in candidates for picture in clash)
        ):
            cause = f"has the name of {', '.join(map(str, clash[1:]))}."
            findings.append(found("OD013", clash[0], cause))
    return {
        picture: _the_one(picture, found_for, findings) for picture, found_for in candidates.items()
    }


def _named(names: PictureNames, entry: Entry, name: str) -> list[Path]:
    """The pictures called `name`; of several, those whose folders are most like the label's.

    So `labels/train/1.txt` is of `images/train/1.jpg`, not of `images/test/1.jpg`.
    """
    path = PurePosixPath(name)
    matches = names.find(path.name)
    if len(matches) < 2:
        return matches
    folders = [*entry.label_file.parent.parts, *path.parts[:-1]]

    def shared(picture: Path) -> int:
        pairs = zip(reversed(picture.parent.parts), reversed(folders), strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

    most = max(map(shared, matches))
    return [picture for picture in matches if shared(picture) == most]


def _without_picture(unmatched: dict[Path, list[Entry]]) -> list[Finding]:
    """OD012, a hundred for one label file at most."""
    findings = []
    for file, entries in unmatched.items():
        for entry in entries[:MAX_UNMATCHED]:
            shown = " or ".join(f'"{name}"' for name in entry.names)
            findings.append(found("OD012", file, f"no picture is called {shown}."))
        if len(entries) > MAX_UNMATCHED:
            more = len(entries) - MAX_UNMATCHED
            cause = f"{more:,} more pictures that it tells of are not there."
            findings.append(found("OD012", file, cause))
    return findings


def _the_one(picture: Path, entries: list[Entry], findings: list[Finding]) -> Entry:
    """The entry beside the picture if there is one; else there must be but one.

    Files about many pictures may repeat each other: the tutorial's raccoon_labels.csv holds the rows
    of train_labels.csv and test_labels.csv.
    """
    beside = [entry for entry in entries if entry.label_file.parent == picture.parent]
    best = beside or entries
    if len({(entry.objects, entry.size, entry.shared or entry.label_file) for entry in best}) > 1:
        files = list(dict.fromkeys(str(entry.label_file) for entry in best))
        times = "twice " if len(files) < len(best) else ""
        findings.append(found("OD014", picture, f"is labelled {times}by {', '.join(files)}."))
    return best[0]
