"""The data doctor: a folder of pictures and label files -> checked, split pictures and findings.

Nothing is written here, and the user's files are only read. `records.prepare` goes on from it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from odtrain.config.schema import DataConfig, ModelConfig
from odtrain.dataset.checks.anchor_fit import fit_findings
from odtrain.dataset.checks.balance import balance_findings
from odtrain.dataset.checks.class_names import name_findings
from odtrain.dataset.checks.leakage import scene_findings
from odtrain.dataset.near_duplicates import Scenes, find_scenes
from odtrain.dataset.pairing import matched_entries, scan_sources, unpacked_pictures
from odtrain.dataset.scan import (
    FileStat,
    Memory,
    expect_looks,
    inspect_all,
    read_json,
    read_memories,
)
from odtrain.dataset.splits import SPLITS, complete_split, drawn_splits
from odtrain.errors import ConfigError, DataError
from odtrain.findings import Finding as Finding
from odtrain.findings import by_severity, errors, found
from odtrain.findings import findings_json as findings_json
from odtrain.findings import findings_table as findings_table
from odtrain.labels.annotations import Entry, LabelledImage, place
from odtrain.labels.formats.recognise import FORMATS
from odtrain.labels.label_map import read_label_map
from odtrain.media.images import Picture
from odtrain.system.workers import Workers

DATASET_FILE = "dataset.json"


@dataclass(frozen=True)
class Dataset:
    """A prepared data set, as `dataset.json` in its folder tells of it.

    Attributes:
        folder: holds the records, CSVs and label map.
        name: what the user calls it.
        digest: sha256 over pixels, boxes, classes and split: what training depends on.
        class_names: the first has id 1.
        counts: split -> {"images": ..., "boxes": ...}; a split without images has zeros.
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


@dataclass(frozen=True)
class Examined:
    """All that the data doctor knows.

    Attributes:
        splits: split -> its pictures, ordered by name.
        class_names: the first has id 1.
        findings: errors first.
        pictures: what each picture that is used holds.
        memories: picture -> what to remember of it, by its path as text.
        label_format: a row of `formats.FORMATS`; empty where there are no labels.
        entries: what the label files say of each picture that has one.
        scenes: which pictures belong together.
        given: picture -> split, as far as lists or folders give it.
    """

    splits: dict[str, list[LabelledImage]]
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    pictures: dict[Path, Picture]
    memories: dict[str, Memory]
    label_format: str
    entries: dict[Path, Entry]
    scenes: Scenes
    given: dict[Path, str]

    @property
    def images(self) -> list[LabelledImage]:
        """The pictures of all splits."""
        return [image for split in SPLITS for image in self.splits[split]]


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


def check(
    config: DataConfig, model: ModelConfig | None = None
) -> tuple[dict[str, list[LabelledImage]], tuple[Finding, ...]]:
    """Look at every picture and label that `config` names.

    Args:
        config: which they are.
        model: the network that is to learn them, if its input and anchors are to be looked at too.

    Returns:
        split -> its pictures ordered by name, and the findings, errors first.

    Raises:
        ConfigError: folds of a data set whose test and validation parts are given.
        DataError: a folder or list cannot be read at all.
    """
    examined = diagnose(config, model)
    return examined.splits, examined.findings


def diagnose(config: DataConfig, model: ModelConfig | None = None) -> Examined:
    """As `check`, with all that is known besides.

    Raises:
        ConfigError: as of `check`.
        DataError: as of `check`.
    """
    examined = examine(config, scan_sources(config))
    if model is None or errors(examined.findings):
        return examined
    findings = [*examined.findings, *fit_findings(model, examined.images)]
    return replace(examined, findings=by_severity(findings))


def examine(
    config: DataConfig, files: dict[Path, FileStat], workers: Workers | None = None
) -> Examined:
    """As `check`, with all that `records.prepare` needs.

    Args:
        config: which they are.
        files: as `scan_sources` gives them. Pictures that were seen before are not decoded again.
        workers: look into the pictures; None for some of its own.
    """
    if workers is None:
        with Workers(config.workers) as own:
            return examine(config, files, own)
    findings: list[Finding] = []
    files = {**files, **unpacked_pictures(config, files, findings)}
    known = read_memories(Path(config.prepared))
    expect_looks(files, known, workers)
    entries, given, label_format = matched_entries(config, files, findings)
    memories = inspect_all(entries, files, known, findings, workers)
    pictures = {
        picture: memories[str(picture)].picture for picture in entries if str(picture) in memories
    }
    images = [
        _labelled(picture, entries[picture], pictures[picture], findings) for picture in pictures
    ]
    class_names, images = _classes(config, images, findings)
    if config.folds and given and not drawn_splits(config, given):
        remedy = "Leave out one of the two, or data.folds."
        raise ConfigError("data.folds", "test and validation are both given.", remedy)
    scenes = find_scenes(pictures)
    splits = complete_split(config, images, given, scenes.whole)
    if not errors(findings):
        findings += _check_splits(config, splits, class_names)
        findings += balance_findings(config, splits, class_names)
        findings += name_findings(images, () if config.label_map is None else class_names)
        findings += scene_findings(config, splits, given, scenes)
    return Examined(
        splits,
        class_names,
        by_severity(findings),
        pictures,
        memories,
        label_format,
        entries,
        scenes,
        given,
    )


