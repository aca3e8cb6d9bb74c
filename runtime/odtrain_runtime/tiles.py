"""A large picture looked at tile by tile, and once at the whole: small objects keep their pixels.

Training cuts its pictures by the same `windows`, so that what is looked at is what was learned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime.structures import (
    Detect,
    Detections,
    FloatArray,
    IntArray,
    UInt8Image,
    areas,
)

TILES = "tiles"
"""Entry of a passport: JSON of how pictures were cut when the model was judged."""
SMALLEST, MOST_OVERLAP = 32, 0.9
"""Pixels of a tile's side, and part of it: a stranger's file shall not ask for millions of tiles."""
MERGED = 0.5
"""Of the smaller of two boxes of a class, the part that lies in the other one where both are one object."""
EDGE = 1.0
"""Pixels: a box so near to a tile's edge within the picture is taken to be cut there."""
FULLER = 0.5
"""A box that no edge cuts takes the place of a cut one, if its score is at least such a part of that one's."""

DetectAll = Callable[[Sequence[UInt8Image]], list[Detections]]
"""What is found in each of several pictures."""


@dataclass(frozen=True)
class Tiles:
    """How a picture is cut.

    Attributes:
        height: of a tile, in pixels.
        width: of a tile, in pixels.
        overlap: of neighbours, as a part of their side: at least so much.
        whole: whether the picture is looked at as a whole too.
    """

    height: int
    width: int
    overlap: float
    whole: bool

    def __str__(self) -> str:
        """As people are told."""
        whole = " and the whole picture" if self.whole else ""
        return f"tiles of {self.width} x {self.height} that overlap by {self.overlap:g}{whole}"


class Window(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: UInt8Image) -> UInt8Image:
        """That part of an (H, W, 3) picture, not copied."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def windows(height: int, width: int, tiles: Tiles) -> list[Window]:
    """The tiles of a picture, row by row, spread evenly from edge to edge; one where it is no larger."""
    tall, wide = min(tiles.height, height), min(tiles.width, width)
    return [
        Window(top, left, tall, wide)
        for top in _starts(height, tall, tiles.overlap)
        for left in _starts(width, wide, tiles.overlap)
    ]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    step = max(1.0, tile * (1 - overlap))
    count = int(np.ceil((length - tile) / step)) + 1
    return [round(float(start)) for start in np.linspace(0, length - tile, count)]


def write_tiles(tiles: Tiles) -> str:
    """As a passport holds them, under `TILES`."""
    return json.dumps(vars(tiles), sort_keys=True)


def read_tiles(passport: Mapping[str, str]) -> Tiles | None:
    """Of a passport; None where it has none, or none that can be."""
    try:
        table = json.loads(passport.get(TILES, "null"))
        tiles = Tiles(
            int(table["height"]),
            int(table["width"]),
            float(table["overlap"]),
            bool(table["whole"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    fits = min(tiles.height, tiles.width) >= SMALLEST and 0 <= tiles.overlap <= MOST_OVERLAP
    return tiles if fits else None


def tiled(detect: Detect, tiles: Tiles | None) -> Detect:
    """The detector, looking by tiles; as it is where there are none."""
    if tiles is None:
        return detect
    return lambda image: look_by_tiles(lambda views: list(map(detect, views)), image, tiles)


def look_by_tiles(detect_all: DetectAll, image: UInt8Image, tiles: Tiles) -> Detections:
    """What is found in the tiles of an (H, W, 3) picture and in the whole, each object once."""
    height, width = image.shape[:2]
    views = windows(height, width, tiles)
    if len(views) == 1:
        return detect_all([image])[0]
    if tiles.whole:
        views = [*views, Window(0, 0, height, width)]
    found = detect_all([np.ascontiguousarray(view.of(image)) for view in views])
    return merge(found, views, height, width)


def merge(
    found: Sequence[Detections], views: Sequence[Window], height: int, width: int
) -> Detections:
    """What was found in several views of one picture, each object once.

    Best score first, a detection takes in those of its class of which, or in which, at least `MERGED` of the
    smaller box lies. Of an object that a tile's edge cuts, the box of a view that shows it whole is taken;
    where none does, the bounds of its pieces.

    Args:
        found: of each view, with boxes in fractions of it.
        views: parts of the picture.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
    """
    placed = [_placed(each, view, height, width) for each, view in zip(found, views, strict=True)]
    boxes, cut = (np.concatenate(part) for part in zip(*placed, strict=True))
    scores = np.concatenate([each.scores for each in found])
    classes = np.concatenate([each.classes for each in found])
    order = np.argsort(-scores, kind="stable")
    boxes, cut, scores, classes = boxes[order], cut[order], scores[order], classes[order]
    kept = np.zeros(len(scores), bool)
    for number in np.unique(classes):
        rows = np.flatnonzero(classes == number)
        chosen, bounds = _greedy(boxes[rows], cut[rows], scores[rows])
        kept[rows[chosen]] = True
        boxes[rows[chosen]] = bounds
    scale = np.array([height, width, height, width], np.float32)
    return Detections((boxes[kept] / scale).astype(np.float32), scores[kept], classes[kept])


def _placed(
    found: Detections, view: Window, height: int, width: int
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(N, 4) boxes in pixels of the picture, and (N,) whether an edge within the picture cuts them."""
    sides = np.array([view.height, view.width] * 2, np.float32)
    corner = np.array([view.top, view.left] * 2, np.float32)
    boxes = found.boxes * sides + corner
    first = np.array([view.top, view.left], np.float32)
    last = first + sides[:2]
    picture = np.array([height, width], np.float32)
    above_or_left = (boxes[:, :2] <= first + EDGE) & (first > 0)
    below_or_right = (boxes[:, 2:] >= last - EDGE) & (last < picture)
    return boxes, np.any(above_or_left | below_or_right, axis=1)


