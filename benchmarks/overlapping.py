"""Drawn pictures in which objects of several classes lie on each other, as people on horses do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from odtrain.io.atomic import write_bytes
from odtrain.labels.formats.voc import VocObject, annotation

CLASSES = ("disc", "cross", "frame")
SIDE = 256
PLACES = 2
"""A picture has places in so many rows and columns, most of them taken."""
TAKEN, SHARED = 0.8, 0.2
"""Shares of the places that hold something, and of those that hold two objects: a third of all objects
then lies on one of another class."""
LOOSE = 0.04
"""Edges of the second object lie within this fraction of the first one's side; IoU stays above 0.8."""

Box = tuple[int, int, int, int]
"""xmin, ymin, xmax, ymax in pixels."""


def write(folder: Path, pictures: int, seed: int = 0) -> None:
    """Write pictures, and a Pascal VOC file beside each."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        file = folder / f"{number:04d}.png"
        grey = tuple(int(each) for each in random.integers(60, 160, 3))
        picture = Image.new("RGB", (SIDE, SIDE), grey)
        placed = _placed(random)
        for name, box in placed:
            _draw(ImageDraw.Draw(picture), name, box, random)
        picture.save(file)
        objects = [VocObject(name, box, False) for name, box in placed]
        text = annotation((folder.name, file.name, str(file)), picture.size, objects)
        write_bytes(file.with_suffix(".xml"), text)


def _placed(random: np.random.Generator) -> list[tuple[str, Box]]:
    """Classes and boxes, the lowest of a place first."""
    cell = SIDE // PLACES
    found = []
    for place in np.ndindex(PLACES, PLACES):
        if random.random() > TAKEN:
            continue
        width, height = random.integers(cell // 3, cell - 8, 2)
        left = place[1] * cell + random.integers(2, cell - width - 2)
        top = place[0] * cell + random.integers(2, cell - height - 2)
        names = random.permutation(CLASSES)[: 1 + (random.random() < SHARED)]
        edges = np.array([left, top, left + width, top + height])
        loose = LOOSE * np.array([width, height] * 2)
        boxes = [edges, np.clip(edges + random.uniform(-loose, loose), 0, SIDE)]
        found += [(str(name), _whole(box)) for name, box in zip(names, boxes, strict=False)]
    return found


def _whole(box: NDArray[Any]) -> Box:
    left, top, right, bottom = np.rint(box).astype(int).tolist()
    return left, top, right, bottom


def _draw(canvas: ImageDraw.ImageDraw, name: str, box: Box, random: np.random.Generator) -> None:
    """A filled disc, a cross of two lines or an empty frame; each of a colour of its own."""
    colour = tuple(int(each) for each in random.integers(0, 256, 3))
    left, top, right, bottom = box
    if name == "disc":
        canvas.ellipse(box, fill=colour)
    elif name == "cross":
        canvas.line((left, top, right, bottom), fill=colour, width=7)
        canvas.line((left, bottom, right, top), fill=colour, width=7)
    else:
        canvas.rectangle(box, outline=colour, width=5)
