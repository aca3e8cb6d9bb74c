"""A chart of what more pictures bring, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from odtrain.evaluation.learning_curve import TIMES, Curve
from odtrain.media.palette import css_colour
from odtrain.reports.charts import families, save

SHOWN_CLASSES = 8
"""More lines cannot be told apart; those that gain most are shown."""


def curve_chart(path: Path, curves: Sequence[Curve]) -> None:
    """Scores over the number of pictures, solid as measured and dashed as expected; mAP with its interval.

    Args:
        path: the PNG to write; its folder is made.
        curves: mAP first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = curves[: SHOWN_CLASSES + 1]
    with rc_context({"font.family": families([each.name for each in shown])}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for number, one in enumerate(shown):
            colour = "black" if number == 0 else css_colour(number)
            width = 2.5 if number == 0 else 1
            last = one.pictures[-1], one.pictures[-1] * TIMES
            axes.plot(one.pictures, one.scores, "o-", color=colour, lw=width, label=one.name)
            axes.plot(last, [one.scores[-1], one.expected], "--", color=colour, lw=width)
            if number == 0 and one.low is not None and one.high is not None:
                ends = [[max(one.gain - one.low, 0)], [max(one.high - one.gain, 0)]]
                axes.errorbar(last[1], one.expected, yerr=ends, color=colour, capsize=4)
        ticks = [*curves[0].pictures, curves[0].pictures[-1] * TIMES]
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("training pictures")
        axes.set_ylabel("average precision on the test pictures")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", fontsize="small")
        save(figure, path)
