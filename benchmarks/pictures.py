"""Labelled pictures to measure on: crops and re-encodings of real ones, each of them another file."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from odtrain.structures import UInt8Image
from odtrain.system.workers import in_threads

CHECKOUT = Path(__file__).resolve().parents[1]
RACCOON = CHECKOUT.parent / "shared" / "data" / "raccoon"
PANELS = CHECKOUT / "data" / "panels" / "images" / "train"
QUALITIES = range(70, 96)
"""JPEG qualities; a picture's first copy has the first, its second the next, and so on."""

Corners = tuple[int, int, int, int]
"""xmin, ymin, xmax, ymax in pixels, as labelImg writes them."""


class Source(NamedTuple):
    """A real picture and the file of its labels."""

    image: Path
    labels: Path


class Labelled(NamedTuple):
    """An object of a label file."""

    name: str
    corners: Corners


def sources() -> list[Source]:
    """The raccoon photographs beside the project, or else the panels that come with it."""
    if RACCOON.is_dir():
        images, labels = RACCOON / "images", RACCOON / "annotations"
    else:
        images = labels = PANELS
    return [Source(file, labels / f"{file.stem}.xml") for file in sorted(images.glob("*.jpg"))]


def source_name() -> str:
    """What `sources` are pictures of."""
    return "raccoon photographs" if RACCOON.is_dir() else "panels drawn by the project"


def decoded(count: int) -> list[UInt8Image]:
    """The first `count` of `sources`, (H, W, 3) RGB."""
    return [np.asarray(Image.open(source.image).convert("RGB")) for source in sources()[:count]]


def make(folder: Path, count: int, originals: Sequence[Source], seed: int = 0) -> None:
    """Write `count` distinct labelled JPEGs to `folder`'s `images` and `annotations`.

    Each is an original cut at random around all of its objects, encoded at a quality of its own.
    """
    images, annotations = folder / "images", folder / "annotations"
    images.mkdir(parents=True)
    annotations.mkdir()

    def write(number: int) -> None:
        original = originals[number % len(originals)]
        name = f"picture-{number:05d}"
        with Image.open(original.image) as picture:
            objects = read_labels(original.labels)
            window = _window(picture.size, objects, np.random.default_rng([seed, number]))
            quality = QUALITIES[number // len(originals) % len(QUALITIES)]
            cut = picture.convert("RGB").crop(window)
        cut.save(images / f"{name}.jpg", quality=quality)
        moved = [_moved(item, window) for item in objects]
        write_labels(annotations / f"{name}.xml", f"{name}.jpg", cut.size, moved)

    for _ in in_threads(write, range(count), "making pictures"):
        pass


def read_labels(file: Path) -> list[Labelled]:
    """The objects of a Pascal VOC label file that is known to be sound."""
    return [_read_object(item) for item in ET.parse(file).iter("object")]


def _read_object(item: ET.Element) -> Labelled:
    xmin, ymin, xmax, ymax = (
        int(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    return Labelled(item.findtext("name", ""), (xmin, ymin, xmax, ymax))


def write_labels(
    file: Path, picture: str, size: tuple[int, int], objects: Sequence[Labelled]
) -> None:
    """Write Pascal VOC XML with its elements in labelImg's order; `size` is (width, height)."""
    root = ET.Element("annotation")
    _add(root, folder="images", filename=picture, path=picture)
    _add(ET.SubElement(root, "source"), database="Unknown")
    _add(ET.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
    _add(root, segmented=0)
    for item in objects:
        element = ET.SubElement(root, "object")
        _add(element, name=item.name, pose="Unspecified", truncated=0, difficult=0)
        xmin, ymin, xmax, ymax = item.corners
        _add(ET.SubElement(element, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    ET.indent(root, "\t")
    ET.ElementTree(root).write(file, encoding="utf-8")


def _add(parent: ET.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, tag).text = str(text)


def _window(
    size: tuple[int, int], objects: Sequence[Labelled], rng: np.random.Generator
) -> Corners:
    """A random window of a (width, height) picture that holds every object whole, and some pixels."""
    corners = np.array([item.corners for item in objects]).reshape(-1, 4)
    width, height = size
    left, top = corners[:, :2].min(axis=0, initial=min(size) // 3)
    right, bottom = corners[:, 2:].max(axis=0, initial=2 * min(size) // 3)
    return (
        int(rng.integers(0, left, endpoint=True)),
        int(rng.integers(0, top, endpoint=True)),
        int(rng.integers(min(right, width), width, endpoint=True)),
        int(rng.integers(min(bottom, height), height, endpoint=True)),
    )


def _moved(item: Labelled, window: Corners) -> Labelled:
    """The object in coordinates of the window, none below labelImg's smallest, 1."""
    left, top, right, bottom = window
    xmin, ymin, xmax, ymax = item.corners
    moved = (xmin - left, ymin - top, min(xmax, right) - left, min(ymax, bottom) - top)
    return Labelled(item.name, (max(moved[0], 1), max(moved[1], 1), moved[2], moved[3]))
