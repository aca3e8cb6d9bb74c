"""The findings as one HTML file with pictures of what they are about; it needs no network and no script."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw

from odtrain.findings import KINDS, SEVERITIES, Finding
from odtrain.media.images import SUFFIXES, read_turned
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
    groups = [(code, list(group)) for code, group in groupby(ordered, key=lambda f: f.code)]
    numbers = {name: sum(f.severity == name for f in findings) for name in SEVERITIES}
    summary = ", ".join(f"{number} {name}" for name, number in numbers.items())
    body = "\n".join(_section(code, group, orientations) for code, group in groups)
    rows = "\n".join(_row(code, group) for code, group in groups)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8">\n<title>{_text(title)}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{_text(title)}</h1>\n<p>{summary}</p>\n"
        f"<table><tr><th>code<th>severity<th>what<th>how many</tr>\n{rows}\n</table>\n{body}\n</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _row(code: str, group: Sequence[Finding]) -> str:
    kind = KINDS[code]
    return (
        f'<tr class="{kind.severity}"><td><a href="#{code}">{code}</a><td>{kind.severity}'
        f"<td>{_text(kind.title)}<td>{len(group)}</tr>"
    )


def _section(code: str, group: Sequence[Finding], orientations: Mapping[str, int]) -> str:
    kind = KINDS[code]
    items = [
        _item(finding, orientations if number < DRAWN_OF_EACH else None)
        for number, finding in enumerate(group[:SHOWN_OF_EACH])
    ]
    more = len(group) - len(items)
    last = f"<p>and {more} more: odtrain check --json FILE has all</p>" if more else ""
    return (
        f'<section class="{kind.severity}"><h2 id="{code}">{code} {_text(kind.title)} '
        f'<small>{kind.severity}, {len(group)}</small></h2>\n<p class="remedy">{_text(kind.remedy)}</p>\n'
        f'<div class="items">\n{"".join(items)}</div>\n{last}</section>'
    )


def _item(finding: Finding, orientations: Mapping[str, int] | None) -> str:
    """One finding; with pictures where `orientations` are given."""
    drawn = "" if orientations is None else "".join(_figures(finding, orientations))
    box = f" <code>{_text(finding.box)}</code>" if finding.box else ""
    other = "" if finding.remedy == KINDS[finding.code].remedy else f"<br>{_text(finding.remedy)}"
    return (
        f'<figure>{drawn}<figcaption><b title="{_text(finding.file)}">{_text(Path(finding.file).name)}'
        f"</b>{box}<br>{_text(finding.cause)}{other}</figcaption></figure>\n"
    )


def _figures(finding: Finding, orientations: Mapping[str, int]) -> Iterator[str]:
    """An <img> for each picture that the finding is about, its box drawn."""
    files = dict.fromkeys([finding.file, finding.picture or finding.file])
    for file in files:
        if Path(file).suffix.lower() in SUFFIXES:
            try:
                image = Image.fromarray(read_turned(Path(file), orientations.get(file, 1)))
            except UnusableError:
                continue
            yield (
                f'<img alt="{_text(Path(file).name)}" title="{_text(file)}" '
                f'src="data:image/jpeg;base64,{_encoded(_view(image, corners_of(finding)))}">'
            )


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


def _encoded(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode()


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1150px; padding: 0 1em; }
table { border-collapse: collapse; } th, td { padding: .25em .9em .25em 0; text-align: left; }
tr, section { border-left: 5px solid #9ab; } td:first-child, th:first-child { padding-left: .7em; }
section { padding-left: 1em; margin-top: 2em; } h2 { margin: 0; font-size: 1.15em; }
.error { border-color: #c62828; } .warning { border-color: #e6a100; } tr:first-child { border-color: #fff; }
small, .remedy { color: #666; font-weight: normal; } .remedy { margin: .2em 0 .8em; }
.items { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; max-width: 540px; background: #f5f6f7; padding: .6em; font-size: .88em; }
img { vertical-align: top; margin: 0 .4em .4em 0; border-radius: 3px; } figcaption { max-width: 520px; }
b, code { overflow-wrap: anywhere; }
"""
