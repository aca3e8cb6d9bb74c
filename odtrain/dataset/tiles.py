"""Training pictures cut into tiles: which there are, what is in each, and what is left out.

A picture is cut once its split is known, so that all of it stays in one split. Nothing is decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from odtrain.config.schema import DataConfig
from odtrain.config.tiles import training_tiles
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.structures import FloatArray, areas
from odtrain_runtime.tiles import Tiles, Window, windows

TILE_OF, TILE = "image/tile/of", "image/tile/window"
"""Keys of a tile's record: the name of its picture; its top, left, height and width there, and that one's
height and width, in pixels."""
CUT_AWAY = 1e-6
"""A part of a box that is missing in a tile, above which it counts as cut."""


class Piece(NamedTuple):
    """What one record is of.

    Attributes:
        image: what is labelled in it; of a tile its height, width and objects.
        window: where the tile lies in its picture; None for a whole picture.
    """

    image: LabelledImage
    window: Window | None = None


class Cut(NamedTuple):
    """Training pictures, cut.

    Attributes:
        tiles: how.
        pieces: of one picture after the other: the whole where it is trained on too, and its tiles.
        parted: how many pictures were cut; the others are no larger than a tile.
        empty: how many of the tiles hold no object, and how many of those are kept.
        left_out: how many pieces of boxes were left out of tiles.
        lost: objects that no tile shows enough of, and that are trained on nowhere.
    """

    tiles: Tiles
    pieces: list[Piece]
    parted: int
    empty: tuple[int, int]
    left_out: int
    lost: list[tuple[LabelledImage, LabelledObject]]

    @property
    def area(self) -> dict[str, float]:
        """Picture, as text -> how much is recorded of it, in pixels."""
        sums: dict[str, float] = {}
        for piece in self.pieces:
            key = str(piece.image.image)
            sums[key] = sums.get(key, 0.0) + piece.image.height * piece.image.width
        return sums


def cut(config: DataConfig, images: Sequence[LabelledImage]) -> Cut | None:
    """The pictures cut as `data.tiles` asks; None where they stay whole."""
    tiles = training_tiles(config)
    if tiles is None:
        return None
    pieces: list[Piece] = []
    lost: list[tuple[LabelledImage, LabelledObject]] = []
    parted = left_out = 0
    for image in images:
        views = windows(image.height, image.width, tiles)
        if len(views) == 1:
            pieces.append(Piece(image))
            continue
        shares = visible(image, views)
        enough = shares >= max(config.tiles.min_visible, CUT_AWAY)
        parted += 1
        left_out += int((~enough & (shares > 0)).sum())
        pieces += [Piece(image)] if tiles.whole else []
        pieces += [
            Piece(_tile(image, view, seen), view) for view, seen in zip(views, enough, strict=True)
        ]
        if not tiles.whole:
            unseen = np.flatnonzero(~enough.any(axis=0)).tolist()
            lost += [(image, image.objects[row]) for row in unseen]
    kept, empty = _in_proportion(pieces, config.tiles.empty, config.seed)
    return Cut(tiles, kept, parted, empty, left_out, lost)


def visible(image: LabelledImage, views: Sequence[Window]) -> FloatArray:
    """(W, N) which part of each object's box lies in each of the windows."""
    boxes, bounds = _in_pixels(image), _bounds(views)
    top_left = np.maximum(boxes[None, :, :2], bounds[:, None, :2])  # (W, N, 2)
    sides = np.maximum(np.minimum(boxes[None, :, 2:], bounds[:, None, 2:]) - top_left, 0)
    inside = sides[..., 0] * sides[..., 1]
    whole = np.broadcast_to(areas(boxes), inside.shape)
    share: FloatArray = np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    return share


def as_seen(image: LabelledImage, tiles: Tiles) -> FloatArray:
    """(N, 4) yxyx fractions of each object in the tile that shows most of it."""
    views = windows(image.height, image.width, tiles)
    best = visible(image, views).argmax(axis=0)  # (N,)
    bounds = _bounds(views)[best]
    corner, sides = np.tile(bounds[:, :2], 2), np.tile(bounds[:, 2:] - bounds[:, :2], 2)
    fractions: FloatArray = np.clip((_in_pixels(image) - corner) / sides, 0, 1).astype(np.float32)
    return fractions


def _in_pixels(image: LabelledImage) -> FloatArray:
    """(N, 4) yxyx of every object."""
    boxes = np.array([item.yxyx for item in image.objects]).reshape(-1, 4)
    scaled: FloatArray = boxes * [image.height, image.width, image.height, image.width]
    return scaled


def _bounds(views: Sequence[Window]) -> FloatArray:
    """(W, 4) yxyx in pixels."""
    sides = np.array(views, float).reshape(-1, 4)
    return np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1)


def _tile(image: LabelledImage, view: Window, enough: Sequence[bool]) -> LabelledImage:
    """The part of a picture in `view`, with those of its objects of which `enough` is seen."""
    seen = [item for item, there in zip(image.objects, enough, strict=True) if there]
    objects = tuple(_clipped(item, image, view) for item in seen)
    return replace(image, height=view.height, width=view.width, objects=objects)


def _clipped(item: LabelledObject, image: LabelledImage, view: Window) -> LabelledObject:
    ymin, xmin, ymax, xmax = item.yxyx
    top, left = (
        (ymin * image.height - view.top) / view.height,
        (xmin * image.width - view.left) / view.width,
    )
    bottom = (ymax * image.height - view.top) / view.height
    right = (xmax * image.width - view.left) / view.width
    outside = min(top, left) < -CUT_AWAY or max(bottom, right) > 1 + CUT_AWAY
    yxyx = max(top, 0.0), max(left, 0.0), min(bottom, 1.0), min(right, 1.0)
    return replace(item, yxyx=yxyx, truncated=item.truncated or outside)


def _in_proportion(
    pieces: Sequence[Piece], share: float, seed: int
) -> tuple[list[Piece], tuple[int, int]]:
    """All tiles with objects, and for each of them `share` empty ones, of every picture its part.

    Returns:
        The pieces, and how many empty tiles there are, and are kept.
    """
    full = sum(bool(piece.image.objects) for piece in pieces if piece.window)
    empty = [row for row, piece in enumerate(pieces) if piece.window and not piece.image.objects]
    if not full:
        return list(pieces), (len(empty), len(empty))
    count = min(len(empty), round(share * full))
    # Within a picture in any order, then evenly from the first picture to the last.
    drawn = dict(zip(empty, np.random.default_rng(seed).random(len(empty)).tolist(), strict=True))
    ordered = sorted(empty, key=lambda row: (str(pieces[row].image.image), drawn[row]))
    kept = {ordered[i * len(empty) // count] for i in range(count)}
    gone = set(empty) - kept
    return [piece for row, piece in enumerate(pieces) if row not in gone], (len(empty), count)
