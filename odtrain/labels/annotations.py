"""What label files say -> labelled pictures in the program's own conventions.

The readers in `formats` turn files into `Entry`s: what a file says of one picture, in its own words.
`place` then checks an entry against the picture it belongs to.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from odtrain.findings import Finding
from odtrain.structures import GroundTruth, pairwise_iou

TOLERANCE = 1.0
"""Pixels by which a box may leave the picture and still be clipped: what rounding does."""
ROUNDING = 0.01
"""Pixels by which a box may leave the picture unsaid: YOLO's six digits, of a picture 10,000 wide."""
NEARLY_TWICE = 0.8
"""Boxes of one class with such an IoU are most likely one object: people who labelled four raccoon
photographs twice agree to an IoU of 0.80 to 0.94."""
TWO_CLASSES = 0.9
"""Boxes of two classes with such an IoU are most likely one object."""
NO_FRACTION = 2.0
"""A fraction of the picture above this is a number of pixels, if it makes sense as one."""
BOX_REMEDIES = {".txt": "Correct the line, or delete it.", ".csv": "Correct the row, or delete it."}
ANY_BOX_REMEDY = "Correct it in the tool that wrote the file, or delete it there."


@dataclass(frozen=True)
class LabelledObject:
    """One object in a picture.

    Attributes:
        name: of its class.
        yxyx: ymin, xmin, ymax, xmax as fractions 0-1 of the picture.
        difficult: as the label file says.
        truncated: as the label file says.
    """

    name: str
    yxyx: tuple[float, float, float, float]
    difficult: bool
    truncated: bool

    def in_pixels(self, width: int, height: int) -> WrittenObject:
        """The object as a label file of a picture of `width` x `height` would give it."""
        ymin, xmin, ymax, xmax = self.yxyx
        corners = xmin * width, ymin * height, xmax * width, ymax * height
        return WrittenObject(self.name, corners, self.difficult, self.truncated)


@dataclass(frozen=True)
class LabelledImage:
    """A picture and the objects in it; without objects it is background.

    Attributes:
        image: the picture file.
        label_file: what the objects were read from.
        height: in pixels, after `orientation` was applied.
        width: in pixels, after `orientation` was applied.
        objects: in the order of the label file.
        orientation: the EXIF orientation to apply to the picture so that the boxes fit, 1 = none.
        verified: somebody looked at the labels once more, says the label file.
    """

    image: Path
    label_file: Path | None
    height: int
    width: int
    objects: tuple[LabelledObject, ...]
    orientation: int = 1
    verified: bool = False

    def corners(self, item: LabelledObject, decimals: int = 4) -> tuple[str, str, str, str]:
        """The box of `item` as xmin, ymin, xmax, ymax in pixels, in the fewest digits."""
        ymin, xmin, ymax, xmax = item.yxyx
        pixels = (xmin * self.width, ymin * self.height, xmax * self.width, ymax * self.height)
        first, second, third, fourth = (f"{v:.{decimals}f}".rstrip("0").rstrip(".") for v in pixels)
        return first, second, third, fourth

    def describe(self, item: LabelledObject) -> str:
        """Class and box of `item`, for a finding."""
        return f"{item.name} {','.join(self.corners(item))}"


@dataclass(frozen=True)
class WrittenObject:
    """An object as a label file gives it.

    Attributes:
        name: of its class, whitespace normalised.
        xyxy: xmin, ymin, xmax, ymax in pixels, or in fractions where its `Entry` says so; kept as
            written: labelImg's are 0-based edges, of which it raises a minimum of 0 to 1, so that 1
            must not be subtracted.
        difficult: as written.
        truncated: as written.
        at: where in the file it stands, as `line 3`; empty where class and box say it.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    at: str = field(default="", compare=False)

    def describe(self) -> str:
        """Class and box, for a finding."""
        return f"{self.name} {','.join(f'{value:g}' for value in self.xyxy)}"


@dataclass(frozen=True)
class Entry:
    """What a label file says about one picture.

    Attributes:
        label_file: the file.
        names: of the picture, the most trustworthy first, with or without suffix, and with the
            folders it is given with, if any: `train/img1.jpg`.
        size: (width, height) of the picture in pixels; (0, 0) where the file should give it and does
            not, None where files of its format have none.
        objects: as written.
        verified: somebody looked at the labels once more, says the file.
        relative: boxes are fractions of width and height, not pixels.
        shared: the file tells of other pictures too, so that a finding must name this one.
        left_out: of each object that a rule of the reader drops, what people call it.
    """

    label_file: Path
    names: tuple[str, ...]
    size: tuple[int, int] | None
    objects: tuple[WrittenObject, ...]
    verified: bool = False
    relative: bool = False
    shared: bool = False
    left_out: tuple[str, ...] = ()

    def about(self, cause: str) -> str:
        """`cause`, with the picture's name where the label file does not tell which it is."""
        return f'"{self.names[0]}": {cause}' if self.shared else cause

    def in_pixels(self, item: WrittenObject, width: int, height: int) -> WrittenObject:
        """`item` of this entry, in pixels of a picture of `width` x `height`."""
        if not self.relative:
            return item
        xmin, ymin, xmax, ymax = item.xyxy
        return replace(item, xyxy=(xmin * width, ymin * height, xmax * width, ymax * height))

    def is_in_pixels(self, item: WrittenObject, width: int, height: int) -> bool:
        """Whether the box of `item`, which should be fractions, is pixels of a picture of that size."""
        xmin, ymin, xmax, ymax = item.xyxy
        inside = xmax <= width + TOLERANCE and ymax <= height + TOLERANCE
        fits = min(xmin, ymin) >= -TOLERANCE and inside
        return self.relative and fits and max(xmax, ymax) > NO_FRACTION

    @property
    def box_remedy(self) -> str | None:
        """What to do about a box of this entry; None where that is what the finding's kind has."""
        suffix = self.label_file.suffix.lower()
        own_xml = suffix == ".xml" and not self.shared
        return None if own_xml else BOX_REMEDIES.get(suffix, ANY_BOX_REMEDY)


