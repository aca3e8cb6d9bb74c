"""The class ids that a file gives: whether they are the data's, and whether another order fits better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from odtrain.evaluation.saved_detections import Kept
from odtrain.structures import Detections, GroundTruth, IntArray, LabelledSplit, pairwise_iou

SCORE = 0.1
"""Detections below it say nothing of the order of classes and boxes."""
MOST_PERMUTED = 6
"""Up to so many classes all orders are tried; with more, each class goes where most of it is found."""


def strange_class(found: Sequence[Detections], count: int) -> int | None:
    """A class id that was found and is none of `count`."""
    ids = np.unique(np.concatenate([each.classes for each in found] or [np.zeros(0, np.int64)]))
    strange = ids[(ids < 1) | (ids > count)]
    return int(strange[0]) if len(strange) else None


def of_known_classes(kept: Kept, count: int) -> Kept:
    """What a file found, without what is of no class of the data."""
    known = [(each.classes >= 1) & (each.classes <= count) for each in kept.detections]
    found = [
        Detections(each.boxes[here], each.scores[here], each.classes[here])
        for each, here in zip(kept.detections, known, strict=True)
    ]
    return replace(kept, detections=found)


def likely_order(split: LabelledSplit, found: Sequence[Detections]) -> tuple[int, ...] | None:
    """For each class id in turn, the id of what is really there; None if that is the id itself."""
    met = _confusion(split.truths, found, len(split.class_names))
    count = len(met)
    if count <= MOST_PERMUTED:
        order = max(permutations(range(count)), key=lambda each: met[range(count), each].sum())
    else:
        order = tuple(int(row.argmax()) if row.any() else i for i, row in enumerate(met))
    return None if order == tuple(range(count)) else tuple(place + 1 for place in order)


def _confusion(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: int
) -> IntArray:
    """(K, K) how often a detection of the row's class lies on a box of the column's."""
    met = np.zeros((classes, classes), np.int64)
    for truth, each in zip(truths, found, strict=True):
        sure = each.above(SCORE)
        if not len(sure) or not len(truth.classes):
            continue
        overlaps = pairwise_iou(sure.boxes, truth.boxes)
        best = overlaps.argmax(axis=1)
        hit = (overlaps.max(axis=1) >= 0.5) & (sure.classes >= 1) & (sure.classes <= classes)
        np.add.at(met, (sure.classes[hit] - 1, truth.classes[best[hit]] - 1), 1)
    return met
