"""A sweep as people look at it: tables, plots, and a page that needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from odtrain.io import markdown
from odtrain.reports import pages
from odtrain.sweep.pareto import FrontPoint, short

COLUMNS = ("mAP", "mAP_lo", "mAP_hi", "mAP_50", "latency_ms_p50", "size_mb", "peak_memory_mb")

NAMES = {
    "mAP_lo": "mAP, low end",
    "mAP_hi": "mAP, high end",
    "mAP_50": "mAP at IoU 0.50",
    "latency_ms_p50": "latency, ms (median)",
    "size_mb": "size, MB",
    "peak_memory_mb": "peak memory, MB",
    "front": "on the front",
}
"""Metrics in words; others are called as they are."""
MOST_TEXT = 170_000
"""Bytes of the rows of files on the page."""
MOST_OTHERS = 200
"""Trainings without a file that are on the page."""

Importances = Mapping[str, Mapping[str, float]]
"""Metric -> key -> share of the metric's variance."""


def importance_table(importances: Importances) -> str:
    """Keys by metric as a Markdown table, the most important first."""
    metrics = list(importances)
    keys = sorted({key for values in importances.values() for key in values})
    keys.sort(key=lambda key: -max(values.get(key, 0.0) for values in importances.values()))
    shares = {key: [importances[metric].get(key) for metric in metrics] for key in keys}
    rows = [
        [key, *("" if share is None else f"{share:.0%}" for share in values)]
        for key, values in shares.items()
    ]
    return "\n".join(markdown.table(["choice", *metrics], rows))


def others_table(others: Sequence[Mapping[str, str]]) -> str:
    """Trials without a file as a Markdown table."""
    rows = [[markdown.escaped(text) for text in row.values()] for row in others]
    return "\n".join(markdown.table(("trial", "state", "reason", "chosen"), rows))


def draw_front(points: Sequence[FrontPoint], best: Sequence[FrontPoint], file: Path) -> None:
    """A PNG of mAP over latency: all files, and the front as a line."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name in sorted({point.format for point in points}):
        own = [point.metrics for point in points if point.format == name]
        scores = [values["mAP"] for values in own]
        ends = [
            [abs(values["mAP"] - values.get(end, values["mAP"])) for values in own]
            for end in ("mAP_lo", "mAP_hi")
        ]
        axes.errorbar(
            [values["latency_ms_p50"] for values in own],
            scores,
            yerr=ends,
            fmt="o",
            elinewidth=0.8,
            label=name,
            alpha=0.7,
        )
    line = sorted(best, key=lambda point: point.metrics["latency_ms_p50"])
    axes.plot(
        [point.metrics["latency_ms_p50"] for point in line],
        [point.metrics["mAP"] for point in line],
        color="black",
        linewidth=1,
        label="front",
    )
    axes.set_xlabel("latency, milliseconds (median)")
    axes.set_ylabel("mAP on the validation split, with its 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110)


def draw_importances(importances: Importances, file: Path) -> None:
    """A PNG with bars for each metric, the most important choice on top."""
    most = max(len(values) for values in importances.values())
    figure = Figure(figsize=(8, 0.8 + 0.4 * most), layout="constrained")
    several = figure.subplots(1, len(importances), squeeze=False)[0]
    for axes, (metric, values) in zip(several, importances.items(), strict=True):
        keys = sorted(values, key=lambda key: values[key])
        axes.barh(keys, [values[key] for key in keys], color="#1f77b4")
        axes.set_title(metric, fontsize=10)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the variance")
    figure.savefig(file, dpi=110)


def sweep_page(
    title: str,
    points: Sequence[FrontPoint],
    best: Sequence[FrontPoint],
    others: Sequence[Mapping[str, str]],
    importances: Importances,
) -> str:
    """A page with a plot, tables that sort and filter, and bars of what mattered.

    Args:
        title: of the page.
        points: of all files.
        best: those on the front.
        others: trials without a file: number, state, reason and choices, as text.
        importances: of the choices, by metric.
    """
    on_front = {(point.trial, point.format) for point in best}
    shown, rows, room = _columns(points), list[list[Any]](), MOST_TEXT
    for point in sorted(
        points, key=lambda p: ((p.trial, p.format) not in on_front, -p.metrics["mAP"])
    ):
        row = _row(point, (point.trial, point.format) in on_front)
        room -= len(json.dumps(row))
        if room > 0:
            rows.append([row.get(key) for key in shown])
    rows.sort(key=lambda row: (row[0], row[1]))
    shares = [
        (NAMES.get(metric, metric), sorted(values.items(), key=lambda item: -item[1]))
        for metric, values in importances.items()
    ]
    return pages.page(
        "sweep",
        title=title,
        data={
            "columns": [(key, NAMES.get(key, key)) for key in shown],
            "rows": rows,
            "numbers": [key for key in shown if key in COLUMNS],
        },
        more=len(points) - len(rows),
        others=others[:MOST_OTHERS],
        more_others=len(others[MOST_OTHERS:]),
        importances=shares,
    )


def _columns(points: Sequence[FrontPoint]) -> list[str]:
    """Keys of a row, in order; of the numbers, those that any file has."""
    numbers = [key for key in COLUMNS if any(key in point.metrics for point in points)]
    return ["trial", "file", *numbers, "front", "state", "chosen", "run"]


def _row(point: FrontPoint, front: bool) -> dict[str, Any]:
    numbers = {key: float(f"{point.metrics[key]:.5g}") for key in COLUMNS if key in point.metrics}
    return {
        "trial": point.trial,
        "file": point.format,
        **numbers,
        "front": "yes" if front else "",
        "state": point.failed or "",
        "chosen": ", ".join(f"{key}={short(value)}" for key, value in point.params.items()),
        "run": point.run_id[:8],
    }
