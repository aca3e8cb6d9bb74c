"""When a training can hardly come to lie on the front any more: the rule of early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIKE, FEWEST_ALIKE = 0.25, 4
"""Of the finished trainings, the share whose score was nearest at that point, and how many at least: what
a training gains depends on where it is."""


@dataclass(frozen=True)
class Finished:
    """A file of a training that went to its end.

    Attributes:
        curve: (share of the steps, validation mAP) of every evaluation of the training.
        best: mAP of the file.
        latency_ms: of the file.
    """

    curve: tuple[tuple[float, float], ...]
    best: float
    latency_ms: float


@dataclass(frozen=True)
class Rule:
    """How much is granted to a training before it counts as hopeless.

    Attributes:
        gain: which of the gains that finished trainings made is granted: 1 is the largest, 0.5 the median.
        margin: mAP on top of it, 0 to 1.
        noise: share of a latency by which timing one file again may differ.
        start: share of the steps before which nothing is stopped: curves that have hardly risen tell nothing.
    """

    gain: float
    margin: float
    noise: float
    start: float = 0.0


def hopeless(
    share: float, score: float, latency_ms: float, finished: Sequence[Finished], rule: Rule
) -> str | None:
    """Why a training can hardly come to lie on the front of mAP and latency, or None.

    The optimistic end is the mAP so far, plus what the finished trainings that were about as good there
    gained from their evaluation nearest to `share` to their files, plus the margin. If a file that is
    no slower, within the noise of timing, has at least that already, going on would be in vain.

    Args:
        share: of the steps that are done, 0 to 1.
        score: validation mAP now.
        latency_ms: of the quickest file of this network.
        finished: files of the study; the mAP and the latency are of one and the same file.
        rule: how much is granted.
    """
    curves = [one for one in finished if one.curve]
    alike = sorted(curves, key=lambda one: abs(_at(one.curve, share) - score))
    alike = alike[: max(FEWEST_ALIKE, round(ALIKE * len(alike)))]
    gains = sorted(one.best - _at(one.curve, share) for one in alike)
    if not gains or share < rule.start:
        return None
    optimistic = score + max(0.0, _quantile(gains, rule.gain)) + rule.margin
    no_slower = latency_ms * (1 + rule.noise)
    better = [one for one in finished if one.latency_ms <= no_slower and one.best >= optimistic]
    if not better:
        return None
    best = max(better, key=lambda one: one.best)
    return (
        f"at most {optimistic:.3f} mAP to be expected, and a network of {best.latency_ms:.1f} ms "
        f"has {best.best:.3f} already"
    )


def _at(curve: Sequence[tuple[float, float]], share: float) -> float:
    return min(curve, key=lambda place: abs(place[0] - share))[1]


def _quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values, between two of them on the straight line."""
    place = share * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])
