"""A chart of what a served model sees beside what it was judged on, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from odtrain.evaluation.two_samples import Values
from odtrain.media.palette import css_colour
from odtrain.reports.charts import save

ACROSS = 4
BINS = 24


class Side(Protocol):
    """Pictures of which there are numbers."""

    def numbers(self, kind: str) -> Values:
        """(N, D) of one kind."""


def drift_chart(path: Path, chances: Mapping[str, float], now: Side, before: Side) -> None:
    """How each kind of number is spread, of vectors their mean a picture.

    Args:
        path: the PNG to write.
        chances: kind -> chance that nothing changed.
        now: what is seen.
        before: what was judged on.
    """
    rows = -(-len(chances) // ACROSS)
    figure = Figure(figsize=(3.2 * ACROSS, 2.6 * rows), layout="constrained")
    places = np.atleast_1d(figure.subplots(rows, ACROSS)).reshape(-1)
    for axes, (kind, chance) in zip(places, chances.items(), strict=False):
        sides = [side.numbers(kind).mean(axis=1) for side in (before, now)]
        both = np.concatenate(sides)
        edges = np.histogram_bin_edges(both, BINS) if len(both) else np.array([0.0, 1.0])
        for values, colour, label in zip(sides, (8, 5), ("judged on", "seen"), strict=True):
            weights = np.full(len(values), 1 / max(1, len(values)))
            axes.hist(
                values, edges, weights=weights, alpha=0.6, color=css_colour(colour), label=label
            )
        axes.set_title(f"{kind}, p {chance:.3f}", fontsize="medium")
        axes.set_yticks([])
    places[0].legend(fontsize="small")
    for axes in places[len(chances) :]:
        axes.set_visible(False)
    save(figure, path)
