"""Charts of a data set: what is labelled how often, how large, and where in the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odtrain.config.schema import ModelConfig
from odtrain.evaluation.matching import Float64Array
from odtrain.reports.charts import families, plain, save
from odtrain.structures import GroundTruth, IntArray
from odtrain_runtime import resizing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Truths = Mapping[str, Sequence[GroundTruth]]
"""Split -> what is in each of its pictures."""

COLOURS = {"train": "tab:blue", "validation": "tab:green", "test": "tab:orange"}
MOST_CLASSES = 60
"""More bars than this cannot be read: the rarest and the most frequent ones are shown."""
CELLS = 32
"""Rows and columns of the heat map."""
NO_BOXES = np.empty((0, 4), np.float32)
SMALL = 8
"""Pixels at the network's input: smaller objects are hardly ever found."""


def class_chart(path: Path, truths: Truths, labels: Sequence[str]) -> None:
    """Boxes of each class, most frequent first, a bar for each split.

    Args:
        path: the PNG to write.
        truths: of all splits.
        labels: of the classes, printable with a font of this machine; the first has id 1.
    """
    counts = {split: _class_counts(part, len(labels)) for split, part in truths.items()}
    total = np.sum(list(counts.values()), axis=0)
    order = np.argsort(-total, kind="stable")
    left_out = max(0, len(order) - MOST_CLASSES)
    if left_out:
        order = np.concatenate([order[: MOST_CLASSES // 2], order[-MOST_CLASSES // 2 :]])
    with rc_context({"font.family": families(labels)}):
        figure = Figure(figsize=(9, 1.6 + 0.28 * len(order)), layout="constrained")
        axes = figure.subplots()
        _stack(axes, counts, order)
        axes.set_yticks(range(len(order)), [plain(labels[k]) for k in order])
        axes.invert_yaxis()
        for row, k in enumerate(order):
            axes.text(total[k], row, f" {total[k]:,}", va="center", fontsize="small")
        axes.margins(x=0.1)
        without = f"; {left_out} classes between them are left out" if left_out else ""
        axes.set(xlabel="boxes", title=f"{total.sum():,} boxes in {len(labels)} classes{without}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")
        save(figure, path)


def _stack(axes: Axes, counts: Mapping[str, IntArray], order: IntArray) -> None:
    left = np.zeros(len(order))
    for split, boxes in counts.items():
        axes.barh(range(len(order)), boxes[order], left=left, color=COLOURS[split], label=split)
        left += boxes[order]


def _class_counts(part: Sequence[GroundTruth], classes: int) -> IntArray:
    ids = np.concatenate([truth.classes for truth in part] or [np.empty(0, np.int64)])
    counts: IntArray = np.bincount(ids, minlength=classes + 1)[1:].astype(np.int64)
    return counts


def size_chart(path: Path, truths: Truths, model: ModelConfig) -> None:
    """How large the boxes are at the network's input, and of which shapes.

    Args:
        path: the PNG to write.
        truths: of all splits.
        model: for the size of the network's input, and how pictures are brought to it.
    """
    size = model.size
    sides = {split: _sides_at_input(part, model) for split, part in truths.items()}
    everything = np.concatenate(list(sides.values()))
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = np.geomspace(1, max(size) * 1.05, 41)
    edges = [np.clip(np.sqrt(part.prod(axis=1)), 1, None) for part in sides.values()]
    colours = [COLOURS[split] for split in sides]
    left.hist(edges, bins, stacked=True, color=colours, label=list(sides))
    left.axvspan(1, SMALL, color="0.9", zorder=0, label=f"below {SMALL} pixels")
    small = int((np.concatenate(edges) < SMALL).sum())
    height, width = size
    left.set(
        xscale="log",
        xlabel=f"square root of the area, pixels at {width} x {height}",
        ylabel="boxes",
        title=f"{small:,} of {len(everything):,} boxes are below {SMALL} pixels",
    )
    left.xaxis.set_major_formatter("{x:g}")
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend()
    _shapes(figure, right, everything, size)
    save(figure, path)


def _shapes(figure: Figure, axes: Axes, sides: Float64Array, size: tuple[int, int]) -> None:
    """(N, 2) heights and widths in pixels, as a map of their frequency."""
    most = max(size) * 1.02
    if len(sides):
        *_, shade = axes.hist2d(
            sides[:, 1],
            sides[:, 0],
            bins=48,
            range=[[0, most], [0, most]],
            cmap="viridis",
            norm=LogNorm(vmin=1),
        )
        figure.colorbar(shade, ax=axes, label="boxes")
    for ratio in (0.5, 1, 2):
        axes.plot([0, most], [0, most * ratio], "k:", linewidth=0.7)
    axes.set(xlim=(0, most), ylim=(0, most), xlabel="width, pixels", ylabel="height, pixels")
    axes.set(title="shapes; dotted: height 1/2, 1 and 2 times the width", aspect="equal")


def centre_chart(path: Path, truths: Truths) -> None:
    """Where in the pictures the centres of the boxes are."""
    centres = np.concatenate([_boxes(part)[0] for part in truths.values()])
    figure = Figure(figsize=(6.6, 5.6), layout="constrained")
    axes = figure.subplots()
    cells, _, _ = np.histogram2d(centres[:, 0], centres[:, 1], CELLS, [[0, 1], [0, 1]])
    shade = axes.imshow(cells, extent=(0, 1, 1, 0), cmap="magma", interpolation="nearest")
    bar = figure.colorbar(shade, ax=axes, label="box centres")
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="across the picture", ylabel="down the picture")
    axes.set(title=f"centres of {len(centres):,} boxes")
    save(figure, path)


def _sides_at_input(part: Sequence[GroundTruth], model: ModelConfig) -> Float64Array:
    """(N, 2) heights and widths of all boxes in pixels of the network's input."""
    sides: Float64Array = _boxes(part)[1] * np.array(model.size)
    if model.resize == resizing.STRETCH:
        return sides
    extents = [
        resizing.extent((truth.height, truth.width), model.size, model.resize)[:2] for truth in part
    ]
    counts = [len(truth.boxes) for truth in part]
    padded: Float64Array = sides * np.repeat(np.reshape(extents, (-1, 2)), counts, axis=0)
    return padded


def _boxes(part: Sequence[GroundTruth]) -> tuple[Float64Array, Float64Array]:
    """(N, 2) centres and (N, 2) sides of all boxes, y before x, fractions of the picture."""
    boxes = np.concatenate([truth.boxes for truth in part] or [NO_BOXES]).astype(float)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
