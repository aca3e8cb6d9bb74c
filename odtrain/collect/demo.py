"""Pictures to try odtrain with: drawn elevator panels that come with it, as an owner of a camera has them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image, ImageEnhance

from odtrain.config.shipped import shipped
from odtrain.errors import DataError, told_if_not_written
from odtrain.io.atomic import replacing_folder
from odtrain.io.free_names import is_taken

FIRST = range(1, 61)
LATER = range(61, 121)
RETAKEN = {119: 11, 120: 17}
"""Pictures that arrive later and show once more what an earlier one shows: in other light, saved anew."""
BRIGHTER, QUALITY = 1.15, 60

Edit = Callable[[str], str]
"""Of the text of a label file."""


def _changed(pattern: str, by: str) -> Edit:
    """Put `by` in the place of the first match, which there is."""

    def edit(text: str) -> str:
        edited, count = re.subn(pattern, by, text, count=1, flags=re.DOTALL)
        assert count, pattern
        return edited

    return edit


MISTAKES: Mapping[int, Edit] = {
    3: _changed("<name>floor<", "<name>flor<"),
    8: _changed("<name>alarm<", "<name>Alarm<"),
    14: _changed(r"<xmax>\d+<", "<xmax>900<"),
    21: _changed(r"(<xmin>(\d+)<.*?<xmax>)\d+<", r"\1\2<"),
    27: _changed("<filename>img27.jpg<", "<filename>IMG_2027.jpg<"),
    34: _changed(r"<width>\d+(.*?)<height>\d+", r"<width>4032\1<height>3024"),
    39: _changed(r"(\t<object>.*?</object>\n)", r"\1\1"),
}
"""By number of the picture: a misspelt class, another spelling, a box outside, one without width, the name
before it was renamed, the size before it was made smaller, a box drawn twice."""
RENAMED = {27: "IMG_2027.xml"}
"""Label files that kept the name that the camera gave."""
FORGOTTEN = 46
"""Has no label file."""


def write_demo(folder: Path, *, labelled: bool = False, later: bool = False) -> str:
    """Write the pictures into a folder, whole or not at all.

    Args:
        folder: a new or an empty one.
        labelled: with labelImg's XML beside them; the first ones with mistakes as people make them.
        later: those that arrive when the first have been trained on, labelled without a mistake.

    Returns:
        What was written and what to do with it, in words.

    Raises:
        DataError: there is something in the folder, or it cannot be written.
    """
    if is_taken(folder):
        problem = "is there already and not empty; nothing was written."
        raise DataError(folder, problem, "Give the name of a new folder: --to DIR")
    with (
        told_if_not_written(folder, "Give another folder: --to DIR"),
        replacing_folder(folder) as part,
    ):
        for number in LATER if later else FIRST:
            name, source = f"img{number}.jpg", _shipped(number)
            (part / name).write_bytes(_picture(number, source))
            if labelled and number != FORGOTTEN:
                text = _labels(number, source, folder.name)
                (part / RENAMED.get(number, f"img{number}.xml")).write_text(text, encoding="utf-8")
    return _words(folder, labelled, later)


def _shipped(number: int) -> Path:
    name = f"panel-train-{RETAKEN.get(number, number):04d}.jpg"
    return shipped("data/panels/images") / "train" / name


def _picture(number: int, source: Path) -> bytes:
    data = source.read_bytes()
    if number not in RETAKEN:
        return data
    picture, file = Image.open(io.BytesIO(data)), io.BytesIO()
    ImageEnhance.Brightness(picture).enhance(BRIGHTER).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _labels(number: int, source: Path, folder: str) -> str:
    """What labelImg would have written for it in that folder, had a hand slipped as `MISTAKES` says."""
    text = source.with_suffix(".xml").read_text(encoding="utf-8")
    text = text.replace(source.name, f"img{number}.jpg").replace(">train", f">{folder}")
    return MISTAKES[number](text) if number in MISTAKES else text


def _words(folder: Path, labelled: bool, later: bool) -> str:
    numbers = LATER if later else FIRST
    names = f"img{numbers[0]}.jpg to img{numbers[-1]}.jpg"
    first = f"{folder}: {len(numbers)} pictures of elevator panels, {names}"
    if labelled and later:
        return f"{first}, labelled as labelImg does it"
    if labelled:
        look = f"odtrain check data.images={folder} data.name=lift"
        return f"{first}, labelled as labelImg does it, with mistakes\n  find them    {look}"
    flags = "--more --labelled" if later else "--labelled"
    return (
        f"{first}, without labels\n"
        f"  label them   labelImg {folder}\n"
        f"  or go on     odtrain demo pictures {flags} --to DIR"
    )
