"""The boxes that the network corrects: where they lie and how large they are, numpy only.

Everything is computed in float32, in the reference's order of operations: where an overlap lies just
at a threshold, or two are equal, the last bit decides which anchor has an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from odtrain.config.schema import AnchorConfig, PyramidConfig
from odtrain.structures import FloatArray

REDUCED_SHAPES = ((0.1, 1.0), (None, 2.0), (None, 0.5))
"""(scale, aspect ratio) on the finest map where it is reduced; None is that map's own scale."""


class Grid(NamedTuple):
    """The anchors of one map: those of `sides` in every cell.

    Attributes:
        cells: rows and columns.
        stride: (2,) y, x from one cell's centre to the next one's.
        offset: (2,) y, x of the first cell's centre.
        sides: (S, 2) heights and widths.
        unit: (2,) height and width of the picture in the unit of the others.
    """

    cells: tuple[int, int]
    stride: FloatArray
    offset: FloatArray
    sides: FloatArray
    unit: FloatArray


class Level(NamedTuple):
    """The anchors of one map among those of a network.

    Attributes:
        anchors: how many.
        per_cell: of these in each cell.
        stride: height and width of a cell, in pixels of the network's input.
    """

    anchors: int
    per_cell: int
    stride: tuple[float, float]


def levels_of(
    shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
    anchors: int,
    per_cell: Sequence[int],
) -> tuple[Level, ...]:
    """The levels of so many anchors on maps of these (height, width) in cells.

    `per_cell` has the anchors of a cell of each map, where it adds up to `anchors`; a network whose maps
    are no SSD's has as many in every cell.
    """
    cells = [height * width for height, width in shapes]
    fits = len(per_cell) == len(cells)
    fits = fits and sum(map(int.__mul__, cells, per_cell)) == anchors
    each = per_cell if fits else [anchors // sum(cells)] * len(cells)
    return tuple(
        Level(count * every, every, (input_size[0] / height, input_size[1] / width))
        for count, every, (height, width) in zip(cells, each, shapes, strict=True)
    )


def ssd_anchors(
    config: AnchorConfig,
    feature_shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
) -> FloatArray:
    """Anchors of every feature map, as the reference's `ssd_anchor_generator` lays them out.

    Args:
        config: sizes and shapes of the anchors.
        feature_shapes: (height, width) in cells of each of `config.num_layers` maps, finest first.
        input_size: (height, width) of the network's input in pixels.

    Returns:
        (A, 4) yxyx, fractions of the picture, not clipped to it. Order: map, row, column, shape.
    """
    return np.concatenate([_tiled(grid) for grid in ssd_grids(config, feature_shapes, input_size)])


def ssd_grids(
    config: AnchorConfig,
    feature_shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
) -> list[Grid]:
    """What `ssd_anchors` lays out, in fractions of the picture, and of the same arguments."""
    base = np.float32(min(input_size)) / np.array(input_size, np.float32)
    grids = []
    for cells, shapes in zip(feature_shapes, anchor_shapes(config), strict=True):
        stride = np.float32(1) / np.array(cells, np.float32)
        sides = _sides(shapes, base)
        grids.append(Grid(cells, stride, np.float32(0.5) * stride, sides, np.ones(2, np.float32)))
    return grids


def pyramid_anchors(
    config: PyramidConfig,
    feature_shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
) -> FloatArray:
    """Anchors of a feature pyramid, as the reference's `multiscale_grid_anchor_generator` lays them.

    Cells of level L are 2^L pixels apart. The first one's centre is half of that inside the picture,
    along a side that this divides; otherwise it is at 0, a quirk that the published weights know.

    Args:
        config: levels, sizes and shapes.
        feature_shapes: (height, width) in cells of the map of each level, finest first.
        input_size: (height, width) of the network's input in pixels.

    Returns:
        (A, 4) yxyx, fractions of the picture, not clipped to it. Order: map, row, column, shape.
    """
    grids = pyramid_grids(config, feature_shapes, input_size)
    size = np.array(input_size, np.float32)
    return np.concatenate([_tiled(grid) for grid in grids]) * np.tile(1 / size, 2)


def pyramid_grids(
    config: PyramidConfig,
    feature_shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
) -> list[Grid]:
    """What `pyramid_anchors` lays out, in pixels of the input, and of the same arguments."""
    size = np.array(input_size, np.float32)
    shapes, grids = pyramid_shapes(config), []
    for level, cells in enumerate(feature_shapes, start=config.min_level):
        stride = np.full(2, 2.0**level, np.float32)
        sides = _sides(shapes, np.float32(config.anchor_scale) * stride)
        offset = np.where(size % stride == 0, stride / 2, np.float32(0))
        grids.append(Grid(cells, stride, offset, sides, size))
    return grids


def even_pyramid_anchors(
    config: PyramidConfig,
    feature_shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
) -> FloatArray:
    """Anchors of a feature pyramid, as google/automl's `anchors.py` lays them out.

    They divide the input evenly: cells of a map that its size does not divide are no power of two apart.
    Arguments and result are those of `pyramid_anchors`, but of the anchors of a cell the sizes come first.
    """
    size = np.array(input_size, np.float32)
    return even_pyramid_pixels(config, feature_shapes, input_size) * np.tile(1 / size, 2)


def even_pyramid_pixels(
    config: PyramidConfig,
    feature_shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
) -> FloatArray:
    """The same in pixels of the input."""
    grids = even_pyramid_grids(config, feature_shapes, input_size)
    return np.concatenate([_tiled(grid) for grid in grids])


def even_pyramid_grids(
    config: PyramidConfig,
    feature_shapes: Sequence[tuple[int, int]],
    input_size: tuple[int, int],
) -> list[Grid]:
    """What `even_pyramid_anchors` lays out, in pixels of the input, and of the same arguments."""
    size = np.array(input_size, np.float32)
    octave = dict.fromkeys(scale for scale, _ in pyramid_shapes(config))
    shapes = [(scale, ratio) for scale in octave for ratio in config.aspect_ratios]
    grids = []
    for cells in feature_shapes:
        stride: FloatArray = np.divide(size, np.array(cells, np.float32))
        sides = _sides(shapes, np.float32(config.anchor_scale) * stride)
        grids.append(Grid(cells, stride, np.divide(stride, 2), sides, size))
    return grids


def pyramid_shapes(config: PyramidConfig) -> list[tuple[float, float]]:
    """(scale within the octave, aspect ratio) of each anchor of a cell."""
    octave = [2 ** (i / config.scales_per_octave) for i in range(config.scales_per_octave)]
    return [(scale, ratio) for ratio in config.aspect_ratios for scale in octave]


def anchors_per_cell(config: AnchorConfig) -> list[int]:
    """How many anchors each cell of each map carries, finest map first."""
    return [len(shapes) for shapes in anchor_shapes(config)]


def anchor_shapes(config: AnchorConfig) -> list[list[tuple[float, float]]]:
    """(scale, aspect ratio = width / height) of each anchor of a cell, for each map.

    A scale is a fraction of the picture's short side. Each map but a reduced finest one has one
    more square anchor at the geometric mean of its own scale and the next map's; behind the last
    map that is 1.
    """
    # The reference's configuration holds its scales in float32.
    first, last = (float(np.float32(scale)) for scale in (config.min_scale, config.max_scale))
    scales = [*np.linspace(first, last, config.num_layers).tolist(), 1.0]
    shapes = [
        [*((own, ratio) for ratio in config.aspect_ratios), (float(np.sqrt(own * following)), 1.0)]
        for own, following in pairwise(scales)
    ]
    if config.reduce_boxes_in_lowest_layer:
        shapes[0] = [(scale or scales[0], ratio) for scale, ratio in REDUCED_SHAPES]
    return shapes


def _sides(shapes: Sequence[tuple[float, float]], base: FloatArray) -> FloatArray:
    """(S, 2) heights and widths of (scale, aspect ratio) pairs, times the (2,) `base`."""
    scales, ratios = np.array(shapes, np.float32).T
    roots = np.sqrt(ratios)
    return np.stack([scales / roots * base[0], scales * roots * base[1]], axis=-1)


def _tiled(grid: Grid) -> FloatArray:
    """(rows * columns * S, 4) yxyx boxes: each of the S shapes centred in each cell."""
    axes = zip(grid.cells, grid.stride, grid.offset, strict=True)
    y, x = (np.arange(n, dtype=np.float32) * stride + offset for n, stride, offset in axes)
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)[:, :, None]
    halves = np.float32(0.5) * grid.sides
    corners: FloatArray = np.concatenate([centres - halves, centres + halves], axis=-1)
    return corners.reshape(-1, 4)
