"""Which files there are, and which label file belongs to which picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from odtrain.annotations import READERS, Entry, normalised
from odtrain.config import DataConfig
from odtrain.errors import DataError
from odtrain.findings import Finding, found
from odtrain.inspection import FileStat
from odtrain.pictures import SUFFIXES, UNSUPPORTED_SUFFIXES
from odtrain.splits import PictureNames, given_split

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
        if not root.is_dir():
            raise DataError(
                root, "is not a folder.", f"Set {key} to the folder that holds the files."
            )
        files.update(_scan(root, {_identity(prepared)} if prepared.is_dir() else set()))
    for extra in (config.train_list, config.validation_list, config.test_list, config.label_map):
        if extra is not None and Path(extra).is_file():
            status = Path(extra).stat()
            files[Path(extra)] = (status.st_size, status.st_mtime_ns)
    return files


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


def matched_entries(
    config: DataConfig, files: dict[Path, FileStat], findings: list[Finding]
) -> tuple[dict[Path, Entry], dict[Path, str]]:
    """Every picture that is used and has a label file, and the split as far as it is given."""
    root = Path(config.images)
    known = SUFFIXES | UNSUPPORTED_SUFFIXES
    pictures = [
        file for file in files if file.suffix.lower() in known and file.is_relative_to(root)
    ]
    if not pictures:
        findings.append(found("OD001", root, "holds no pictures."))
        return {}, {}
    given, about_lists = given_split(config, root, pictures)
    findings += about_lists
    used = [picture for picture in pictures if picture in given] if given else pictures
    entries, about_labels = _read_labels(config, files)
    findings += about_labels
    if not entries and not about_labels:
        findings.append(_no_labels(config))
        return {}, {}
    broken = {normalised(Path(finding.file).stem) for finding in about_labels}
    entries_by_picture = _match(used, entries, len(used) < len(pictures), findings)
    for picture in used:
        if picture not in entries_by_picture and normalised(picture.stem) not in broken:
            findings.append(found("OD102", picture, "has no label file."))
    return entries_by_picture, given


def _read_labels(
    config: DataConfig, files: dict[Path, FileStat]
) -> tuple[list[Entry], list[Finding]]:
    root = _labels_root(config)
    candidates = [file for file in files if file.is_relative_to(root)]
    names = list(READERS) if config.format == "auto" else [config.format]
    for name in names:
        entries, findings = READERS[name](candidates)
        if entries or findings:
            return entries, findings
    return [], []


def _no_labels(config: DataConfig) -> Finding:
    root = _labels_root(config)
    candidates = [root.absolute().parent / name for name in LABEL_FOLDERS]
    beside = [folder for folder in candidates if folder.is_dir() and any(folder.glob("*.xml"))]
    remedy = f"Set data.annotations={beside[0]}" if beside else None
    return found("OD002", root, "holds no label files (.xml).", remedy=remedy)


def _match(
    pictures: Sequence[Path], entries: Sequence[Entry], some_left_out: bool, findings: list[Finding]
) -> dict[Path, Entry]:
    """Picture -> its entry, by the label file's own name first, then by the name it gives."""
    names = PictureNames(pictures)
    candidates: dict[Path, list[Entry]] = defaultdict(list)
    for entry in entries:
        matches = next(filter(None, map(names.find, entry.names)), [])
        if not matches and not some_left_out:
            shown = " or ".join(f'"{name}"' for name in dict.fromkeys(entry.names))
            findings.append(found("OD012", entry.label_file, f"no picture is called {shown}."))
        for picture in matches:
            candidates[picture].append(entry)
    for clash in names.clashes():
        if any(picture in candidates for picture in clash):
            cause = f"has the name of {', '.join(map(str, clash[1:]))}."
            findings.append(found("OD013", clash[0], cause))
    return {
        picture: _the_one(picture, found_for, findings) for picture, found_for in candidates.items()
    }


def _the_one(picture: Path, entries: list[Entry], findings: list[Finding]) -> Entry:
    """The entry beside the picture if there is one; else there must be but one."""
    beside = [entry for entry in entries if entry.label_file.parent == picture.parent]
    best = beside or entries
    if len(best) > 1:
        shown = ", ".join(str(entry.label_file) for entry in best)
        findings.append(found("OD014", picture, f"is labelled by {shown}."))
    return best[0]
