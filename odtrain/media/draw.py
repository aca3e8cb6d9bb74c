"""Boxes with names drawn into pictures, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from odtrain.media.palette import Colour, class_colour
from odtrain.structures import (
    Detections,
    FloatArray,
    GroundTruth,
    IntArray,
    UInt8Image,
    class_label,
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

DARK: Colour = (22, 22, 24)
WHITE: Colour = (255, 255, 255)
PAPER: Colour = (245, 245, 245)


class Pixels(NamedTuple):
    """A rectangle in whole pixels; right and bottom belong to it."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Pixels) -> bool:
        """Whether the two share a pixel."""
        return not (
            self.right < other.left
            or other.right < self.left
            or self.bottom < other.top
            or other.bottom < self.top
        )


@dataclass(frozen=True)
class Mark:
    """One box to draw, and what to write beside it."""

    box: Pixels
    colour: Colour
    text: str


@dataclass(frozen=True)
class Tag:
    """A filled label: where it lies and what it says."""

    area: Pixels
    colour: Colour
    text: str
    font: Font


def printable_label(class_names: Sequence[str], class_id: int) -> str:
    """`class_label`, or `class N` where no font of this machine has the letters of the name."""
    label = class_label(class_names, class_id)
    return label if _can_print(label) else f"class {class_id}"


def draw(
    image: UInt8Image,
    detections: Detections,
    class_names: Sequence[str],
    threshold: float,
    truth: GroundTruth | None = None,
    tracks: IntArray | None = None,
) -> UInt8Image:
    """A copy of the picture with its detections, each a box under a tag `name 0.97`.

    Args:
        image: (H, W, 3) RGB.
        detections: what was found.
        class_names: index 0 names id 1; ids beyond them are called `class N`.
        threshold: detections below this score are left out.
        truth: if given, drawn below the detections as dashed white boxes without tags.
        tracks: (N,) number of the track of each detection, 0 for none; if given, they stand in the tags.

    Returns:
        (H, W, 3) RGB.
    """
    seen = detections.above(threshold)
    numbers = np.zeros(len(detections), int) if tracks is None else tracks
    marks = [
        Mark(
            box,
            class_colour(class_id),
            f"{printable_label(class_names, class_id)}{f' #{number}' if number else ''} {score:.2f}",
        )
        for box, class_id, score, number in zip(
            _pixels(seen.boxes, image),
            seen.classes.tolist(),
            seen.scores.tolist(),
            numbers[detections.scores >= threshold].tolist(),
            strict=True,
        )
    ]
    dashed = [] if truth is None else _pixels(truth.boxes, image)
    return _paint(image, marks, dashed)


def draw_truth(image: UInt8Image, truth: GroundTruth, class_names: Sequence[str]) -> UInt8Image:
    """A copy of the (H, W, 3) picture with its ground truth, each box under a tag with its name."""
    marks = [
        Mark(box, class_colour(class_id), printable_label(class_names, class_id))
        for box, class_id in zip(_pixels(truth.boxes, image), truth.classes.tolist(), strict=True)
    ]
    return _paint(image, marks, [])


def draw_places(
    image: UInt8Image, places: Mapping[str, Sequence[float]], said: Mapping[str, str]
) -> UInt8Image:
    """A copy of the (H, W, 3) picture with lines and zones, each under a tag.

    Args:
        image: RGB.
        places: name -> x, y of the two ends of a line, or of each corner of a zone, in pixels.
        said: name -> what its tag says.
    """
    picture = Image.fromarray(image)
    canvas, width = ImageDraw.Draw(picture), _line_width(image)
    last, marks = np.array(image.shape[1::-1]) - 1, []
    for name, numbers in places.items():
        points = np.rint(np.clip(np.reshape(numbers, (-1, 2)), 0, last)).astype(int)
        ends = [tuple(point) for point in points.tolist()]
        path = ends if len(ends) == 2 else [*ends, ends[0]]
        canvas.line(path, fill=DARK, width=width + 2)
        canvas.line(path, fill=WHITE, width=width)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        marks.append(Mark(Pixels(left, top, right, bottom), PAPER, said[name]))
    for tag in _place_tags(marks, image):
        _write(canvas, tag)
    return np.array(picture)


