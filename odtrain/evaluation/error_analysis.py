"""What kinds of mistakes a detector makes, and the mAP at IoU .5 that each kind costs.

The kinds and their cost are those of D. Bolya et al., "TIDE: A General Toolbox for Identifying Object
Detection Errors", ECCV 2020: the cost of a kind is what mAP would gain if its mistakes alone were put
right. Costs do not add up to what is missing to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odtrain.box_matching import match_boxes
from odtrain.evaluation.matching import BoolArray, Float64Array, Matches, average_precision
from odtrain.structures import Detections, GroundTruth, IntArray, pairwise_iou

FOREGROUND, BACKGROUND = 0.5, 0.1
"""Overlaps (IoU) from which a detection is on an object, and up to which it is on none (TIDE, 2.2)."""

MISTAKE_KINDS = {
    "missed": "an object that nothing was found on",
    "wrong class": "in the right place, under another name",
    "wrong place": f"the right name, overlapping its object by {BACKGROUND:g} to {FOREGROUND:g} only",
    "wrong class and place": "near an object of another class",
    "duplicate": "found once more",
    "background": "where there is nothing",
}
FOUND = "found"


@dataclass(frozen=True)
class Mistake:
    """One kind of mistakes.

    Attributes:
        kind: a key of `MISTAKE_KINDS`.
        count: how often it was made above the score threshold.
        cost: mAP at IoU .5, 0 to 1, that would be gained without it, over all scores.
    """

    kind: str
    count: int
    cost: float


@dataclass(frozen=True, eq=False)
class Judged:
    """What became of the detections and boxes of one picture.

    Attributes:
        kinds: (D,) `found` or a kind of mistake.
        targets: (D,) the box a detection found, or would be on if its mistake were put right; -1 where
            there is none, or one that is found better already.
        missed: (G,) boxes that no detection found or would have found.
    """

    kinds: list[str]
    targets: IntArray
    missed: BoolArray


def count_mistakes(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    ids: Sequence[int],
    threshold: float,
) -> list[Mistake]:
    """Every kind of `MISTAKE_KINDS` with its count and cost, the most expensive first.

    Args:
        truths: one per picture.
        detections: of the same pictures in the same order, at all scores.
        ids: the classes that count, by label-map id.
        threshold: the score from which mistakes are counted.
    """
    every = [judge_picture(truth, found) for truth, found in zip(truths, detections, strict=True)]
    base = _map_50(truths, detections, every, ids, fixed=None)
    counts = _count(truths, [found.above(threshold) for found in detections])
    mistakes = [
        Mistake(kind, counts[kind], _map_50(truths, detections, every, ids, fixed=kind) - base)
        for kind in MISTAKE_KINDS
    ]
    return sorted(mistakes, key=lambda mistake: -mistake.cost)


def _count(truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> dict[str, int]:
    counts = dict.fromkeys([*MISTAKE_KINDS, FOUND], 0)
    for truth, found in zip(truths, detections, strict=True):
        judged = judge_picture(truth, found)
        for kind in judged.kinds:
            counts[kind] += 1
        counts["missed"] += int(judged.missed.sum())
    return counts


def judge_picture(truth: GroundTruth, found: Detections) -> Judged:
    """Say of each detection of a picture, best score first, what it is.

    As in TIDE: a detection that found nothing is in the wrong place if it overlaps a box of its class a
    little, else of the wrong class if it lies on a box of another, else a duplicate, and so on.
    """
    ious = pairwise_iou(found.boxes, truth.boxes).astype(np.float64)  # (D, G)
    same = found.classes[:, None] == truth.classes[None, :]
    targets = match_boxes(np.where(same, ious, 0), FOREGROUND, of_equals="last")  # as COCO
    taken = np.isin(np.arange(len(truth.classes)), targets)
    meant = taken.copy()
    kinds = []
    for d in range(len(found)):
        kind, target = (FOUND, -1) if targets[d] >= 0 else _mistake(ious[d], same[d], taken)
        kinds.append(kind)
        if target >= 0 and not meant[target]:
            targets[d], meant[target] = target, True
    return Judged(kinds, targets, ~meant)


def _mistake(iou: Float64Array, same: BoolArray, taken: BoolArray) -> tuple[str, int]:
    """The kind of mistake, and the box that was meant or -1, from the (G,) overlaps of a detection."""
    if not len(iou):
        return "background", -1
    own, other = np.where(same, iou, 0), np.where(same, 0, iou)
    if BACKGROUND <= own.max() < FOREGROUND:
        return "wrong place", int(own.argmax())
    if other.max() >= FOREGROUND:
        return "wrong class", int(other.argmax())
    if np.where(taken, own, 0).max() >= FOREGROUND:
        return "duplicate", -1
    return ("background" if iou.max() <= BACKGROUND else "wrong class and place"), -1


def _map_50(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    judged: Sequence[Judged],
    ids: Sequence[int],
    fixed: str | None,
) -> float:
    """What mAP at IoU .5 would be with the mistakes of one kind put right."""
    rows = [
        row
        for truth, found, each in zip(truths, detections, judged, strict=True)
        for row in _after(truth, found, each, fixed)
    ]
    classes, scores, hits = (np.array([row[i] for row in rows]) for i in range(3))
    values = []
    for class_id in ids:
        boxes = sum(
            int((truth.classes == class_id).sum())
            - (int(each.missed[truth.classes == class_id].sum()) if fixed == "missed" else 0)
            for truth, each in zip(truths, judged, strict=True)
        )
        if not any(np.any(truth.classes == class_id) for truth in truths):
            continue
        own = classes == class_id if rows else np.zeros(0, bool)
        values.append(_ap_50(scores[own].astype(np.float64), hits[own].astype(bool), boxes))
    return float(np.mean(values)) if values else 0.0


def _after(
    truth: GroundTruth, found: Detections, judged: Judged, fixed: str | None
) -> Iterator[tuple[int, float, bool]]:
    """(class, score, whether it counts as found) of each detection that is left.

    Put right, a detection moves to the box that was meant; where there is none left, it goes.
    """
    for d, kind in enumerate(judged.kinds):
        class_id, score, target = (
            int(found.classes[d]),
            float(found.scores[d]),
            int(judged.targets[d]),
        )
        if kind == FOUND or kind != fixed:
            yield class_id, score, kind == FOUND
        elif target >= 0:
            yield int(truth.classes[target]), score, True


def _ap_50(scores: Float64Array, hits: NDArray[np.bool_], boxes: int) -> float:
    """Average precision of one class; 1 where all its boxes were taken for missed and put right."""
    if not boxes:
        return 1.0
    order = np.argsort(-scores, kind="stable")
    rows = np.broadcast_to(hits[order], (10, len(hits)))
    matches = Matches(np.zeros(len(hits), np.int64), scores[order], rows, np.array([boxes]))
    return float(average_precision(matches, np.ones((1, 1), np.int64))[0, 0])
