"""Charts of an evaluation, drawn without a display and without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from odtrain.evaluation.matching import RECALLS, Float64Array
from odtrain.media.draw import font_file
from odtrain.media.palette import css_colour
from odtrain_runtime.plain import plain as one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from odtrain.structures import IntArray


class Interval(NamedTuple):
    """A number and the ends of its interval."""

    name: str
    value: float
    low: float
    high: float


BETTER, WORSE = css_colour(3), css_colour(5)
NAMED_CURVES = 10
"""More curves than this in one chart cannot be told apart: the weakest ones are named."""

CELLS_WITH_NUMBERS = 25
"""Largest confusion matrix, in classes, whose counts and names still fit."""


def pr_curves(path: Path, precision: Float64Array, labels: Sequence[str]) -> None:
    """Precision over recall of every class, at IoU .5 and averaged over the ten thresholds.

    Args:
        path: the PNG to write.
        precision: (T, R, K) interpolated precision at `RECALLS`, NaN for classes without boxes.
        labels: (K,) names of the classes, printable with a font of this machine.
    """
    with rc_context({"font.family": families(labels)}):
        figure = Figure(
            figsize=(12, 6 + 0.12 * min(len(labels), NAMED_CURVES)), layout="constrained"
        )
        left, right = figure.subplots(1, 2)
        _draw_curves(left, precision[0], labels, "IoU 0.50")
        _draw_curves(right, precision.mean(axis=0), labels, "mean over IoU 0.50 to 0.95")
        save(figure, path)


def confusion(path: Path, matrix: IntArray, labels: Sequence[str], threshold: float) -> None:
    """Counts of what was there against what was found; shades are shares of the boxes there.

    Args:
        path: the PNG to write.
        matrix: (K + 1, K + 1), rows what is there, columns what was found, background last.
        labels: (K,) names of the classes, printable with a font of this machine.
        threshold: the score from which detections were counted.
    """
    small = len(labels) <= CELLS_WITH_NUMBERS
    side = min(14.0, 3.2 + 0.55 * len(matrix))
    with rc_context({"font.family": families(labels)}):
        figure = Figure(figsize=(side + 1.2, side), layout="constrained")
        axes = figure.subplots()
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        shares[-1] = 0  # of the background nobody can say how often it was there
        shade = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if small:
            _write_counts(axes, matrix, shares)
        _name_cells(axes, labels, every=1 if small else -(-len(matrix) // 40))
        axes.set_title(f"IoU ≥ 0.50, score ≥ {threshold:.2f}")
        figure.colorbar(shade, ax=axes, label="share of the boxes there", fraction=0.046, pad=0.02)
        save(figure, path)


def differences(path: Path, rows: Sequence[Interval], title: str, axis: str) -> None:
    """A line for each number: the difference of two sides, and its interval.

    Args:
        path: the PNG to write.
        rows: from top to bottom; names printable with a font of this machine.
        title: over the chart.
        axis: what the numbers are.
    """
    with rc_context({"font.family": families([row.name for row in rows])}):
        figure = Figure(figsize=(9, 1.8 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="0.3", linewidth=1)
        for place, row in enumerate(rows):
            colour = "0.45" if row.low <= 0 <= row.high else BETTER if row.low > 0 else WORSE
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2.2)
            axes.plot(row.value, place, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [plain(row.name) for row in rows])
        axes.invert_yaxis()
        axes.margins(x=0.08, y=0.5 / max(len(rows), 1))
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(axis)
        axes.set_title(title, wrap=True, fontsize="medium")
        save(figure, path)


def weakest_first(precision: Float64Array) -> IntArray:
    """The columns of (R, K) precision whose classes have boxes, those of the lowest average precision first."""
    present = np.flatnonzero(~np.isnan(precision).any(axis=0))
    return present[np.argsort(precision.mean(axis=0)[present], kind="stable")]


def _draw_curves(axes: Axes, precision: Float64Array, labels: Sequence[str], title: str) -> None:
    """One chart of (R, K) precision: classes thin, their mean thick; the legend gives the AP."""
    present, ap = weakest_first(precision), precision.mean(axis=0)
    named = present[:NAMED_CURVES]
    for k in present[NAMED_CURVES:]:
        axes.plot(RECALLS, precision[:, k], color="0.8", linewidth=0.8)
    for k in named[::-1]:
        colour, label = css_colour(int(k) + 1), f"{ap[k]:.3f}  {plain(labels[k])}"
        axes.plot(RECALLS, precision[:, k], color=colour, linewidth=1.6, label=label)
    if len(present) > 1:
        mean = precision[:, np.sort(present)].mean(axis=1)
        axes.plot(
            RECALLS, mean, "k", linewidth=2.6, label=f"{mean.mean():.3f}  mean of {len(present)}"
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), title=title)
    axes.set(xlabel="recall: share of the objects that are found")
    axes.set(ylabel="precision: share of what is found that is right")
    axes.grid(alpha=0.3)
    if len(present):
        weakest = " (the weakest)" if len(present) > NAMED_CURVES else ""
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.1),
            ncols=2,
            title=f"average precision{weakest}",
            fontsize="small",
        )


def _write_counts(axes: Axes, matrix: IntArray, shares: Float64Array) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            ink = "white" if shares[row, column] > 0.55 else "black"
            axes.text(
                column, row, str(count), color=ink, ha="center", va="center", fontsize="small"
            )


def _name_cells(axes: Axes, labels: Sequence[str], every: int) -> None:
    ticks = [*range(0, len(labels), every), len(labels)]
    rows = [plain(label) for label in labels]
    axes.set_xticks(ticks, [[*rows, "missed"][t] for t in ticks], rotation=90)
    axes.set_yticks(ticks, [[*rows, "background"][t] for t in ticks])
    axes.set(xlabel="found as", ylabel="what is there")
    axes.axhline(len(labels) - 0.5, color="0.4", linewidth=0.8)
    axes.axvline(len(labels) - 0.5, color="0.4", linewidth=0.8)


def families(labels: Sequence[str]) -> list[str]:
    """The fonts that together have all letters of the labels, DejaVu Sans first."""
    files = [font_file(label) for label in labels if not label.isascii()]
    names = [FontProperties(fname=str(file)).get_name() for file in files if file is not None]
    return list(dict.fromkeys(["DejaVu Sans", *names]))


def plain(label: str) -> str:
    """The label on one line, without meaning as a formula, cut to a length that fits a chart."""
    label = one_line(label)
    short = label if len(label) <= 28 else label[:27] + "…"
    return short.replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as the PNG `path`."""
    FigureCanvasAgg(figure)  # saves without looking for a display
    figure.savefig(path)