def side_by_side(left: UInt8Image, right: UInt8Image, titles: tuple[str, str]) -> UInt8Image:
    """Two pictures on one sheet, each below its title.

    Args:
        left: (H, W, 3) RGB.
        right: (h, w, 3) RGB; a lower picture is aligned at the top.
        titles: of left and right; cut to the width of their picture.

    Returns:
        (max(H, h) + title, W + w + gap, 3) RGB.
    """
    size = _font_size(left)
    bar, gap = 2 * size, max(4, size // 2)
    height = bar + max(left.shape[0], right.shape[0])
    sheet = Image.new("RGB", (left.shape[1] + gap + right.shape[1], height), PAPER)
    canvas = ImageDraw.Draw(sheet)
    for start, picture, title in ((0, left, titles[0]), (left.shape[1] + gap, right, titles[1])):
        sheet.paste(Image.fromarray(picture), (start, bar))
        font = _font(title, size)
        canvas.text(
            (start + size // 2, bar // 2),
            _cut(title, font, picture.shape[1] - size),
            DARK,
            font,
            anchor="lm",
        )
    return np.array(sheet)


def fit(image: UInt8Image, shortest: int, longest: int) -> UInt8Image:
    """The picture enlarged until its shorter side is `shortest`, or shrunk to `longest` pixels.

    Args:
        image: (H, W, 3) RGB.
        shortest: pixels that the shorter side gets at least, so that tags can be read.
        longest: pixels that the longer side gets at most; this one wins.

    Returns:
        (h, w, 3) RGB of the same shape of picture.
    """
    height, width = image.shape[:2]
    factor = min(max(1.0, shortest / min(height, width)), longest / max(height, width))
    if factor == 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _pixels(boxes: FloatArray, image: UInt8Image) -> list[Pixels]:
    """(N, 4) yxyx fractions as pixels of the picture; what is NaN or outside is pulled in."""
    fractions = np.clip(np.nan_to_num(boxes.astype(np.float64)), 0, 1)
    last = np.array(image.shape[:2]) - 1
    corners = np.rint(fractions.reshape(-1, 2, 2) * last).astype(int)  # (N, corner, yx)
    return [
        Pixels(left, top, right, bottom)
        for (top, left), (bottom, right) in np.sort(corners, axis=1).tolist()
    ]


def _paint(image: UInt8Image, marks: Sequence[Mark], dashed: Sequence[Pixels]) -> UInt8Image:
    """Draw the dashed boxes, then the marks: the first ones on top, all tags above all boxes."""
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    width = _line_width(image)
    for box in dashed:
        _dashed_box(canvas, box, width)
    for mark in reversed(marks):
        _box(canvas, mark, width)
    for tag in reversed(list(_place_tags(marks, image))):
        _write(canvas, tag)
    return np.array(picture)


def _box(canvas: ImageDraw.ImageDraw, mark: Mark, width: int) -> None:
    """A coloured frame with a thin dark edge around it, seen on bright and on dark ground."""
    left, top, right, bottom = mark.box
    canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=DARK)
    canvas.rectangle(mark.box, outline=mark.colour, width=width)


def _dashed_box(canvas: ImageDraw.ImageDraw, box: Pixels, width: int) -> None:
    left, top, right, bottom = box
    canvas.rectangle(box, outline=DARK, width=width)
    dash = 4 * width
    for start in range(left, right + 1, 2 * dash):
        for y in (top, bottom - width + 1):
            canvas.rectangle((start, y, min(start + dash, right), y + width - 1), fill=WHITE)
    for start in range(top, bottom + 1, 2 * dash):
        for x in (left, right - width + 1):
            canvas.rectangle((x, start, x + width - 1, min(start + dash, bottom)), fill=WHITE)


def _place_tags(marks: Sequence[Mark], image: UInt8Image) -> Iterator[Tag]:
    """A tag for every mark: above its box, else inside or below, where it hides no earlier tag."""
    size, taken = _font_size(image), list[Pixels]()
    for mark in marks:
        font = _font(mark.text, size)
        text = _cut(mark.text, font, image.shape[1] - 2 * _padding(size))
        choices = list(_tag_places(mark.box, text, font, size, image))
        area = next((c for c in choices if not any(c.overlaps(t) for t in taken)), choices[0])
        taken.append(area)
        yield Tag(area, mark.colour, text, font)


def _tag_places(
    box: Pixels, text: str, font: Font, size: int, image: UInt8Image
) -> Iterator[Pixels]:
    """Where a tag may lie, best first, all inside the picture if it is large enough."""
    height, width = image.shape[:2]
    tag_width = round(font.getlength(text)) + 2 * _padding(size)
    tag_height = round(1.35 * size)
    tops = (box.top - tag_height, box.top, box.bottom + 1, box.bottom - tag_height + 1)
    lefts = (box.left, box.right - tag_width + 1)
    for top in sorted(tops, key=lambda top: not 0 <= top <= height - tag_height):
        for left in lefts:
            inside_left = max(0, min(left, width - tag_width))
            inside_top = max(0, min(top, height - tag_height))
            yield Pixels(
                inside_left, inside_top, inside_left + tag_width - 1, inside_top + tag_height - 1
            )


def _write(canvas: ImageDraw.ImageDraw, tag: Tag) -> None:
    canvas.rectangle(tag.area, fill=tag.colour)
    middle = (tag.area.left + tag.area.right + 1) // 2, (tag.area.top + tag.area.bottom + 1) // 2
    canvas.text(middle, tag.text, _ink(tag.colour), tag.font, anchor="mm")


def _ink(ground: Colour) -> Colour:
    """Dark or white, whichever stands out more (luma weights of ITU-R BT.601)."""
    return DARK if 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2] > 122 else WHITE


