"""A sweep as people look at it: tables, plots, and a page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from odtrain.io import markdown
from odtrain.reports import pages
from odtrain.sweep.pareto import FrontPoint, short

COLUMNS = ("mAP", "mAP_lo", "mAP_hi", "mAP_50", "latency_ms_p50", "size_mb", "peak_memory_mb")

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
        own = [point for point in points if point.format == name]
        axes.scatter(
            [point.metrics["latency_ms_p50"] for point in own],
            [point.metrics["mAP"] for point in own],
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
    axes.set_xlabel("latency, ms (p50)")
    axes.set_ylabel("mAP, validation split")
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
    rows = [
        {
            "trial": point.trial,
            "file": point.format,
            **{key: point.metrics[key] for key in COLUMNS if key in point.metrics},
            "front": (point.trial, point.format) in on_front,
            "state": point.failed or "",
            "chosen": ", ".join(f"{key}={short(value)}" for key, value in point.params.items()),
            "run": point.run_id[:8],
        }
        for point in points
    ]
    content = {"rows": rows, "others": list(others), "importances": dict(importances)}
    return pages.page("sweep.html", title=title, data=content)
