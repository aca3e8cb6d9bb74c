"""`odtrain prelabel merge`: corrected proposals into the data set, and what the model was worth as a helper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from odtrain.addresses import is_remote
from odtrain.box_matching import match_boxes
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import Checked, check
from odtrain.dataset.prepare import prepare, refuse_errors
from odtrain.dataset.read import read_dataset
from odtrain.dataset.splits import SPLITS
from odtrain.errors import ConfigError, DataError, told_if_not_written
from odtrain.io.atomic import copy, replacing, sync
from odtrain.io.free_names import numbered
from odtrain.labelling.decided import labels_digest, note_decided
from odtrain.labelling.prelabel import (
    MANIFEST,
    Proposal,
    ProposalRow,
    read_manifest,
    write_manifest,
)
from odtrain.labels.annotations import LabelledImage
from odtrain.labels.formats import voc
from odtrain.structures import pairwise_iou

SAME_BOX = 1.0
"""Pixels by which each edge of a kept box may have moved: a tool's own rounding."""
SAME_OBJECT = 0.5
"""Overlap (IoU) from which a corrected box is taken for the proposed one."""
OUTCOMES = ("kept", "moved", "renamed", "added", "removed")
BEFORE = "before"
"""Folder of the label files as they were, within the folder of the proposals."""
SHOWN = 5
"""Names of pictures that a message gives."""
OF_THE_SPLIT = ("OD017", "OD018")
"""Findings that do not matter in a folder that is no data set by itself."""


@dataclass(frozen=True)
class Taken:
    """A picture to take, and what became of its proposals.

    Attributes:
        row: of the manifest.
        image: its corrected labels.
        outcomes: one of `OUTCOMES` for each box, proposed or added.
    """

    row: ProposalRow
    image: LabelledImage
    outcomes: Counter[str]


def merge(input: str | None, data: DataConfig) -> str:
    """Take the verified pictures of the folder `input=` into the data set of `data.*`.

    New pictures and their XML are copied into `data.images` and `data.annotations`. Of pictures of the data
    set, whose labels were doubted, the XML is replaced, and the old one kept in the folder's `before/`.
    Nothing else is changed, and what was taken before is not taken again.

    Returns:
        How many boxes were kept, moved, renamed, added and removed, for people.

    Raises:
        ConfigError: `input` is not given, or the data set is not labelled as Pascal VOC.
        DataError: nothing is verified, the labels have errors, or the data set cannot be written.
    """
    if not input:
        raise ConfigError("input", "is not given.", "Name the folder of the proposals: input=DIR.")
    if is_remote(data.images) or is_remote(data.annotations or ""):
        raise DataError(
            data.images,
            "is in a store, and labels are merged into folders here alone.",
            "Copy the data set here, merge, and copy what changed back.",
        )
    folder = Path(input)
    source, rows = read_manifest(folder)
    taken = _verified(folder, [row for row in rows if not row.taken])
    if not taken:
        raise DataError(
            folder,
            "holds no verified picture that was not taken before.",
            "In labelImg, press the space bar on each picture that is right, and save.",
        )
    before = _digest(data)
    checked = _check_target(data)
    there = {held.content: file for file, held in checked.pictures.items()}
    now = {image.image: image for image in checked.images}
    other = []
    taken = [one for one in taken if _is_to_take(one.row, there)]
    with told_if_not_written(
        data.images,
        f"What was taken until then is noted in {MANIFEST}; the same command goes on.",
    ):
        for one in taken:
            if one.row.replaces:
                picture = there[one.row.sha256]
                name = picture.name
                if _is_changed(one, now.get(picture)):
                    other.append(one.row.name)
                _replace(folder, one, picture, now.get(picture))
                note_decided(Path(data.prepared), {one.row.sha256: one.image})
            else:
                name = one.row.merged or _free_name(data, Path(one.row.source).name)
                rows = _noted(folder, source, rows, replace(one.row, merged=name))
                _copy(folder, one, data, name)
            rows = _noted(folder, source, rows, replace(one.row, merged=name, taken=True))
    dataset = prepare(data)
    said = _told(taken, rows, data, before, dataset.digest)
    if other:
        shown = ", ".join(other[:SHOWN]) + ", ..." * (len(other) > SHOWN)
        said += (
            f"\n  {len(other)} had other labels by now than when they were doubted: {shown}. Those are in "
            f"{folder / BEFORE}."
        )
    return said


def box_outcomes(proposals: Sequence[Proposal], image: LabelledImage) -> Counter[str]:
    """What became of proposed boxes, by `OUTCOMES`: each pair of boxes that overlap most is one object."""
    outcomes: Counter[str] = Counter()
    old = np.array([each.xyxy for each in proposals], np.float32).reshape(-1, 4)
    new = np.array([item.yxyx for item in image.objects], np.float32).reshape(-1, 4)
    new = new[:, [1, 0, 3, 2]] * np.array([image.width, image.height] * 2, np.float32)
    partner = match_boxes(pairwise_iou(old, new), SAME_OBJECT, order="overlaps")
    matched = np.flatnonzero(partner >= 0).tolist()
    for i in matched:
        j = partner[i]
        if proposals[i].name != image.objects[j].name:
            outcomes["renamed"] += 1
        else:
            moved = np.abs(old[i] - new[j]).max() > SAME_BOX
            outcomes["moved" if moved else "kept"] += 1
    outcomes["removed"], outcomes["added"] = len(old) - len(matched), len(new) - len(matched)
    return outcomes