def _short_side(image: UInt8Image) -> int:
    return int(min(image.shape[:2]))


def _line_width(image: UInt8Image) -> int:
    return max(1, round(_short_side(image) / 180))


def _font_size(image: UInt8Image) -> int:
    """Pixels; below 10 no letter can be read."""
    return max(10, round(_short_side(image) / 28))


def _padding(size: int) -> int:
    return max(2, size // 4)


def _cut(text: str, font: Font, width: int) -> str:
    """The text, its end replaced by an ellipsis if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    cut = len(text)
    while cut > 1 and font.getlength(text[:cut] + "…") > width:
        cut -= 1
    return text[:cut] + "…"


def _font(text: str, size: int) -> Font:
    return _opened_font(font_file(text), size)


@lru_cache(maxsize=256)
def _opened_font(path: Path | None, size: int) -> Font:
    """Opened once for all texts: every score makes another text."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def _can_print(text: str) -> bool:
    return text.isascii() or font_file(text) is not None


@lru_cache(maxsize=1024)
def font_file(text: str) -> Path | None:
    """A font of this machine that has every letter of the text.

    DejaVu Sans, which comes with matplotlib, is looked at first; for other scripts, such as Hangul,
    the fonts that usually have them, then all installed ones.

    Returns:
        None where there is no such font, or no matplotlib to look for one.
    """
    letters = {ord(letter) for letter in text if not letter.isspace()}
    return next((path for path in _font_files() if letters <= _letters(path)), None)


@lru_cache(maxsize=1)
def _font_files() -> tuple[Path, ...]:
    """The fonts of this machine, in the order in which they are tried."""
    try:
        from matplotlib import get_data_path
        from matplotlib.font_manager import fontManager
    except ImportError:
        return ()
    bundled = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    installed = sorted(
        (font for font in fontManager.ttflist if not font.name.startswith("Last Resort")),
        key=lambda font: (
            not font.name.startswith(WIDE_FONTS),
            font.style != "normal",
            font.weight not in (400, "normal", "regular", "book"),
            font.fname,
        ),
    )
    return tuple(dict.fromkeys([bundled, *(Path(font.fname) for font in installed)]))


@lru_cache(maxsize=64)
def _letters(path: Path) -> frozenset[int]:
    """The code points a font file has glyphs for; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


WIDE_FONTS = (
    "Noto Sans CJK",
    "Noto Sans KR",
    "Source Han Sans",
    "NanumGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "Baekmuk",
    "UnDotum",
    "WenQuanYi",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "Noto Sans",
)
