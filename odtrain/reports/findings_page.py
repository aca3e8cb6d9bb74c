"""The findings as one HTML file with pictures of what they are about; it needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from markupsafe import escape
from PIL import Image, ImageDraw

from odtrain.findings import KINDS, SEVERITIES, Finding
from odtrain.media.draw import DARK
from odtrain.media.images import SUFFIXES, read_turned
from odtrain.media.palette import Colour, class_colour
from odtrain.reports.pages import as_jpeg, page
from odtrain_runtime.pictures import UnusableError
from odtrain_runtime.plain import plain_lines

SHOWN_OF_EACH = 500
"""Rows of one code; the JSON has all."""
DRAWN_OF_EACH = 24
"""Rows of one code that come with their pictures."""
MOST_TEXT = 240_000
"""Bytes of all rows, without their pictures; the page says how many are left out."""
MARKUP = 250
"""Bytes around the texts of a row."""
SHADES = {"error": "bad", "warning": "note", "info": "dim"}
"""How the stylesheet calls their colours."""
SIDE = 260
"""Pixels of the longer side of a picture on the page."""
AROUND = 6
"""A box much smaller than the picture is shown with so many times its own side around it."""
BOX_COLOUR: Colour = (255, 40, 40)
"""Of a box whose class is not known."""
SEEN_COLOUR: Colour = (255, 255, 255)
"""Of the box that a model sees instead."""
PADDING = (120, 120, 120)

Corners = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in pixels."""


