"""A chart of what was counted in a video, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odtrain.media.palette import css_colour
from odtrain.reports.charts import families, save


def count_chart(path: Path, series: Mapping[str, Sequence[float]]) -> None:
    """How many were counted up to each second.

    Args:
        path: the PNG to write.
        series: name, printable with a font of this machine -> when each was counted, seconds in any order.
    """
    with rc_context({"font.family": families(list(series))}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for number, (name, seconds) in enumerate(series.items(), start=1):
            counts = list(range(len(seconds) + 1))
            axes.step(
                [0, *sorted(seconds)], counts, where="post", label=name, color=css_colour(number)
            )
        axes.set_xlabel("seconds")
        axes.set_ylabel("counted")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if series:
            axes.legend()
        save(figure, path)