def ground_truth(image: LabelledImage, class_names: Sequence[str]) -> GroundTruth:
    """The labels as they are evaluated; index 0 of `class_names` names id 1."""
    boxes = np.array([item.yxyx for item in image.objects], np.float32).reshape(-1, 4)
    ids = np.array([class_names.index(item.name) + 1 for item in image.objects], np.int64)
    return GroundTruth(image.image.name, image.height, image.width, boxes, ids)


class UnreadableError(Exception):
    """A label file or object that cannot be used; carries the finding that says why."""

    def __init__(self, finding: Finding) -> None:
        """Carry `finding`."""
        super().__init__(str(finding))
        self.finding = finding


def normalised(name: str) -> str:
    """A file or class name in one spelling.

    labelImg turns two spaces into a tab; macOS composes accents differently from everyone else.
    """
    return unicodedata.normalize("NFC", " ".join(name.split()))


def place(
    entry: Entry, width: int, height: int
) -> tuple[tuple[LabelledObject, ...], list[Finding]]:
    """The objects of `entry` as fractions of a picture of `width` x `height` pixels.

    Returns:
        Those whose box is good, and a finding for each that was left out (OD008, OD009), clipped
        (OD104), doubled (OD107), or nearly so (OD119, OD120).
    """
    findings: list[Finding] = []
    objects: dict[LabelledObject, None] = {}
    for item in entry.objects:
        if entry.is_in_pixels(item, width, height):
            findings.append(_about_pixels(entry, item, width, height))
            continue
        written = entry.in_pixels(item, width, height)
        placed, code, cause = _place_object(written, width, height)
        if placed in objects:
            code, cause = "OD107", "is there twice."
        if placed is not None:
            objects[placed] = None
        if code:
            remedy = entry.box_remedy if placed is None else None
            findings.append(_about_box(entry, written, code, cause, remedy))
    for code, one, twin, iou in overlapping(tuple(objects)):
        cause = f"overlaps another box, {twin.name}, by an IoU of {iou:.2f}."
        box = one.in_pixels(width, height).describe()
        findings.append(Finding.of(code, entry.label_file, entry.about(cause), box=box))
    return tuple(objects), findings


def _about_box(
    entry: Entry, item: WrittenObject, code: str, cause: str, remedy: str | None
) -> Finding:
    said = entry.about(f"{item.at}: {cause}" if item.at else cause)
    return Finding.of(code, entry.label_file, said, box=item.describe(), remedy=remedy)


def _about_pixels(entry: Entry, item: WrittenObject, width: int, height: int) -> Finding:
    cause = "is in pixels; files of this format have fractions of the picture."
    remedy = (
        f"Divide x and width by {width}, y and height by {height}; "
        "in a copy odtrain does it: odtrain check --fix NEW"
    )
    return _about_box(entry, item, "OD008", cause, remedy)


def overlapping(
    objects: Sequence[LabelledObject],
) -> Iterator[tuple[str, LabelledObject, LabelledObject, float]]:
    """Each object that nearly coincides with an earlier one: OD119 or OD120, it, that one, their IoU."""
    if len(objects) < 2:
        return
    boxes = np.array([item.yxyx for item in objects])
    ious = np.triu(pairwise_iou(boxes, boxes), 1)
    for first, second in np.argwhere(ious >= NEARLY_TWICE).tolist():
        one, other = objects[first], objects[second]
        iou = float(ious[first, second])
        if one.name == other.name:
            yield "OD119", other, one, iou
        elif iou >= TWO_CLASSES:
            yield "OD120", other, one, iou


def _place_object(
    written: WrittenObject, width: int, height: int
) -> tuple[LabelledObject | None, str, str]:
    """The object, and code and cause of what is wrong with its box; empty where nothing is."""
    xmin, ymin, xmax, ymax = written.xyxy
    if xmin >= xmax or ymin >= ymax:
        cause = f"x {xmin:g} to {xmax:g}, y {ymin:g} to {ymax:g} has no area."
        return None, "OD009", cause
    outside = max(-xmin, -ymin, xmax - width, ymax - height)
    inside = xmin < width and ymin < height and xmax > 0 and ymax > 0
    if outside > TOLERANCE or not inside:
        cause = f"leaves the picture, which is {width} wide and {height} high."
        return None, "OD008", cause
    yxyx = (
        max(ymin, 0.0) / height,
        max(xmin, 0.0) / width,
        min(ymax, float(height)) / height,
        min(xmax, float(width)) / width,
    )
    placed = LabelledObject(written.name, yxyx, written.difficult, written.truncated)
    if outside > ROUNDING:
        return placed, "OD104", f"leaves the picture by {outside:g} pixels."
    return placed, "", ""
