"""Two detectors on the same pictures: which is better, and whether that is shown.

The paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8): pictures
are drawn with replacement, the same ones for both sides, and the difference of the two scores is taken
each time. What makes a picture easy or hard then counts for both and cancels, so that a difference is
shown on far fewer pictures than by two intervals that do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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

OVERALL: dict[str, slice] = {"mAP": slice(None), "mAP_50": slice(0, 1), "mAP_75": slice(5, 6)}
"""Which of COCO's ten IoU thresholds each number is the mean over."""

MOST_NAMED = 8
POINTS = 100
"""In words, mAP is given in points of 0 to 100."""


@dataclass(frozen=True)
class Difference:
    """One number of both sides. What is undefined is None.

    Attributes:
        name: of the number, or of the class whose AP it is.
        a: of the first side, from 0 to 1.
        b: of the second.
        low: lower end of the 95 % interval of b - a.
        high: upper end.
        b_better: share of the resamples in which b is above a; half of those in which they are equal.
        boxes: ground truth boxes that count.
        enough: whether there are pictures and boxes enough to show anything.
    """

    name: str
    a: float | None
    b: float | None
    low: float | None
    high: float | None
    b_better: float | None
    boxes: int
    enough: bool = True

    @property
    def change(self) -> float | None:
        """How far b is above a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out, on pictures and boxes enough."""
        known = self.low is not None and self.high is not None
        return self.enough and known and not self.low <= 0 <= self.high  # type: ignore[operator]


class Least(NamedTuple):
    """What a difference needs to be shown: with less, chance moves it more than the interval says."""

    pictures: int = 0
    boxes: int = 0


ANY = Least()


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same pictures.

    Attributes:
        pictures: how many.
        bootstrap: resamples behind the intervals.
        overall: name -> mAP, mAP_50, mAP_75.
        classes: the AP of each class, IoU 0.50 to 0.95.
        least: what a difference needed to be shown.
    """

    pictures: int
    bootstrap: int
    overall: dict[str, Difference]
    classes: tuple[Difference, ...]
    least: Least = ANY

    def in_words(self, names: Mapping[str, str] | None = None) -> str:
        """Which side is better, as `in_words` has it, and which classes have too few boxes to say."""
        said = in_words(self.overall["mAP"], self.pictures, names)
        few = [f"{row.name} ({row.boxes})" for row in self.classes if row.boxes < self.least.boxes]
        if not few:
            return said
        listed = ", ".join(few[:MOST_NAMED]) + ", ..." * (len(few) > MOST_NAMED)
        return f"{said}; fewer than {self.least.boxes} objects: {listed}"

    def metrics(self) -> dict[str, float]:
        """The numbers under the names they have in MLflow, as b - a."""
        rows = {f"compare/{name}": row for name, row in self.overall.items()}
        rows |= {f"compare/AP/{row.name}": row for row in self.classes}
        values: dict[str, float] = {}
        for name, row in rows.items():
            ends = {"": row.change, "_lo": row.low, "_hi": row.high}
            for end, value in ends.items():
                key = f"{name}{end}"
                while end and key in rows:  # a class of that name
                    key += "_"
                if value is not None:
                    values[key] = value
        return values


def compare_detections(
    truths: Sequence[GroundTruth],
    a: Sequence[Detections],
    b: Sequence[Detections],
    class_names: Sequence[str],
    bootstrap: int,
    seed: int,
    least: Least = ANY,
) -> Comparison:
    """Score two sets of detections of the same pictures, and their difference on the same resamples.

    Args:
        truths: one per picture.
        a: what the first side found in each of them.
        b: what the second did.
        class_names: index 0 names id 1; detections of other ids are left out.
        bootstrap: resamples behind the 95 % intervals; 0 for none.
        seed: of the resamples.
        least: what a difference needs to be shown.

    Raises:
        DataError: there is no picture.
    """
    pictures = len(truths)
    sides = [match_classes(truths, found, class_names) for found in (a, b)]
    once = np.ones((1, pictures), np.int64)
    drawn = draw_resamples(pictures, bootstrap if pictures > 1 else 0, seed)
    exact = [average_precisions(side, once) for side in sides]
    resampled = [average_precisions(side, drawn) for side in sides]
    boxes = [int(matches.boxes.sum()) for matches in sides[0]]
    overall = {
        name: _difference(
            name,
            [mean_over_classes(curves[:, :, at]) for curves in exact],
            [mean_over_classes(curves[:, :, at]) for curves in resampled],
            sum(boxes),
            enough=pictures >= least.pictures and sum(boxes) >= least.boxes,
        )
        for name, at in OVERALL.items()
    }
    classes = tuple(
        _difference(
            name,
            [curves[k].mean(axis=1) for curves in exact],
            [curves[k].mean(axis=1) for curves in resampled],
            boxes[k],
            enough=pictures >= least.pictures and boxes[k] >= least.boxes,
        )
        for k, name in enumerate(class_names)
    )
    return Comparison(pictures, len(drawn), overall, classes, least)


def in_words(row: Difference, pictures: int, names: Mapping[str, str] | None = None) -> str:
    """The difference as a sentence, such as `B better by 3.1 mAP [-2.0, 8.4]: not shown on 40 pictures`.

    The interval is that of the better side's lead, in points of 0 to 100.
    """
    names = names or {"a": "A", "b": "B"}
    if row.change is None:
        return f"{row.name} is undefined: there is no box to find"
    leader, sign = (names["b"], 1) if row.change >= 0 else (names["a"], -1)
    lead = abs(row.change) * POINTS
    said = (
        f"{leader} better by {lead:.1f} {row.name}"
        if row.change
        else f"no difference in {row.name}"
    )
    if row.low is None or row.high is None:
        return f"{said}; {pictures} picture{'s' * (pictures != 1)} give no interval"
    ends = sorted((sign * row.low * POINTS, sign * row.high * POINTS))
    verdict = "shown" if row.shown else "not shown"
    few = "" if row.enough else ", which are too few to show anything"
    return f"{said} [{_tenths(ends[0])}, {_tenths(ends[1])}]: {verdict} on {pictures} pictures{few}"


def _tenths(value: float) -> str:
    return f"{value + 0:.1f}".replace("-0.0", "0.0")


def _difference(
    name: str,
    exact: Sequence[Float64Array],
    resampled: Sequence[Float64Array],
    boxes: int,
    enough: bool,
) -> Difference:
    a, b = (None if np.isnan(values[0]) else float(values[0]) for values in exact)
    lead = resampled[1] - resampled[0]
    lead = lead[~np.isnan(lead)]
    if a is None or not len(lead):
        return Difference(name, a, b, None, None, None, boxes, enough)
    better = float(np.mean(lead > 0) + np.mean(lead == 0) / 2)
    return Difference(name, a, b, *interval(lead), better, boxes, enough)
