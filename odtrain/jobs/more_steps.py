"""Whether more steps would help, read from the curve of a training that has ended."""

from __future__ import annotations

from odtrain.training.loop import Fitted

LEAST_POINTS = 4
"""Validations from which a curve says anything."""
LAST_PART = 2 / 3
"""Of the steps: what comes behind it is compared with what came before."""
GAIN = 0.01
"""Of mAP, below which a rise is taken for noise."""
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
    if after - before > GAIN:
        return f"More steps would probably help: {said}."
    if before - after > GAIN:
        return f"More steps would not help, fewer do: {said}."
    return f"More steps would hardly help: {said}."


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
