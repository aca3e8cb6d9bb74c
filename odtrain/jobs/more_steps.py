"""Whether more steps would help, read from the curve of a training that has ended."""

from __future__ import annotations

import math
from collections.abc import Sequence

from odtrain.training.loop import Fitted

LEAST_POINTS = 4
"""Validations from which a curve says anything."""
LAST_PART = 2 / 3
"""Of the steps: what comes behind it is compared with what came before."""
GAIN = 0.01
"""Of mAP, below which a rise is taken for noise."""
CERTAIN = 2
"""How many times the scatter of the evaluations a change has to be."""
STILL_FALLING = 0.05
"""Of the training loss, between the last two quarters."""


def more_steps(fitted: Fitted) -> str | None:
    """In a sentence or two; None where there is nothing to go by.

    The rate has come down at the end of most schedules, so that the last rise is partly that: a longer
    training is another schedule, and this is a hint.
    """
    if len(fitted.curve) >= LEAST_POINTS:
        return " ".join(filter(None, (_of_curve(fitted), _of_averages(fitted))))
    without = "few" if fitted.curve else "no"
    return _of_losses(fitted.losses, f"With {without} validations nobody knows.")


def _of_curve(fitted: Fitted) -> str:
    bound = LAST_PART * fitted.curve[-1][0]
    before = max(score for step, score in fitted.curve if step <= bound)
    after = max((score for step, score in fitted.curve if step > bound), default=before)
    said = f"validation mAP was at most {before:.3f} in the first two thirds of the steps"
    said += f", {after:.3f} behind them"
    scatter = _scatter([score for _, score in fitted.curve])
    if abs(after - before) <= GAIN:
        return f"More steps would hardly help: {said}."
    if abs(after - before) <= CERTAIN * scatter:
        return (
            f"Whether more steps would help cannot be told: {said}, and evaluations scatter by about "
            f"{scatter:.3f}."
        )
    if after > before:
        return f"More steps would probably help: {said}."
    return f"More steps would not help, fewer do: {said}."


def _scatter(scores: Sequence[float]) -> float:
    """The standard deviation of one evaluation about a curve that is straight over three of them.

    Of independent errors of that deviation a - 2b + c has six times the variance. The first third is left
    out: there scores rise along a bend.
    """
    later = scores[len(scores) // 3 :]
    bends = [a - 2 * b + c for a, b, c in zip(later, later[1:], later[2:], strict=False)]
    return math.sqrt(sum(bend**2 for bend in bends) / (6 * len(bends)))


def _of_averages(fitted: Fitted) -> str | None:
    if fitted.last_map is None:
        return None
    averaged = fitted.curve[-1][1]
    taken = "last" if fitted.last_map >= fitted.best_map else "averaged"
    return (
        f"At the last step averaged weights scored {averaged:.3f}, the last ones {fitted.last_map:.3f}; "
        f"{taken} ones are taken."
    )


def _of_losses(losses: tuple[float, ...], doubt: str) -> str | None:
    quarter = len(losses) // 4
    if not quarter:
        return None
    last, before = losses[-quarter:], losses[-2 * quarter : -quarter]
    fell = 1 - sum(last) / sum(before)
    hint = "more steps may help" if fell > STILL_FALLING else "more steps would hardly help"
    return (
        f"The training loss fell by {fell:.0%} from the third quarter of the steps to the last: {hint}. "
        f"{doubt}"
    )
