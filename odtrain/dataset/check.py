"""The data check: a folder of pictures and label files -> checked, split pictures and findings.

A line of steps: scan, read, match, look, place, split. Each gives what it made and what it found, for the
next one to go on from. Nothing is written here but pictures out of records; the user's files are only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from odtrain.config.schema import DataConfig, ModelConfig
from odtrain.config.tiles import training_tiles
from odtrain.dataset.checks.anchor_fit import fit_findings
from odtrain.dataset.checks.balance import balance_findings, split_findings
from odtrain.dataset.checks.class_names import name_findings
from odtrain.dataset.checks.leakage import scene_findings
from odtrain.dataset.checks.left_out import left_out_findings
from odtrain.dataset.checks.tiling import tile_findings
from odtrain.dataset.faulty import without_faulty
from odtrain.dataset.look import Memory, expect_looks, look, read_memories
from odtrain.dataset.near_duplicates import Scenes, find_scenes
from odtrain.dataset.pairing import match
from odtrain.dataset.place import labelled, of_known_classes
from odtrain.dataset.scan import Scan, no_labels, scan, source_files
from odtrain.dataset.splits import SPLITS, complete_split, given_split
from odtrain.dataset.tiles import Cut, cut
from odtrain.findings import Finding, by_severity, errors
from odtrain.io.remote.files import bring
from odtrain.io.remote.store import FileStat
from odtrain.labels.annotations import Entry, LabelledImage
from odtrain.labels.formats.reading import MAX_BYTES
from odtrain.labels.formats.recognise import read_labels
from odtrain.labels.formats.tfrecords import record_files
from odtrain.media.images import SUFFIXES, Picture
from odtrain.system.garbage import seldom_collecting
from odtrain.system.progress import doing
from odtrain.system.workers import Workers


class Checked(NamedTuple):
    """All that is known of a data set once it was checked.

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
        cut: the training pictures in tiles; None where they stay whole, and of a data set with errors.
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
    cut: Cut | None = None

    @property
    def images(self) -> list[LabelledImage]:
        """The pictures of all splits."""
        return [image for split in SPLITS for image in self.splits[split]]


@doing("Checking the data")
def check(
    config: DataConfig,
    model: ModelConfig | None = None,
    *,
    files: dict[Path, FileStat] | None = None,
    workers: Workers | None = None,
    any_case: bool = False,
) -> Checked:
    """Look at every picture and label that `config` names.

    Args:
        config: which they are.
        model: the network that is to learn them, if its input and anchors are to be looked at too.
        files: as `source_files` gives them; None for those that are there now.
        workers: look into the pictures; None for some of its own.
        any_case: names in label files may differ from those of pictures in upper and lower case.

    Raises:
        ConfigError: folds of a data set whose test and validation parts are given.
        DataError: a folder or list cannot be read at all.
    """
    files = source_files(config) if files is None else files
    given = nullcontext(workers) if workers else Workers(config.workers)
    with given as at_work, seldom_collecting():
        checked = _line(config, files, at_work, any_case)
    findings = by_severity(checked.findings)
    if not errors(findings):
        checked = checked._replace(cut=cut(config, checked.splits["train"]))
        findings = by_severity([*findings, *_about_splits(config, checked)])
    if model is not None and not errors(findings):
        fit = fit_findings(model, checked.images, training_tiles(config))
        findings = by_severity([*findings, *fit])
    return checked._replace(findings=findings)


def _line(
    config: DataConfig, files: dict[Path, FileStat], workers: Workers, any_case: bool
) -> Checked:
    """From files to splits, with what each step found, in the order of the steps."""
    scanned, about_files = scan(config, files)
    known = read_memories(Path(config.prepared))
    expect_looks(scanned.files, known, workers)
    given, about_lists = given_split(config, scanned.folder, scanned.pictures)
    bring(_label_files(scanned), "fetching labels")
    labels, about_labels = read_labels(scanned.sources, scanned.labels, config.format)
    if not labels.format:
        given, about_labels = {}, [no_labels(scanned.labels)] if scanned.pictures else []
    entries, about_pairs = match(scanned.pictures, given, labels, about_labels, any_case)
    memories, about_looks = look(entries, scanned.files, known, workers)
    pictures = {file: memories[str(file)].picture for file in entries if str(file) in memories}
    placed, about_boxes = labelled(entries, pictures)
    (class_names, images), about_classes = of_known_classes(config.label_map, placed)
    about_labels = [*about_labels, *left_out_findings(scanned.labels, entries)]
    about_pictures = (*about_pairs, *about_looks, *about_boxes, *about_classes)
    findings: Sequence[Finding] = (*about_files, *about_lists, *about_labels, *about_pictures)
    if config.faulty == "leave_out":
        images, findings = without_faulty(images, entries, findings)
        pictures = {image.image: pictures[image.image] for image in images}
    scenes = find_scenes(pictures)
    splits = complete_split(config, images, given, scenes.whole)
    return Checked(
        splits,
        class_names,
        tuple(findings),
        pictures,
        memories,
        labels.format,
        entries,
        scenes,
        given,
    )


def _label_files(scanned: Scan) -> dict[Path, FileStat]:
    """What readers of labels may open, pictures and what is too large aside."""
    sources = scanned.sources
    files = {
        file: scanned.files[file]
        for file in (*sources.labels, *sources.others)
        if file in scanned.files
    }
    return {
        file: stat
        for file, stat in files.items()
        if file.suffix.lower() not in SUFFIXES and stat[0] <= MAX_BYTES and not record_files([file])
    }


def _about_splits(config: DataConfig, checked: Checked) -> Iterator[Finding]:
    """What is only asked of a data set without errors."""
    splits, class_names = checked.splits, checked.class_names
    by_file = {image.image: image for image in checked.images}
    images = [by_file[file] for file in checked.pictures]
    yield from split_findings(config, splits, class_names)
    yield from balance_findings(config, splits, class_names)
    yield from name_findings(images, () if config.label_map is None else class_names)
    yield from scene_findings(config, splits, checked.given, checked.scenes)
    if checked.cut is not None:
        yield from tile_findings(config.tiles, checked.cut)
