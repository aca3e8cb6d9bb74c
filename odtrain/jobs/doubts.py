"""What makes a finished training doubtful, and what to do about it: said when it ends and on its page."""

from __future__ import annotations

from dataclasses import dataclass

from odtrain.evaluation.evaluate import quick_map
from odtrain.jobs.context import RunContext, Split
from odtrain.jobs.steps import detect_of
from odtrain.models.ssd import SSD
from odtrain.system.progress import doing
from odtrain.training.loop import Fitted

LEARNED_PICTURES = 50
"""Training pictures that a trained network is scored on, evenly chosen."""
NEXT_TO_NOTHING = 0.05
"""mAP below it is that of a detector that nobody would use."""
LARGEST_GAP = 0.3
"""mAP on training pictures above that on others by more: they were learned by heart."""


@dataclass(frozen=True)
class Scores:
    """mAP of one training, from 0 to 1.

    Attributes:
        learned: on pictures that it was trained on, as they are.
        held_out: on the validation pictures, or the test ones where there are none of those.
        on: `validation` or `test`.
    """

    learned: float
    held_out: float
    on: str


@doing("Looking at the training pictures again")
def learned_map(context: RunContext, detector: SSD) -> float:
    """MAP on some of the training pictures, logged as `train/mAP`."""
    split, detect = Split.read(context.dataset, "train"), detect_of(detector, context.config)
    rows = split.images.spread_rows(LEARNED_PICTURES)
    found = [detect(split.images[i]) for i in rows]
    truths = [split.truths[i] for i in rows]
    score = quick_map(truths, found, context.dataset.class_names).get("mAP", 0.0)
    context.tracker.log({"train/mAP": score}, context.step)
    return score


def scores(learned: float, fitted: Fitted, tested: float) -> Scores:
    """What is compared; `tested` is the mAP on the test pictures."""
    if fitted.best_map >= 0:
        return Scores(learned, fitted.best_map, "validation")
    return Scores(learned, tested, "test")


def doubts(found: Scores, fitted: Fitted, steps: int, schedule: str) -> list[str]:
    """A sentence or two for each reason to doubt the result, with what to do.

    Args:
        found: its scores.
        fitted: how it ended.
        steps: that it was to train.
        schedule: of the learning rate, `train.schedule`.
    """
    return [
        text
        for text in (_nothing(found), _gap(found), _ended_early(fitted, steps, schedule))
        if text
    ]


def _nothing(found: Scores) -> str | None:
    if found.held_out >= NEXT_TO_NOTHING:
        return None
    said = f"mAP {found.held_out:.3f} on the {found.on} pictures is next to nothing"
    if found.learned >= NEXT_TO_NOTHING + LARGEST_GAP:
        return f"{said}."
    return (
        f"{said}, and on the training pictures it is {found.learned:.3f}. Train longer (train.steps), start "
        "from weights of COCO (experiment=small_data), and see what odtrain check says of the labels."
    )


def _gap(found: Scores) -> str | None:
    if found.learned - found.held_out <= LARGEST_GAP:
        return None
    return (
        f"mAP {found.learned:.3f} on training pictures, {found.held_out:.3f} on {found.on} pictures: it was "
        "learned by heart. More pictures help most; then augment=colour, train.freeze, fewer train.steps."
    )


def _ended_early(fitted: Fitted, steps: int, schedule: str) -> str | None:
    if fitted.stopped is None or fitted.step >= steps:
        return None
    return (
        f"Training ended after step {fitted.step} of {steps} ({fitted.stopped}), before the learning rate had "
        f"come down ({schedule}). train.steps={fitted.step} makes the schedule end there; or give it more time."
    )
