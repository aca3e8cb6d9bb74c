"""A comparison as one HTML file: where the two differ in pictures, and every number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odtrain import __version__
from odtrain.config.schema import Runs
from odtrain.errors import DataError, TrackingError
from odtrain.evaluation import saved_detections
from odtrain.evaluation.error_analysis import FOUND, judge_picture
from odtrain.evaluation.paired_bootstrap import Comparison, Difference
from odtrain.media.palette import css_colour
from odtrain.model_source import run_file
from odtrain.reports import shots
from odtrain.reports.pages import page
from odtrain.structures import Detections, GroundTruth, LabelledSplit

MOST_PAIRS = 6
THRESHOLD = 0.5
"""Score from which boxes are shown at first, and count where the two differ."""
SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""What the axis of differences may end at."""
WORDS = {"good": "B is better", "bad": "A is better", "none": "not shown"}


def compare_page(
    answer: str,
    named: Sequence[str],
    comparison: Comparison,
    split: LabelledSplit,
    found: Sequence[Sequence[Detections]],
    pictures: Mapping[int, Path],
    files: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """The page.

    Args:
        answer: in a sentence.
        named: what A and what B is.
        comparison: of `found`.
        split: the pictures that both have looked at.
        found: by A and by B in each of them, with the ids of the split's classes.
        pictures: row of the split -> a file of that picture, as far as there are any.
        files: `columns` and `rows` of the table of exported files.
        notes: what to know when reading the numbers.
    """
    rows = [_row(each, None) for each in comparison.overall.values()]
    classes = [_row(row, css_colour(number)) for number, row in enumerate(comparison.classes, 1)]
    tables = [
        {"id": "overall", "title": "All classes together", "of": "number", "rows": rows},
        {"id": "by-class", "title": "Class by class", "of": "class", "rows": classes},
    ]
    pairs = _pairs(split, found, pictures)
    drawn = [shot for pair in pairs for shot in pair]
    headline, _, more = answer.partition(": ")
    return page(
        "compare",
        title=f"odtrain compare: {headline}",
        headline=headline[:1].upper() + headline[1:],
        more=more,
        a=named[0],
        b=named[1],
        notes=notes,
        threshold=THRESHOLD,
        pairs=pairs,
        tables=tables if len(classes) > 1 else tables[:1],
        scale=_scale([*rows, *classes]),
        files=files,
        shown=shots.for_script(drawn, split.class_names),
        footer=f"{comparison.pictures} pictures, {comparison.bootstrap} resamples. "
        f"Written by odtrain {__version__}.",
    )


def pictures_of(
    runs_of_sides: Sequence[str | None], split: LabelledSplit, runs: Runs
) -> dict[int, Path]:
    """Row of `split` -> a picture that one of the runs kept of it."""
    kept = dict[str, Path]()
    for run_id in filter(None, runs_of_sides):
        try:
            folder = run_file(run_id, f"eval/{shots.FOLDER}", runs)
            labels = f"eval/{saved_detections.FOLDER}/{saved_detections.LABELS}"
            keys = saved_detections.read_labelled(run_file(run_id, labels, runs).parent).keys
        except (DataError, TrackingError):
            continue
        files = shots.kept_pictures(folder)
        kept |= {keys[row]: file for row, file in files.items() if row < len(keys)}
    return {row: kept[key] for row, key in enumerate(split.keys) if key in kept}


def _f1(truth: GroundTruth, found: Detections) -> float:
    kinds = judge_picture(truth, found.above(THRESHOLD)).kinds
    several = len(kinds) + len(truth.classes)
    return 2 * kinds.count(FOUND) / several if several else 1.0


def _row(row: Difference, colour: str | None) -> dict[str, Any]:
    known = row.low is not None and row.high is not None
    kind = "none" if not row.shown else "good" if (row.change or 0) > 0 else "bad"
    interval = f"{row.low:+.3f} to {row.high:+.3f}" if known else "–"
    change = "–" if row.change is None else f"{row.change:+.3f}"
    sides = ["–" if value is None else f"{value:.3f}" for value in (row.a, row.b)]
    return {
        "name": row.name,
        "colour": colour,
        "cells": [*sides, change, interval],
        "change": row.change,
        "low": row.low,
        "high": row.high,
        "kind": kind,
        "words": WORDS[kind] if row.enough else "too few",
        "better": "–" if row.b_better is None else f"{row.b_better:.0%}",
        "boxes": row.boxes,
    }


def _scale(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The ends of the axis, round and as far from 0 on both sides, that hold every interval."""
    ends = [abs(row[key] or 0) for row in rows for key in ("change", "low", "high")]
    most = next((end for end in SCALES if end >= max(ends)), SCALES[-1])
    return -most, most


def _pairs(
    split: LabelledSplit, found: Sequence[Sequence[Detections]], pictures: Mapping[int, Path]
) -> list[list[dict[str, Any]]]:
    """What A and B found in the pictures in which they differ most, side by side."""

    def apart(row: int) -> float:
        a, b = (_f1(split.truths[row], side[row]) for side in found)
        return abs(a - b)

    order = sorted(pictures, key=lambda row: (-apart(row), row))[:MOST_PAIRS]
    return [
        [
            shots.shot(
                2 * place + side,
                f"{letter}, {split.truths[row].name}",
                pictures[row],
                split.truths[row],
                found[side][row],
                THRESHOLD,
            )
            for side, letter in enumerate("AB")
        ]
        for place, row in enumerate(order)
    ]
