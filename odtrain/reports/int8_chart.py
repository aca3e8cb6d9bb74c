"""A chart of an int8 file's layers, the worst first, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from odtrain.reports.charts import BETTER, WORSE, save

GOOD_DB = 20.0
"""At this signal-to-noise an error is a tenth of what a layer says."""


def layers_chart(path: Path, layers: Sequence[tuple[str, float]]) -> None:
    """A bar for each layer.

    Args:
        path: the PNG to write.
        layers: name and signal-to-noise in decibels, from top to bottom.
    """
    figure = Figure(figsize=(11, 1.6 + 0.28 * len(layers)), layout="constrained")
    axes = figure.subplots()
    values = [value for _, value in layers if np.isfinite(value)]
    end = max([*values, GOOD_DB]) * 1.05
    for place, (_, value) in enumerate(layers):
        colour = BETTER if value >= GOOD_DB else WORSE
        axes.barh(place, min(value, end), color=colour)
    axes.axvline(GOOD_DB, color="0.3", linewidth=1, linestyle="--")
    names = [name.replace("$", r"\$") for name, _ in layers]
    axes.set_yticks(range(len(layers)), names, fontsize="x-small")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("signal to noise of what a layer gives, int8 beside float32, in dB")
    axes.set_title("Layers that differ most", fontsize="medium")
    save(figure, path)
