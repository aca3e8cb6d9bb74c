"""The boxes as the network will see them: how small they become, and whether an anchor fits them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from odtrain.config.schema import ModelConfig
from odtrain.dataset.tiles import as_seen
from odtrain.findings import Finding
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.models.anchors import Grid, even_pyramid_grids, pyramid_grids, ssd_grids
from odtrain.structures import FloatArray
from odtrain_runtime import resizing
from odtrain_runtime.tiles import Tiles

TINY = 8
"""Pixels of the network's input: a box with a shorter side covers half a cell of the finest map of an SSD,
or one of an FPN, and little is left to recognise."""
CLEAR = 2 * TINY
"""Pixels of the network's input that the shorter side gets in tiles that are advised."""
LEFT_TINY = 0.05
"""Part of the tiny boxes that may stay smaller: one stray box shall not make all tiles small."""
TILE_STEP = 32
POOR = 0.3
"""A box that no anchor overlaps by such an IoU is far from all of them. Above it and below the IoU that
matches, a box still has its best anchor to itself, as the reference's matcher gives it one."""


def fit_findings(
    model: ModelConfig, images: Sequence[LabelledImage], tiles: Tiles | None = None
) -> Iterator[Finding]:
    """OD116 and OD117 for single boxes, OD209 for all of them.

    Args:
        model: the network that is to learn the boxes.
        images: of the training and the other splits.
        tiles: what pictures are cut into; None where they stay whole.
    """
    items = [(image, item) for image in images for item in image.objects]
    if not items:
        return
    if tiles is None:
        boxes = np.array([item.yxyx for _, item in items], np.float32)
    else:
        boxes = np.concatenate([as_seen(image, tiles) for image in images])
    if model.resize in resizing.FILLS:
        shapes = [_shape(image, tiles) for image, _ in items]
        boxes = boxes * np.array(
            [resizing.extent(shape, model.size, model.resize) for shape in shapes], np.float32
        )
    sides = (boxes[:, 2:] - boxes[:, :2]) * np.array(model.size, np.float32)
    tiny = sides.min(axis=1) < TINY
    best = best_overlaps(model, boxes)
    unmatched = np.zeros(len(items), bool) if best is None else (best < POOR) & ~tiny
    remedy = _tile_remedy(model, [items[i] for i in np.flatnonzero(tiny)], tiles)
    for i in np.flatnonzero(tiny | unmatched).tolist():
        cause = f"becomes {_shown(sides[i])} pixels at the network's {_input(model)}"
        if unmatched[i] and best is not None:
            cause += f", where the best anchor overlaps it by an IoU of {best[i]:.2f} only"
        code, said = ("OD116", remedy) if tiny[i] else ("OD117", None)
        yield _about(*items[i], code, f"{cause}.", said)
    if best is not None:
        share = np.mean(best >= model.matched_iou)
        cause = (
            f"{share:.1%} of the {len(items)} boxes have an anchor that overlaps them by an IoU of "
            f"{model.matched_iou} or more at {_input(model)} (anchor recall)."
        )
        yield Finding.of("OD209", model.name, cause)


def _shape(image: LabelledImage, tiles: Tiles | None) -> tuple[int, int]:
    """(height, width) of what the network is given of a picture."""
    if tiles is None:
        return image.height, image.width
    return min(image.height, tiles.height), min(image.width, tiles.width)


