"""The findings as one HTML file with pictures of what they are about; it needs no network and no script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from odtrain.findings import KINDS, SEVERITIES, Finding
from odtrain.media.images import SUFFIXES, read_turned
from odtrain.reports.pages import as_jpeg, page
from odtrain_runtime.pictures import UnusableError

SHOWN_OF_EACH = 500
"""Rows of one code; the JSON has all."""
DRAWN_OF_EACH = 24
"""Rows of one code that come with their pictures."""
SIDE = 260
"""Pixels of the longer side of a picture on the page."""
AROUND = 6
"""A box much smaller than the picture is shown with so many times its own side around it."""
BOX_COLOUR = (255, 40, 40)
PADDING = (120, 120, 120)

Corners = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in pixels."""


def findings_page(title: str, findings: Sequence[Finding], orientations: Mapping[str, int]) -> str:
    """The page.

    Args:
        title: of the page.
        findings: in any order.
        orientations: path of a picture -> the EXIF orientation that its boxes ask to apply; 1 for
            those that are not in it.
    """
    ordered = sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.code))
    groups = groupby(ordered, key=lambda f: f.code)
    numbers = {name: sum(f.severity == name for f in findings) for name in SEVERITIES}
    summary = ", ".join(f"{number} {name}" for name, number in numbers.items())
    sections = [_section(code, list(group), orientations) for code, group in groups]
    return page("findings.html", title=title, summary=summary, sections=sections)


def _section(
    code: str, group: Sequence[Finding], orientations: Mapping[str, int]
) -> dict[str, Any]:
    items = [
        _item(finding, orientations if number < DRAWN_OF_EACH else None)
        for number, finding in enumerate(group[:SHOWN_OF_EACH])
    ]
    more = len(group) - len(items)
    return {"code": code, "kind": KINDS[code], "count": len(group), "items": items, "more": more}


def _item(finding: Finding, orientations: Mapping[str, int] | None) -> dict[str, Any]:
    """One finding; with pictures where `orientations` are given."""
    return {
        "finding": finding,
        "name": Path(finding.file).name,
        "remedy": "" if finding.remedy == KINDS[finding.code].remedy else finding.remedy,
        "pictures": [] if orientations is None else list(_pictures(finding, orientations)),
    }


def _pictures(finding: Finding, orientations: Mapping[str, int]) -> Iterator[dict[str, str]]:
    """Each picture that the finding is about, its box drawn."""
    files = dict.fromkeys([finding.file, finding.picture or finding.file])
    for file in files:
        if Path(file).suffix.lower() in SUFFIXES:
            try:
                image = Image.fromarray(read_turned(Path(file), orientations.get(file, 1)))
            except UnusableError:
                continue
            source = as_jpeg(_view(image, corners_of(finding)), quality=80)
            yield {"name": Path(file).name, "file": file, "source": source}


def corners_of(finding: Finding) -> Corners | None:
    """The corners in the finding's box, None where it has none."""
    written = (finding.box or "").rpartition(" ")[2].split(",")
    try:
        xmin, ymin, xmax, ymax = map(float, written)
    except ValueError:
        return None
    return min(xmin, xmax), min(ymin, ymax), max(xmin, xmax), max(ymin, ymax)


def _view(image: Image.Image, box: Corners | None) -> Image.Image:
    """The picture, or the surroundings of a small box in it, `SIDE` pixels long."""
    left, top, right, bottom = _frame(image.size, box)
    view = Image.new("RGB", (right - left, bottom - top), PADDING)
    view.paste(image, (-left, -top))
    scale = SIDE / max(view.size)
    view = view.resize((max(1, round(view.width * scale)), max(1, round(view.height * scale))))
    if box is not None:
        shifted = [(v - (left, top)[i % 2]) * scale for i, v in enumerate(box)]
        ImageDraw.Draw(view).rectangle(shifted, outline=BOX_COLOUR, width=2)
    return view


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