def findings_page(
    title: str,
    findings: Sequence[Finding],
    orientations: Mapping[str, int],
    class_names: Sequence[str] = (),
) -> str:
    """The page.

    Args:
        title: of the page.
        findings: in any order.
        orientations: path of a picture -> the EXIF orientation that its boxes ask to apply; 1 for
            those that are not in it.
        class_names: index 0 names id 1; boxes of these classes have their colours.
    """
    colours = {name: class_colour(class_id) for class_id, name in enumerate(class_names, start=1)}
    ordered = sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.code))
    groups = [(code, list(group)) for code, group in groupby(ordered, key=lambda f: f.code)]
    numbers = {name: sum(f.severity == name for f in findings) for name in SEVERITIES}
    summary = ", ".join(f"{number} {name}" for name, number in numbers.items())
    sections, room = list[dict[str, Any]](), MOST_TEXT
    for number, (code, group) in enumerate(groups):
        shown = _fitting(group, room // (len(groups) - number))
        room -= sum(_size(finding, n < DRAWN_OF_EACH) for n, finding in enumerate(shown))
        sections.append(_section(code, group, shown, orientations, colours))
    return page(
        "findings",
        title=title,
        summary=summary,
        sections=sections,
        severities=SEVERITIES,
        counts=numbers,
        colours=SHADES,
    )


def _fitting(group: Sequence[Finding], room: int) -> list[Finding]:
    """The first ones, whose rows take `room` bytes at most without their pictures."""
    shown = group[:SHOWN_OF_EACH]
    sizes = accumulate(_size(finding, n < DRAWN_OF_EACH) for n, finding in enumerate(shown))
    return [finding for finding, size in zip(shown, sizes, strict=True) if size <= room]


def _size(finding: Finding, drawn: bool) -> int:
    """Bytes of a row at most; a picture brings its name and its file."""
    files = [finding.file] * (4 if drawn else 2) + [finding.picture or ""] * 2 * drawn
    texts = [*files, finding.box or "", finding.cause, finding.remedy]
    return MARKUP + sum(len(escape(plain_lines(text)).encode()) for text in texts)


def _section(
    code: str,
    group: Sequence[Finding],
    shown: Sequence[Finding],
    orientations: Mapping[str, int],
    colours: Mapping[str, Colour],
) -> dict[str, Any]:
    items = [
        _item(finding, orientations if number < DRAWN_OF_EACH else None, colours)
        for number, finding in enumerate(shown)
    ]
    more = len(group) - len(items)
    return {"code": code, "kind": KINDS[code], "count": len(group), "items": items, "more": more}


def _item(
    finding: Finding, orientations: Mapping[str, int] | None, colours: Mapping[str, Colour]
) -> dict[str, Any]:
    """One finding; with pictures where `orientations` are given."""
    colour = colours.get((finding.box or "").rpartition(" ")[0])
    pictures = [] if orientations is None else _pictures(finding, orientations, colour)
    return {
        "finding": finding,
        "name": Path(finding.file).name,
        "remedy": "" if finding.remedy == KINDS[finding.code].remedy else finding.remedy,
        "colour": None if colour is None else f"#{bytes(colour).hex()}",
        "pictures": list(pictures),
    }


def _pictures(
    finding: Finding, orientations: Mapping[str, int], colour: Colour | None
) -> Iterator[dict[str, str]]:
    """Each picture that the finding is about, its box drawn."""
    files = dict.fromkeys([finding.file, finding.picture or finding.file])
    for file in files:
        if Path(file).suffix.lower() in SUFFIXES:
            try:
                image = Image.fromarray(read_turned(Path(file), orientations.get(file, 1)))
            except UnusableError:
                continue
            seen = _corners(finding.seen)
            view = _view(image, corners_of(finding), colour or BOX_COLOUR, seen)
            source = as_jpeg(view, quality=80)
            yield {"name": Path(file).name, "file": file, "source": source}


def corners_of(finding: Finding) -> Corners | None:
    """The corners in the finding's box, None where it has none."""
    return _corners(finding.box)


def _corners(box: str | None) -> Corners | None:
    written = (box or "").rpartition(" ")[2].split(",")
    try:
        xmin, ymin, xmax, ymax = map(float, written)
    except ValueError:
        return None
    return min(xmin, xmax), min(ymin, ymax), max(xmin, xmax), max(ymin, ymax)


def _view(
    image: Image.Image, box: Corners | None, colour: Colour, seen: Corners | None
) -> Image.Image:
    """The picture, or the surroundings of a small box in it, `SIDE` pixels long; `seen` is drawn white."""
    left, top, right, bottom = _frame(image.size, _around(box, seen))
    view = Image.new("RGB", (right - left, bottom - top), PADDING)
    view.paste(image, (-left, -top))
    scale = SIDE / max(view.size)
    view = view.resize((max(1, round(view.width * scale)), max(1, round(view.height * scale))))
    canvas = ImageDraw.Draw(view)
    for corners, shade in ((seen, SEEN_COLOUR), (box, colour)):
        if corners is not None:
            shifted = [(v - (left, top)[i % 2]) * scale for i, v in enumerate(corners)]
            canvas.rectangle(_widened(shifted), outline=DARK, width=4)
            canvas.rectangle(shifted, outline=shade, width=2)
    return view


def _around(box: Corners | None, seen: Corners | None) -> Corners | None:
    """What holds both."""
    if box is None or seen is None:
        return box
    return (
        min(box[0], seen[0]),
        min(box[1], seen[1]),
        max(box[2], seen[2]),
        max(box[3], seen[3]),
    )


def _widened(corners: Sequence[float]) -> list[float]:
    left, top, right, bottom = corners
    return [left - 1, top - 1, right + 1, bottom + 1]


def _frame(size: tuple[int, int], box: Corners | None) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is shown: picture and box, at most as far again outside."""
    width, height = size
    if box is None:
        return 0, 0, width, height
    side = max(box[2] - box[0], box[3] - box[1], 4)
    if side * AROUND * 1.5 < max(size) and 0 <= box[0] < width and 0 <= box[1] < height:
        x, y, half = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side * AROUND / 2
        return round(x - half), round(y - half), round(x + half), round(y + half)
    return (
        round(max(min(0, box[0]), -width)),
        round(max(min(0, box[1]), -height)),
        round(min(max(width, box[2]), 2 * width)),
        round(min(max(height, box[3]), 2 * height)),
    )
