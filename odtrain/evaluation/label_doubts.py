"""Which labels a detector doubts: overlooked objects, badly placed boxes, wrong classes.

The three kinds are those of ObjectLab (Tkachenko, Thyagarajan and Mueller 2023, arXiv:2309.00832): a sure
detection without a label near it, a label that the detection of its object places elsewhere, and a label at
whose place a sure detection has another class. ObjectLab asks whether a detection is sure by fixed scores (0.95
and 0.5), which suit softmax networks that are sure of much; a detector of few pictures is seldom so sure. Here
the score weighs in instead, so that doubts are ordered however sure the detector is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from odtrain.box_matching import match_boxes
from odtrain.structures import Detections, FloatArray, GroundTruth, IntArray, pairwise_iou

OVERLOOKED, PLACED, CLASSED = KINDS = ("overlooked", "badly placed", "wrong class")
SAME_PLACE = 0.1
"""Overlap (IoU) from which a detection is about a label's object; a box that is off by half a side has 0.33."""
SAME_OBJECT = 0.5
"""Overlap (IoU) of detections that show one object: the best of them speaks for it."""


@dataclass(frozen=True)
class Doubt:
    """One label, or one that is missing, that a detector sees otherwise.

    Attributes:
        kind: one of `KINDS`.
        picture: its number.
        label: the label's place in the picture's ground truth; None where an object was overlooked.
        found: the detection's place in the picture's detections.
        doubt: 0 to 1, how much the detection speaks against the label.
    """

    kind: str
    picture: int
    label: int | None
    found: int
    doubt: float


def label_doubts(truths: Sequence[GroundTruth], found: Sequence[Detections]) -> list[Doubt]:
    """All doubts, the strongest first.

    Args:
        truths: what people said is in each picture.
        found: what a detector that was not trained on it finds there, at low scores too.
    """
    doubts = [
        doubt
        for picture, (truth, seen) in enumerate(zip(truths, found, strict=True))
        for doubt in _of_picture(picture, truth, seen)
    ]
    return sorted(doubts, key=lambda each: -each.doubt)


def _of_picture(picture: int, truth: GroundTruth, found: Detections) -> Iterator[Doubt]:
    ious = pairwise_iou(truth.boxes, found.boxes)  # (L, D)
    yield from _overlooked(picture, found, ious)
    yield from _badly_placed(picture, truth, found, ious)
    yield from _wrong_class(picture, truth, found, ious)


def _overlooked(picture: int, found: Detections, ious: FloatArray) -> Iterator[Doubt]:
    """Detections by score times what no label of any class covers of them; one an object."""
    alone = 1 - ious.max(axis=0, initial=0)  # (D,)
    doubts = found.scores * alone
    shown: list[int] = []
    for place in np.argsort(-doubts, kind="stable").tolist():
        here = found.boxes[place : place + 1]
        again = bool(shown) and pairwise_iou(here, found.boxes[shown]).max() >= SAME_OBJECT
        if alone[place] > 1 - SAME_PLACE and not again:
            shown.append(place)
            yield Doubt(OVERLOOKED, picture, None, place, float(doubts[place]))


def _badly_placed(
    picture: int, truth: GroundTruth, found: Detections, ious: FloatArray
) -> Iterator[Doubt]:
    """Each label by what its object's detection does not share with it, times the root of the score.

    The root, since a detector places an object well long before it is sure of it.

    Which detection that is: the surest of the label's class that overlaps it and is not another label's.
    """
    for label, place in enumerate(partners(truth, found).tolist()):
        if place >= 0:
            doubt = float(np.sqrt(found.scores[place]) * (1 - ious[label, place]))
            yield Doubt(PLACED, picture, label, place, doubt)


def partners(truth: GroundTruth, found: Detections) -> IntArray:
    """(L,) the detection that speaks for each label, -1 where there is none."""
    same = truth.classes[:, None] == found.classes[None]
    meant = np.where(same, pairwise_iou(truth.boxes, found.boxes), 0)
    return match_boxes(meant, SAME_PLACE, order="overlaps", rank=meant * found.scores)


def _wrong_class(
    picture: int, truth: GroundTruth, found: Detections, ious: FloatArray
) -> Iterator[Doubt]:
    """Each label by how much surer another class is at its place than its own.

    Sure of a class at a place is the largest product of score and overlap.
    """
    if not len(found.scores):
        return
    weight = ious * found.scores  # (L, D)
    same = truth.classes[:, None] == found.classes[None]
    other = np.where(same, 0, weight)
    own = np.where(same, weight, 0).max(axis=1, initial=0)
    for label, place in enumerate(other.argmax(axis=1).tolist()):
        doubt = float(other[label, place] - own[label])
        if doubt > 0 and ious[label, place] >= SAME_OBJECT:
            yield Doubt(CLASSED, picture, label, place, doubt)