def _tile_remedy(
    model: ModelConfig, tiny: Sequence[tuple[LabelledImage, LabelledObject]], tiles: Tiles | None
) -> str | None:
    """The tiles in which nearly all of the tiny boxes become large enough; None where tiles would not help."""
    if not tiny:
        return None
    height, width = model.size
    sides = [
        min((box[2] - box[0]) * image.height * width / height, (box[3] - box[1]) * image.width)
        for image, item in tiny
        for box in [item.yxyx]
    ]
    side = float(np.quantile(sides, LEFT_TINY)) * width / CLEAR
    size = max(int(side) // TILE_STEP * TILE_STEP, width // 2 // TILE_STEP * TILE_STEP, TILE_STEP)
    largest = max(max(image.height, image.width) for image, _ in tiny)
    if size >= (largest if tiles is None else min(tiles.height, tiles.width)):
        return None
    return (
        f"Cut the pictures into tiles: odtrain train data.tiles.size={size}; raise model.input_size; or leave "
        "such objects unlabelled."
    )


def _about(
    image: LabelledImage, item: LabelledObject, code: str, cause: str, remedy: str | None
) -> Finding:
    file = image.label_file or image.image
    return Finding.of(code, file, cause, image.describe(item), remedy, picture=image.image)


def _shown(sides: FloatArray) -> str:
    height, width = sides.tolist()
    return f"{width:.1f} x {height:.1f}"


def _input(model: ModelConfig) -> str:
    height, width = model.size
    return f"{width} x {height}"


def best_overlaps(model: ModelConfig, boxes: FloatArray) -> FloatArray | None:
    """(N,) IoU of each of the (N, 4) yxyx boxes, fractions, with its best anchor.

    Returns:
        None where the anchors of the architecture are not known here.
    """
    grids = GRIDS.get(model.architecture)
    if grids is None:
        return None
    best = np.zeros(len(boxes), np.float32)
    for grid in grids(model):
        for sides in grid.sides:
            best = np.maximum(best, _overlaps(grid, sides, boxes * np.tile(grid.unit, 2)))
    return best


def _overlaps(grid: Grid, sides: FloatArray, boxes: FloatArray) -> FloatArray:
    """(N,) IoU of (N, 4) boxes with the nearest anchor of one shape: no other one fits better."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells = np.clip(np.round((centres - grid.offset) / grid.stride), 0, np.array(grid.cells) - 1)
    anchors = cells * grid.stride + grid.offset
    top_left = np.maximum(boxes[:, :2], anchors - sides / 2)
    bottom_right = np.minimum(boxes[:, 2:], anchors + sides / 2)
    overlap = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
    union = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(sides) - overlap
    result: FloatArray = overlap / union
    return result


def _ssd(model: ModelConfig) -> list[Grid]:
    """Maps at strides 16, 32, 64, ... of the input, every one half of the last, rounded up."""
    sizes = [_cells(model, 16 * 2**i) for i in range(model.anchors.num_layers)]
    return ssd_grids(model.anchors, sizes, model.size)


def _fpn(model: ModelConfig) -> list[Grid]:
    """Maps at strides 2^level."""
    levels = range(model.pyramid.min_level, model.pyramid.max_level + 1)
    return pyramid_grids(model.pyramid, [_cells(model, 2**level) for level in levels], model.size)


def _even_fpn(model: ModelConfig) -> list[Grid]:
    """The same maps, whose cells divide the input evenly."""
    levels = range(model.pyramid.min_level, model.pyramid.max_level + 1)
    cells = [_cells(model, 2**level) for level in levels]
    return even_pyramid_grids(model.pyramid, cells, model.size)


def _cells(model: ModelConfig, stride: int) -> tuple[int, int]:
    height, width = (-(-side // stride) for side in model.size)
    return height, width


GRIDS: dict[str, Callable[[ModelConfig], list[Grid]]] = {
    "ssd_mobilenet_v1": _ssd,
    "ssd_mobilenet_v2": _ssd,
    "ssdlite_mobilenet_v2": _ssd,
    "ssdlite_mobilenet_v3_large": _ssd,
    "ssdlite_mobilenet_v3_small": _ssd,
    "ssdlite_mobilenet_edgetpu": _ssd,
    "ssdlite_mobiledet_cpu": _ssd,
    "ssdlite_mobiledet_dsp": _ssd,
    "ssdlite_mobiledet_edgetpu": _ssd,
    "ssdlite_mobiledet_gpu": _ssd,
    "ssd_mobilenet_v1_ppn": _ssd,
    "ssd_inception_v2": _ssd,
    "ssd_mobilenet_v1_fpn": _fpn,
    "ssd_resnet50_v1_fpn": _fpn,
    "efficientdet_lite": _even_fpn,
    "ssd_mobilenet_v2_fpnlite": _fpn,
    "ssd_mobilenet_v2_mnasfpn": _fpn,
}
"""The anchors of an architecture, whose network need not be built for them."""
