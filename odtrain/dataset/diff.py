"""Two versions of a prepared data set compared: pictures, boxes and classes added, moved, removed.

What is read of each is its CSVs, so that a run's `data/` artifacts can be compared too; where the state of
the preparation lies beside them, pictures are also known by their pixels.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from odtrain.box_matching import match_boxes
from odtrain.dataset.look import STATE_FILE
from odtrain.dataset.read import DATASET_FILE
from odtrain.dataset.splits import SPLITS
from odtrain.errors import DataError, taken_from
from odtrain.io.atomic import read_json
from odtrain.io.cells import text_in
from odtrain.structures import FloatArray, pairwise_iou

SAME_OBJECT_IOU = 0.5
"""Boxes that overlap less are two objects: one removed, one added."""
SAME_PLACE = 0.01
"""Pixels: what the CSVs' four digits may round away."""
SHOWN_PICTURES = 20


@dataclass(frozen=True)
class Box:
    """A labelled object: class name and xmin, ymin, xmax, ymax in pixels."""

    name: str
    xyxy: tuple[float, float, float, float]

    def __str__(self) -> str:
        """As findings show it."""
        return f"{self.name} {','.join(f'{value:g}' for value in self.xyxy)}"


@dataclass(frozen=True)
class LabelledPicture:
    """A picture of one version.

    Attributes:
        name: its file name.
        split: it is in.
        boxes: as labelled.
        pixels: a digest of them; empty where it is not known.
    """

    name: str
    split: str
    boxes: tuple[Box, ...]
    pixels: str


@dataclass(frozen=True)
class Change:
    """One box that differs.

    Attributes:
        kind: `added`, `removed`, `moved`, `renamed` (another class, at the same place) or `both`.
        before: the box in the first version; None if it was added.
        after: the box in the second version; None if it was removed.
        iou: of the two; None where there is one.
    """

    kind: str
    before: Box | None
    after: Box | None
    iou: float | None = None

    def __str__(self) -> str:
        """The change on one line."""
        if self.before is None or self.after is None:
            return f"{self.kind} {self.before or self.after}"
        return f"{self.kind} {self.before} -> {self.after} (IoU {self.iou:.2f})"


@dataclass(frozen=True)
class PictureChange:
    """A picture of both versions that differs.

    Attributes:
        name: its file name, in the second version.
        was: its file name in the first version.
        splits: in the first and in the second version.
        replaced: its pixels are others.
        changes: of its boxes.
    """

    name: str
    was: str
    splits: tuple[str, str]
    replaced: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class DataDiff:
    """What differs between two versions of a data set.

    Attributes:
        first: folder of the first version.
        second: folder of the second version.
        digests: of the two; equal ones train alike.
        pictures_added: names.
        pictures_removed: names.
        changed: pictures of both that differ.
        boxes: class -> in the first, in the second version.
    """

    first: str
    second: str
    digests: tuple[str, str]
    pictures_added: list[str] = field(default_factory=list)
    pictures_removed: list[str] = field(default_factory=list)
    changed: list[PictureChange] = field(default_factory=list)
    boxes: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def kinds(self) -> Counter[str]:
        """How many boxes of pictures in both versions changed in which way."""
        return Counter(change.kind for picture in self.changed for change in picture.changes)


def compare(first: Path, second: Path) -> DataDiff:
    """Compare two folders that hold `*_labels.csv`: prepared data sets, or `data/` of runs.

    Pictures are the same if they have one name, or else the same pixels.

    Raises:
        DataError: a folder holds no CSVs, or one that odtrain did not write.
    """
    a, b = read_version(first), read_version(second)
    same = _pairs(a, b)
    kept = {old for old, _ in same}
    matched = {new for _, new in same}
    changed = [_compared(a[old], b[new]) for old, new in same]
    diff = DataDiff(
        str(first),
        str(second),
        (_digest(first), _digest(second)),
        sorted(b.keys() - matched),
        sorted(a.keys() - kept),
        [picture for picture in changed if _differs(picture)],
    )
    counts = [_class_counts(version) for version in (a, b)]
    for name in sorted(counts[0] | counts[1]):
        diff.boxes[name] = (counts[0][name], counts[1][name])
    return diff


def read_version(folder: Path) -> dict[str, LabelledPicture]:
    """The pictures of a version by their names.

    Raises:
        DataError: there are no CSVs, or not odtrain's.
    """
    files = {split: folder / f"{split}_labels.csv" for split in SPLITS}
    if not any(file.is_file() for file in files.values()):
        remedy = (
            "Give folders that odtrain prepare wrote, such as datasets/NAME, or data/ of a run."
        )
        raise DataError(folder, f"holds no *_labels.csv{taken_from(folder)}.", remedy)
    state = read_json(folder / STATE_FILE).get("pictures", {})
    pixels = {Path(file).name: values["picture"]["pixels"] for file, values in state.items()}
    return {
        name: LabelledPicture(name, split, tuple(boxes), pixels.get(name, ""))
        for split, file in files.items()
        if file.is_file()
        for name, boxes in _read_csv(file).items()
    }


def _read_csv(file: Path) -> dict[str, list[Box]]:
    pictures: dict[str, list[Box]] = defaultdict(list)
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for row in csv.DictReader(stream):
                boxes = pictures[text_in(row["filename"])]
                if row["class"]:
                    corners = [float(row[side]) for side in ("xmin", "ymin", "xmax", "ymax")]
                    boxes.append(
                        Box(text_in(row["class"]), (corners[0], corners[1], corners[2], corners[3]))
                    )
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        remedy = "Prepare the data set again: odtrain prepare"
        raise DataError(file, f"cannot be read ({error}).", remedy) from None
    return pictures