def _greedy(
    boxes: FloatArray, cut: NDArray[np.bool_], scores: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Which of (N, 4) boxes of one class, best first, stand for an object, and the bounds of each."""
    free = np.ones(len(boxes), bool)
    chosen, bounds = [], []
    for row in range(len(boxes)):
        if not free[row]:
            continue
        free[row] = False
        one = np.flatnonzero(free)
        one = one[over_smaller(boxes[row], boxes[one]) >= MERGED]
        free[one] = False
        chosen.append(row)
        bounds.append(_bounds(boxes, cut, scores, row, one))
    shaped = np.array(bounds, np.float32).reshape(-1, 4)
    return np.array(chosen, np.int64), shaped


def _bounds(
    boxes: FloatArray, cut: NDArray[np.bool_], scores: FloatArray, row: int, others: IntArray
) -> FloatArray:
    """The box of the object that row `row` stands for, of which `others` are seen too, best first."""
    own: FloatArray = boxes[row]
    likely = others[scores[others] >= FULLER * scores[row]]
    if not cut[row] or not len(likely):
        return own
    fuller = likely[~cut[likely]]
    if len(fuller):
        seen_whole: FloatArray = boxes[fuller[0]]
        return seen_whole
    pieces = boxes[[row, *likely]]
    return np.concatenate([pieces[:, :2].min(axis=0), pieces[:, 2:].max(axis=0)])


def over_smaller(box: FloatArray, others: FloatArray) -> FloatArray:
    """(N,) intersection of a (4,) box with each of (N, 4), over the area of the smaller; 0 without area."""
    top_left = np.maximum(box[:2], others[:, :2])
    sides = np.maximum(np.minimum(box[2:], others[:, 2:]) - top_left, 0)
    smaller = np.minimum(areas(box[None]), areas(others))
    overlap = sides[:, 0] * sides[:, 1]
    share: FloatArray = np.divide(overlap, smaller, out=np.zeros_like(overlap), where=smaller > 0)
    return share