def _labelled(picture: Path, entry: Entry, held: Picture, findings: list[Finding]) -> LabelledImage:
    objects, about_boxes = place(entry, held.width, held.height)
    if entry.size not in (None, (held.width, held.height)):
        findings.append(_wrong_size(picture, entry, entry.size, held))
    if held.ambiguous and entry.objects:
        cause = "EXIF turns this picture, and the label's size does not show whether boxes follow."
        findings.append(found("OD105", picture, cause))
    findings += [replace(finding, picture=str(picture)) for finding in about_boxes]
    return LabelledImage(
        picture,
        entry.label_file,
        held.height,
        held.width,
        objects,
        held.orientation,
        entry.verified,
    )


def _wrong_size(
    picture: Path, entry: Entry, size: tuple[int, int] | None, held: Picture
) -> Finding:
    gives = f"says {size[0]} x {size[1]}" if size and any(size) else "gives no size"
    cause = f"{gives}, {picture.name} has {held.width} x {held.height} pixels."
    return found("OD103", entry.label_file, cause)


def _classes(
    config: DataConfig, images: list[LabelledImage], findings: list[Finding]
) -> tuple[tuple[str, ...], list[LabelledImage]]:
    """Names, sorted or as the user's label map has them, and images with boxes of those only."""
    used = {labelled_object.name for image in images for labelled_object in image.objects}
    if config.label_map is None:
        return tuple(sorted(used)), images
    try:
        names = read_label_map(Path(config.label_map))
    except DataError as error:
        where, problem, remedy = error.args
        findings.append(found("OD020", where, problem, remedy=remedy or None))
        return tuple(sorted(used)), images
    for name in sorted(set(names) - used):
        findings.append(found("OD202", config.label_map, f'no box is labelled "{name}".'))
    return names, [_with_known_classes(image, names, findings) for image in images]


def _with_known_classes(
    image: LabelledImage, names: tuple[str, ...], findings: list[Finding]
) -> LabelledImage:
    file = image.label_file or image.image
    for item in image.objects:
        if item.name not in names:
            nearest = difflib.get_close_matches(item.name, names, n=1, cutoff=0)[0]
            cause = f'class "{item.name}" is not in the label map; nearest is "{nearest}".'
            box = image.describe(item)
            findings.append(found("OD007", file, cause, box=box, picture=image.image))
    known = tuple(item for item in image.objects if item.name in names)
    return replace(image, objects=known)


def _check_splits(
    config: DataConfig, splits: dict[str, list[LabelledImage]], class_names: tuple[str, ...]
) -> list[Finding]:
    """OD017, OD018 and OD108."""
    findings = []
    for split in SPLITS:
        images = splits[split]
        used = {item.name for image in images for item in image.objects}
        file = getattr(config, f"{split}_list") or config.images
        if not images and (split != "validation" or config.validation_list is not None):
            findings.append(_empty_split(config, split, file, sum(map(len, splits.values()))))
        elif images and not used:
            cause = f"none of the {len(images)} {split} pictures has a box."
            findings.append(found("OD018", file, cause))
        elif split != "validation":
            missing = sorted(set(class_names) - used)
            findings += [
                found("OD108", file, f'no {split} picture shows "{name}".') for name in missing
            ]
    return findings


def _empty_split(config: DataConfig, split: str, file: str, images: int) -> Finding:
    cause = f"the {split} split is empty ({images} labelled pictures in all)."
    drawn = split == "test" and config.test_list is None and config.test_fraction == 0
    remedy = "Set data.test_fraction, such as 0.2, or give data.test_list." if drawn else None
    return found("OD017", file, cause, remedy=remedy)


def describe(dataset: Dataset) -> str:
    """The data set on one screen, for people."""
    rows = [
        f"  {split:<12}{count['images']:>7} pictures{count['boxes']:>8} boxes"
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


def content_digest(examined: Examined) -> str:
    """sha256 over what training depends on: pixels, boxes, classes, flags, split and class order.

    File names, dates and the order of files do not enter.
    """
    lines = sorted(
        f"{split} {examined.pictures[image.image].pixels} {_objects_digest(image)}"
        for split, images in examined.splits.items()
        for image in images
    )
    return hashlib.sha256(json.dumps([examined.class_names, lines]).encode()).hexdigest()


def _objects_digest(image: LabelledImage) -> str:
    digest = hashlib.sha256()
    for item in image.objects:
        digest.update(struct.pack("<4f2?", *item.yxyx, item.difficult, item.truncated))
        digest.update(json.dumps(item.name).encode())
    return digest.hexdigest()