# ---- what is taken


def _verified(folder: Path, rows: Iterable[ProposalRow]) -> list[Taken]:
    """The pictures of the folder that somebody has marked as right.

    Raises:
        DataError: the labels of one of them have errors.
    """
    labelled = _read(folder)
    taken = []
    for row in rows:
        image = labelled.get(row.name)
        if image is not None and image.verified:
            taken.append(Taken(row, image, box_outcomes(row.proposals, image)))
    return taken


def _read(folder: Path) -> dict[str, LabelledImage]:
    config = section(
        DataConfig,
        name="proposals",
        images=str(folder),
        format="voc",
        test_fraction=0.0,
        validation_fraction=0.0,
        prepared=str(folder / ".prepared"),
    )
    checked = check(config)
    refuse_errors(config, [each for each in checked.findings if each.code not in OF_THE_SPLIT])
    return {image.image.name: image for split in SPLITS for image in checked.splits[split]}


def _digest(config: DataConfig) -> str | None:
    try:
        return read_dataset(Path(config.prepared)).digest
    except DataError:
        return None


def _is_to_take(row: ProposalRow, there: Mapping[str, Path]) -> bool:
    """Whether a picture is new, or one that is there still and whose labels are corrected.

    Raises:
        DataError: the picture to correct is not in the data set any more.
    """
    if row.replaces and row.sha256 not in there:
        raise DataError(
            row.source,
            "is not among the labelled pictures any more; nothing was changed.",
            "Put it back, or take its copy and its XML out of the folder of the proposals.",
        )
    return bool(row.replaces or row.merged) or row.sha256 not in there


def _check_target(config: DataConfig) -> Checked:
    """The data set, which must be labelled as Pascal VOC.

    Raises:
        ConfigError: it is labelled otherwise.
        DataError: its labels have errors.
    """
    checked = check(config)
    if checked.label_format not in ("voc", ""):
        raise ConfigError(
            f"data.images={config.images}",
            f"is labelled as {checked.label_format}, and corrections are Pascal VOC.",
            "Convert it first: odtrain convert --to voc output=DIR.",
        )
    refuse_errors(config, checked.findings)
    return checked


def _noted(
    folder: Path, source: str, rows: Sequence[ProposalRow], changed: ProposalRow
) -> list[ProposalRow]:
    """Write the manifest with one row changed."""
    after = [changed if row.name == changed.name else row for row in rows]
    write_manifest(folder, source, after)
    return after


def _copy(folder: Path, one: Taken, config: DataConfig, name: str) -> None:
    """Copy a picture and its labels into the data set, the XML last; then they are on disk."""
    images, labels = _targets(config)
    copy(folder / one.row.name, images / name)
    voc.write(labels, [one.image], [Path(name)])
    sync((labels / name).with_suffix(".xml"))


def _is_changed(one: Taken, now: LabelledImage | None) -> bool:
    """Whether the labels are neither those that were doubted nor, after a kill, the corrected ones."""
    known = one.row.replaces, labels_digest(one.image)
    return now is not None and labels_digest(now) not in known


def _replace(folder: Path, one: Taken, picture: Path, now: LabelledImage | None) -> None:
    """Write the corrected XML in place of the old one, which is kept."""
    file = (now and now.label_file) or picture.with_suffix(".xml")
    kept = folder / BEFORE / f"{one.row.name}.xml"
    if file.exists() and not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        copy(file, kept)
    with replacing(file) as part:
        part.write_bytes(voc.as_xml(one.image, Path(picture.parent.name, picture.name)))


def _targets(config: DataConfig) -> tuple[Path, Path]:
    """Where pictures and label files go: into `train/`, where such folders are the split."""
    images = _for_training(Path(config.images))
    return images, _for_training(Path(config.annotations)) if config.annotations else images


def _for_training(folder: Path) -> Path:
    return folder / "train" if (folder / "train").is_dir() else folder


def _free_name(config: DataConfig, name: str) -> str:
    """The picture's own name, or with a number behind it, where that or its XML is there already."""
    images, labels = _targets(config)
    return next(
        tried.name
        for tried in numbered(Path(name))
        if not (images / tried).exists() and not (labels / tried.with_suffix(".xml")).exists()
    )


# ---- what is said


def _told(
    taken: Sequence[Taken],
    rows: Sequence[ProposalRow],
    data: DataConfig,
    before: str | None,
    digest: str,
) -> str:
    total: Counter[str] = sum((one.outcomes for one in taken), Counter())
    proposed = sum(len(one.row.proposals) for one in taken)
    left = sum(not row.taken for row in rows)
    share = f" ({total['kept'] / proposed:.0%} of what was proposed)" if proposed else ""
    lines = [
        f"{len(taken)} pictures taken into {data.name}; {left} are not verified yet.",
        f"  boxes: {total['kept']} kept{share}, {total['moved']} moved, {total['renamed']} renamed, "
        f"{total['added']} added, {total['removed']} removed.",
        f"  data set: digest {before[:16] + ' -> ' if before else ''}{digest[:16]}",
    ]
    if data.train_list:
        names = ", ".join(str(row.merged) for row in rows if row.merged)
        lines.append(f"  {data.train_list} decides what is trained on; add there: {names}")
    return "\n".join(lines)
