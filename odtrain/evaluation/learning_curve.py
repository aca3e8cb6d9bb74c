"""What more pictures would bring: a power law through the scores of trainings on parts of the data.

The error 1 - AP falls as a n^-b with the number n of pictures (Cortes, Jackel, Solla, Vapnik and Denker 1993,
Learning curves: asymptotic values and rate of convergence; without the asymptote, which three points cannot
tell). The interval is that of the test pictures, drawn with replacement (the bootstrap of Efron and Tibshirani
1993), the same ones for every training; what chance does in a training it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from odtrain.evaluation.evaluate import match_classes
from odtrain.evaluation.matching import (
    Float64Array,
    average_precisions,
    draw_resamples,
    interval,
    mean_over_classes,
)
from odtrain.structures import Detections, GroundTruth

SMALLEST_ERROR = 1e-3
"""An error of 0 has no logarithm."""
TIMES = 2
"""How many times the pictures is what is asked for."""


@dataclass(frozen=True)
class Curve:
    """Scores by number of pictures, and where they lead; from 0 to 1.

    Attributes:
        name: `mAP`, or the class whose AP it is.
        pictures: of each training, ascending.
        scores: of each.
        expected: with `TIMES` the pictures of the last.
        low: lower end of the 95 % interval of `expected` - the last score; None where there is none.
        high: its upper end.
    """

    name: str
    pictures: tuple[int, ...]
    scores: tuple[float, ...]
    expected: float
    low: float | None
    high: float | None

    @property
    def gain(self) -> float:
        """What `TIMES` the pictures would bring."""
        return self.expected - self.scores[-1]


def learning_curves(
    truths: Sequence[GroundTruth],
    found: Mapping[int, Sequence[Detections]],
    class_names: Sequence[str],
    bootstrap: int,
    seed: int,
) -> list[Curve]:
    """The curve of mAP, then that of each class that the test pictures show, what gains most first.

    Args:
        truths: of the test pictures.
        found: number of pictures that were trained on -> what was found in each of the test pictures.
        class_names: index 0 names id 1.
        bootstrap: resamples behind the intervals; 0 for none.
        seed: of the resamples.
    """
    sizes = tuple(sorted(found))
    once = np.ones((1, len(truths)), np.int64)
    drawn = np.concatenate([once, draw_resamples(len(truths), bootstrap, seed)])
    tables = [
        average_precisions(match_classes(truths, found[size], class_names), drawn) for size in sizes
    ]  # each (K, 1 + R, T)
    overall = np.stack([mean_over_classes(table) for table in tables])
    curves = [_curve("mAP", sizes, overall)]
    by_class = [
        np.stack([table[k].mean(axis=1) for table in tables]) for k in range(len(class_names))
    ]
    named = zip(class_names, by_class, strict=True)
    classes = [_curve(name, sizes, rows) for name, rows in named if not np.isnan(rows[:, 0]).any()]
    return curves + sorted(classes, key=lambda each: -each.gain)


def _curve(name: str, sizes: tuple[int, ...], rows: Float64Array) -> Curve:
    """`rows`: (S, 1 + R) the score of each training, first on all pictures, then on each resample."""
    expected = extrapolated(sizes, rows)
    gains = (expected - rows[-1])[1:]
    gains = gains[~np.isnan(gains)]
    ends = interval(gains) if len(gains) else (None, None)
    scores = tuple(float(value) for value in rows[:, 0])
    return Curve(name, sizes, scores, float(expected[0]), *ends)


def extrapolated(sizes: Sequence[int], scores: Float64Array) -> Float64Array:
    """(R,) the score with `TIMES` the last size, of (S, R) scores: least squares of log error over log size.

    Never below the last score: more pictures do no harm.
    """
    x = np.log(np.asarray(sizes, np.float64))
    y = np.log(np.maximum(1 - scores, SMALLEST_ERROR))
    away = x - x.mean()
    slope = np.minimum((away[:, None] * (y - y.mean(axis=0))).sum(axis=0) / (away**2).sum(), 0)
    expected: Float64Array = 1 - (1 - scores[-1]) * TIMES**slope
    return expected
