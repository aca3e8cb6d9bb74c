"""The charts of a run as the script of its report draws them: axes in words, and few points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from odtrain.evaluation.evaluate import Evaluation
from odtrain.evaluation.matching import RECALLS, Float64Array
from odtrain.media.palette import css_colour
from odtrain.reports.charts import NAMED_CURVES, weakest_first
from odtrain.structures import IntArray

MOST_POINTS = 300
"""Of a line."""
MATRIX_CLASSES = 20
"""More classes than this make no matrix that can be read: the pairs that are confused most are listed."""
MOST_PAIRS = 30
SHADES = 5

Points = Sequence[tuple[int, float]]

LOSSES = {
    "train/loss": "whole",
    "train/localization_loss": "place of the boxes",
    "train/classification_loss": "class of the boxes",
}
VALIDATION = {"val/mAP": "mAP", "val/mAP_50": "mAP at IoU 0.50"}


def training(metrics: Mapping[str, Points]) -> list[dict[str, Any]]:
    """Losses and validation over the steps, as far as there are any."""
    panels = (("loss", "loss", LOSSES), ("validation", "mAP on validation pictures", VALIDATION))
    charts = []
    for key, label, named in panels:
        lines = [
            {"name": word, "points": _thinned(metrics[name])}
            for name, word in named.items()
            if metrics.get(name)
        ]
        if lines:
            values = [value for line in lines for _, value in line["points"]]
            steps = [step for line in lines for step, _ in line["points"]]
            x = {"label": "training steps", "low": 0, "high": max(steps)}
            y = {"label": label, "low": 0, "high": max(values)}
            charts.append({"id": f"plot-{key}", "title": label, "x": x, "y": y, "lines": lines})
    return charts


def _thinned(points: Points) -> list[tuple[int, float]]:
    finite = [(step, float(f"{value:.4g}")) for step, value in points if np.isfinite(value)]
    if len(finite) <= MOST_POINTS:
        return finite
    chosen = np.linspace(0, len(finite) - 1, MOST_POINTS).round().astype(int)
    return [finite[i] for i in chosen]


def curves(evaluation: Evaluation) -> dict[str, Any]:
    """Precision over recall of the weakest classes and of the mean, at IoU .5 and over all ten."""
    every = {"IoU 0.50": evaluation.precision[0], "mean over IoU 0.50 to 0.95": None}
    charts, lines = [], 0
    for number, (title, precision) in enumerate(every.items()):
        some = evaluation.precision.mean(axis=0) if precision is None else precision
        drawn = _lines(some, evaluation.class_names)
        lines += len(drawn)
        x = {"label": "recall: share of the objects that are found", "low": 0, "high": 1}
        y = {"label": f"precision: share of what is found that is right ({title})"}
        axes = {"x": x, "y": {**y, "low": 0, "high": 1}}
        charts.append({"id": f"plot-curves-{number}", "title": title, **axes, "lines": drawn})
    note = "Each line is a class, with its average precision."
    if len(evaluation.class_names) > NAMED_CURVES:
        note = f"The {NAMED_CURVES} weakest classes, with their average precision, and the mean of all."
    return {"charts": charts, "lines": lines, "note": note}


def _lines(precision: Float64Array, names: Sequence[str]) -> list[dict[str, Any]]:
    """(R, K) precision as lines; classes without boxes have none."""
    present, ap = weakest_first(precision), precision.mean(axis=0)
    lines: list[dict[str, Any]] = [
        {
            "name": f"{names[k]} {ap[k]:.3f}",
            "colour": css_colour(int(k) + 1),
            "points": _points(precision[:, k]),
        }
        for k in present[:NAMED_CURVES]
    ]
    if len(present) > 1:
        mean = precision[:, np.sort(present)].mean(axis=1)
        name = f"mean of {len(present)} classes {mean.mean():.3f}"
        lines.append({"name": name, "points": _points(mean), "thick": True})
    return lines


def _points(precision: Float64Array) -> list[tuple[float, float]]:
    """(R,) precision, without what lies on the line between its neighbours."""
    y = np.round(precision, 3)
    kept = np.ones(len(y), bool)
    kept[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return [(round(float(RECALLS[i]), 2), float(y[i])) for i in np.flatnonzero(kept)]


def confusions(evaluation: Evaluation) -> dict[str, Any]:
    """What is taken for what: a matrix of few classes, the commonest pairs of many."""
    matrix, names = evaluation.confusion, evaluation.class_names
    judged = f"Boxes at IoU 0.50 and scores from {evaluation.threshold:g} on."
    if len(names) > MATRIX_CLASSES:
        note = f"{judged} The pairs of classes that are confused most."
        return {"note": note, "rows": [], "pairs": _pairs(matrix, names)}
    note = f"{judged} Darker is a larger share of the row; outlined is right."
    rows = [
        {"name": name, "cells": _cells(matrix[k], k)}
        for k, name in enumerate([*names, "nothing there"])
    ]
    return {"note": note, "rows": rows, "found": [*names, "missed"], "pairs": []}


def _cells(row: IntArray, own: int) -> list[dict[str, Any]]:
    last, total = len(row) - 1, max(1, int(row.sum()))
    shades = np.ceil(SHADES * row / total).astype(int) if own < last else np.zeros_like(row)
    return [
        {
            "count": int(count),
            "kind": f"{f'h{shades[k]}' if shades[k] else ''}{' right' if k == own < last else ''}".strip(),
        }
        for k, count in enumerate(row)
    ]


def _pairs(matrix: IntArray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of two classes; what was missed, or was nothing, is no confusion."""
    wrong = matrix[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    return [
        {
            "name": names[i],
            "found": names[j],
            "count": int(wrong[i, j]),
            "share": f"{wrong[i, j] / matrix[i].sum():.0%}",
        }
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
