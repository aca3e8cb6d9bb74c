"""How often `odtrain drift` cries wolf, and how few pictures it needs to see a change.

    python -m benchmarks.drift MODEL.tflite FILE.json

Elevator panels are drawn with a seed of their own and looked at by a model of panels. Reference and log are
drawn from one pool at random, 200 times, where nothing has changed; then the log's pictures are changed. Each
row says in how many of its draws a change was shown.
"""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from odtrain.config.shipped import shipped
from odtrain.io.atomic import write_json
from odtrain.monitoring.drift import LEVEL, compared
from odtrain.monitoring.usage import Usage
from odtrain.system.progress import Bar
from odtrain_runtime.model_files import FileDetector, load_detectors
from odtrain_runtime.seen.usage_log import seen_as_json

POOL, REFERENCE, USED = 400, 200, 100
SEED = 4711
RESAMPLES, DRAWS = 200, 40
SIZES = (50, 100, 200)
CHANGED = 200
"""Pictures of each kind of change, from which those of a draw are taken."""


def darker(image: Image.Image, number: int, light: float) -> Image.Image:
    """A part of the light."""
    return ImageEnhance.Brightness(image).enhance(light)


def blurred(image: Image.Image, number: int, pixels: float) -> Image.Image:
    """A lens that is out of focus, or wet."""
    return image.filter(ImageFilter.GaussianBlur(pixels))


def farther(image: Image.Image, number: int, times: float) -> Image.Image:
    """Another scene: the camera hangs farther from the panel, on a wall of one colour."""
    width, height = image.size
    wall = Image.new("RGB", image.size, image.resize((1, 1)).getpixel((0, 0)))
    small = image.resize((round(width / times), round(height / times)))
    wall.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    return wall


def with_new_thing(image: Image.Image, number: int, share: float) -> Image.Image:
    """In a share of the pictures an object of a class that the model does not know: a red sign, anywhere."""
    image, rng = image.copy(), np.random.default_rng(number)
    if rng.random() < share:
        side = image.width // 5
        x, y = (int(rng.integers(0, length - side)) for length in image.size)
        draw = ImageDraw.Draw(image)
        place = (x, y, x + side, y + side)
        draw.ellipse(place, fill=(200, 30, 30), outline=(255, 255, 255), width=3)
    return image


CHANGES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "darker by a tenth": partial(darker, light=0.9),
    "darker by a third": partial(darker, light=0.67),
    "blurred by half a pixel": partial(blurred, pixels=0.5),
    "blurred by 1.5 pixels": partial(blurred, pixels=1.5),
    "a tenth farther away": partial(farther, times=1.1),
    "half as far again": partial(farther, times=1.5),
    "a new class in a tenth of the pictures": partial(with_new_thing, share=0.1),
    "a new class in half of the pictures": partial(with_new_thing, share=0.5),
    "a new class in every picture": partial(with_new_thing, share=1.0),
}


def main(arguments: Sequence[str]) -> None:
    """Draw, look, compare, and print a table."""
    model, file = Path(arguments[0]), Path(arguments[1])
    detector = load_detectors(model, 1, 2)
    pictures = [_picture(number) for number in Bar(range(1, POOL + 1), doing="draw")]
    rows = _rows(detector, pictures)
    result: dict[str, Any] = {"no change": _share(rows, rows, USED, RESAMPLES, own=True)}
    for name, change in CHANGES.items():
        changed = [change(image, n) for n, image in enumerate(pictures[-CHANGED:])]
        seen = _rows(detector, changed)
        for size in SIZES:
            result[f"{name}, {size} pictures"] = _share(rows[:-CHANGED], seen, size, DRAWS)
    for name, (shown, draws) in result.items():
        print(f"{name:40} {shown:4} of {draws}")
    write_json(
        file, {name: {"shown": shown, "of": draws} for name, (shown, draws) in result.items()}
    )


def _picture(number: int) -> Image.Image:
    spec = importlib.util.spec_from_file_location("draw", shipped("data/panels/draw.py"))
    assert spec is not None and spec.loader is not None
    drawing = sys.modules.get("draw") or importlib.util.module_from_spec(spec)
    if "draw" not in sys.modules:
        sys.modules["draw"] = drawing
        spec.loader.exec_module(drawing)
    jpeg, _ = drawing.draw_picture(SEED, "test", number)
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def _rows(detector: FileDetector, pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
    images = [np.asarray(each) for each in pictures]
    return [{"time": 0, **seen_as_json(image, detector(image))} for image in images]


def _share(
    reference: Sequence[Any], used: Sequence[Any], size: int, draws: int, own: bool = False
) -> tuple[int, int]:
    """In how many draws a change is shown; `own`: both sides are parts of one pool."""
    rng, shown = np.random.default_rng(size), 0
    names = tuple(str(number) for number in range(1, 100))
    for draw in Bar(range(draws), doing="compare"):
        order = rng.permutation(len(reference))
        before = [reference[i] for i in order[:REFERENCE]]
        left = order[REFERENCE:] if own else rng.permutation(len(used))
        now = [used[i] for i in left[:size]]
        a, b = (Usage(list(rows), {}, "", names) for rows in (before, now))
        classes = max((c for row in [*before, *now] for c in row["classes"]), default=1)
        a, b = (replace(each, class_names=names[:classes]) for each in (a, b))
        shown += any(one.chance <= LEVEL for one in compared(b, a, draw))
    return shown, draws


if __name__ == "__main__":
    main(sys.argv[1:])