def _digest(folder: Path) -> str:
    return str(read_json(folder / DATASET_FILE).get("digest", ""))


def _pairs(a: dict[str, LabelledPicture], b: dict[str, LabelledPicture]) -> list[tuple[str, str]]:
    """Names of the same picture in both: equal names first, then equal pixels."""
    pairs = [(name, name) for name in a if name in b]
    gone = {a[name].pixels: name for name in a if name not in b and a[name].pixels}
    for name, picture in b.items():
        if name not in a and picture.pixels in gone:
            pairs.append((gone.pop(picture.pixels), name))
    return sorted(pairs, key=lambda pair: pair[1])


def _compared(old: LabelledPicture, new: LabelledPicture) -> PictureChange:
    replaced = bool(old.pixels and new.pixels and old.pixels != new.pixels)
    changes = tuple(box_changes(old.boxes, new.boxes))
    return PictureChange(new.name, old.name, (old.split, new.split), replaced, changes)


def _differs(picture: PictureChange) -> bool:
    before, after = picture.splits
    return bool(
        picture.changes or picture.replaced or picture.name != picture.was or before != after
    )


def box_changes(before: Sequence[Box], after: Sequence[Box]) -> Iterator[Change]:
    """What became of each box: those that overlap most, and of one class if equally, are one object."""
    ious = _ious(before, after)
    same_class = np.array([[a.name == b.name for b in after] for a in before], bool)
    rank = ious + 1e-6 * same_class.reshape(ious.shape)
    partner = match_boxes(ious, SAME_OBJECT_IOU, order="overlaps", rank=rank).tolist()
    pairs = [(i, j) for i, j in enumerate(partner) if j >= 0]
    for i, j in sorted(pairs, key=lambda pair: -rank[pair]):
        if kind := _kind(before[i], after[j]):
            yield Change(kind, before[i], after[j], round(float(ious[i, j]), 4))
    yield from (Change("removed", before[i], None) for i, j in enumerate(partner) if j < 0)
    yield from (Change("added", None, box) for j, box in enumerate(after) if j not in partner)


def _ious(before: Sequence[Box], after: Sequence[Box]) -> FloatArray:
    """(A, B); axes may be swapped in both, it makes no difference."""
    a, b = (
        np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4)
        for boxes in (before, after)
    )
    return pairwise_iou(a, b)


def _kind(before: Box, after: Box) -> str:
    moved = max(abs(x - y) for x, y in zip(before.xyxy, after.xyxy, strict=True)) > SAME_PLACE
    if before.name == after.name:
        return "moved" if moved else ""
    return "both" if moved else "renamed"


def _class_counts(version: dict[str, LabelledPicture]) -> Counter[str]:
    return Counter(box.name for picture in version.values() for box in picture.boxes)


def as_json(diff: DataDiff) -> str:
    """All of it, for programs."""
    return json.dumps({**asdict(diff), "box_changes": diff.kinds}, indent=1)


def as_table(diff: DataDiff) -> str:
    """Counts, classes and the first pictures that differ, for people."""
    pictures = f"{len(diff.pictures_added)} added, {len(diff.pictures_removed)} removed"
    moved = Counter(
        f"{before} -> {after}"
        for before, after in (picture.splits for picture in diff.changed)
        if before != after
    )
    lines = [
        f"{diff.first} -> {diff.second}",
        _about_digests(diff),
        f"  pictures: {pictures}, {len(diff.changed)} changed",
    ]
    lines += [f"  {count} moved from {way.replace(' -> ', ' to ')}" for way, count in moved.items()]
    lines += _box_lines(diff)
    lines += _picture_lines(diff)
    return "\n".join(lines)


def _about_digests(diff: DataDiff) -> str:
    before, after = diff.digests
    if before and before == after:
        return f"  the same pixels, boxes, classes and splits: digest {before[:16]}"
    return f"  digests: {before[:16] or 'not known'}, {after[:16] or 'not known'}"


def _box_lines(diff: DataDiff) -> Iterator[str]:
    kinds = diff.kinds
    yield (
        f"  boxes in pictures of both: {kinds['added']} added, {kinds['removed']} removed, "
        f"{kinds['moved'] + kinds['both']} moved, {kinds['renamed'] + kinds['both']} of another class"
    )
    renamed = Counter(
        f"{change.before.name} -> {change.after.name}"
        for picture in diff.changed
        for change in picture.changes
        if change.before and change.after and change.before.name != change.after.name
    )
    yield from (f"    {count} {names}" for names, count in renamed.most_common(SHOWN_PICTURES))
    width = max((len(name) for name in diff.boxes), default=0)
    for name, (before, after) in diff.boxes.items():
        sign = f"{after - before:+}" if after != before else ""
        yield f"    {name:<{width}} {before:>8} -> {after:<8} {sign}".rstrip()


def _picture_lines(diff: DataDiff) -> Iterator[str]:
    shown = [f"+ {name}" for name in diff.pictures_added]
    shown += [f"- {name}" for name in diff.pictures_removed]
    shown += [_described(picture) for picture in diff.changed]
    yield from (f"  {text}" for text in shown[:SHOWN_PICTURES])
    if len(shown) > SHOWN_PICTURES:
        yield f"  and {len(shown) - SHOWN_PICTURES} pictures more; --json FILE writes all of them"


def _described(picture: PictureChange) -> str:
    before, after = picture.splits
    notes = [f"was {picture.was}"] if picture.was != picture.name else []
    notes += [f"{before} -> {after}"] if before != after else []
    notes += ["other pixels"] if picture.replaced else []
    notes += [str(change) for change in picture.changes]
    return f"~ {picture.name}: {'; '.join(notes)}"
