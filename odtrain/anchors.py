"""The boxes that the network corrects: where they lie and how large they are, numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from odtrain.boxes import FloatArray
from odtrain.config import AnchorConfig

REDUCED_SHAPES = ((0.1, 1.0), (None, 2.0), (None, 0.5))
"""(scale, aspect ratio) on the finest map where it is reduced; None is that map's own scale."""


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
    height, width = input_size
    unit = np.array([min(height, width) / height, min(height, width) / width])
    maps = [
        _tile(shape, unit * np.array(list(map(_sides, shapes))))
        for shape, shapes in zip(feature_shapes, anchor_shapes(config), strict=True)
    ]
    return np.concatenate(maps).astype(np.float32)


def anchors_per_cell(config: AnchorConfig) -> list[int]:
    """How many anchors each cell of each map carries, finest map first."""
    return [len(shapes) for shapes in anchor_shapes(config)]


def anchor_shapes(config: AnchorConfig) -> list[list[tuple[float, float]]]:
    """(scale, aspect ratio = width / height) of each anchor of a cell, for each map.

    A scale is a fraction of the picture's short side. Each map but a reduced finest one has one
    more square anchor at the geometric mean of its own scale and the next map's; behind the last
    map that is 1.
    """
    scales = [*np.linspace(config.min_scale, config.max_scale, config.num_layers).tolist(), 1.0]
    shapes = [
        [*((own, ratio) for ratio in config.aspect_ratios), (float(np.sqrt(own * following)), 1.0)]
        for own, following in pairwise(scales)
    ]
    if config.reduce_boxes_in_lowest_layer:
        shapes[0] = [(scale or scales[0], ratio) for scale, ratio in REDUCED_SHAPES]
    return shapes


def _sides(shape: tuple[float, float]) -> tuple[float, float]:
    """(height, width) of a (scale, aspect ratio)."""
    scale, ratio = shape
    return scale / float(np.sqrt(ratio)), scale * float(np.sqrt(ratio))


def _tile(cells: tuple[int, int], sides: FloatArray) -> FloatArray:
    """(rows * columns * S, 4) yxyx boxes: each of the (S, 2) `sides` centred in each cell."""
    rows, columns = cells
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij"
    )
    centres = np.stack([y, x], axis=-1)[:, :, None]  # (rows, columns, 1, 2)
    corners = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1)
    boxes: FloatArray = corners.reshape(-1, 4)
    return boxes
