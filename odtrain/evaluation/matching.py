"""Which detections met which ground truth, and what average precision follows from it.

COCO matches every picture by itself, so pictures are matched once and the average precision of any
resample of them follows from counts. A comparison of two runs can draw the same resamples for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from odtrain.box_matching import match_boxes
from odtrain.structures import Detections, GroundTruth, IntArray, pairwise_iou

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

IOU_THRESHOLDS: Float64Array = np.linspace(0.5, 0.95, 10)
"""COCO's ten, .50:.05:.95."""

RECALLS: Float64Array = np.linspace(0.0, 1.0, 101)
"""COCO's recall levels, at which precision is averaged."""

CELLS_AT_ONCE = 8_000_000
"""Bound on resamples x detections held in memory at a time."""


@dataclass(frozen=True, eq=False)
class Matches:
    """How the detections of one class met its ground truth, over all pictures.

    Attributes:
        pictures: (D,) index of the picture each detection is in, best score first.
        scores: (D,) their scores.
        hits: (T, D) whether the detection found a box at `IOU_THRESHOLDS[t]`.
        boxes: (P,) ground truth boxes of the class in each picture.
    """

    pictures: IntArray
    scores: Float64Array
    hits: BoolArray
    boxes: IntArray


class PictureMatches(NamedTuple):
    """How the detections of one class met its ground truth in one picture.

    Attributes:
        picture: its index.
        scores: (D,) best first.
        hits: (T, D) as in `Matches`.
    """

    picture: int
    scores: Float64Array
    hits: BoolArray


@dataclass(frozen=True, eq=False)
class Pairing:
    """What became of the boxes and detections of one picture above a score threshold.

    Attributes:
        truth: (N,) row of the confusion matrix of each pair, missed box or needless detection.
        found: (N,) its column. The last row and column are the background.
    """

    truth: IntArray
    found: IntArray

    def counts(self, background: int) -> tuple[int, int, int]:
        """How many boxes were found, were missed, and detections that found none of their class."""
        right = int(np.sum(self.truth == self.found))
        return (
            right,
            int(np.sum(self.truth != background)) - right,
            int(np.sum(self.found != background)) - right,
        )


def match_picture(ious: Float64Array) -> BoolArray:
    """COCO's greedy matching of one picture and class.

    Args:
        ious: (D, G) overlap of each detection, best score first, with each ground truth box.

    Returns:
        (T, D) whether the detection takes the free box it overlaps most, at least by the threshold;
        of equal overlaps the later box is taken, as pycocotools does.
    """
    return match_boxes(ious, IOU_THRESHOLDS, of_equals="last") >= 0


def join(pictures: Sequence[PictureMatches], boxes: IntArray) -> Matches:
    """One class's pictures together, best score first and, where equal, in the pictures' order.

    Args:
        pictures: those with detections of the class, in ascending order.
        boxes: (P,) ground truth boxes of the class in each picture.
    """
    scores = np.concatenate([np.zeros(0), *(p.scores for p in pictures)])
    origin = np.repeat([p.picture for p in pictures], [len(p.scores) for p in pictures])
    none = np.zeros((len(IOU_THRESHOLDS), 0), bool)
    hits = np.concatenate([none, *(p.hits for p in pictures)], axis=1)
    order = np.argsort(-scores, kind="stable")
    return Matches(origin.astype(np.int64)[order], scores[order], hits[:, order], boxes)


def draw_resamples(pictures: int, count: int, seed: int) -> IntArray:
    """How often each picture is in each of `count` resamples with replacement: (count, pictures).

    The same arguments give the same resamples, so that two runs on the same pictures can be
    compared pair by pair.
    """
    rng = np.random.default_rng(seed)
    drawn: IntArray = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=count)
    return drawn


def average_precision(matches: Matches, weights: IntArray) -> Float64Array:
    """COCO's 101-point interpolated average precision of one class for weighted pictures.

    Args:
        matches: of the class.
        weights: (B, P) how often each picture counts.

    Returns:
        (B, T) from 0 to 1, NaN where the weighted pictures hold no box of the class.
    """
    size = max(1, CELLS_AT_ONCE // max(1, len(matches.scores)))
    chunks = [weights[start : start + size] for start in range(0, len(weights), size)]
    return np.concatenate([_average_precision(matches, chunk) for chunk in chunks])


def mean_average_precision(classes: Sequence[Matches], weights: IntArray) -> Float64Array:
    """COCO's mAP: the mean over IoU thresholds and those classes that have boxes.

    Args:
        classes: matches of each class.
        weights: (B, P) how often each picture counts.

    Returns:
        (B,) from 0 to 1, NaN where the weighted pictures hold no box at all.
    """
    by_class = np.stack([average_precision(m, weights).mean(axis=1) for m in classes])  # (K, B)
    present = ~np.isnan(by_class)
    total = np.where(present, by_class, 0).sum(axis=0)
    count = present.sum(axis=0)
    mean: Float64Array = np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)
    return mean


def interval(values: Float64Array, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval that holds `level` of the (B,) values; NaN values are left out."""
    low, high = np.quantile(values[~np.isnan(values)], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def best_f1(matches: Matches) -> tuple[float, float, float] | None:
    """The score threshold with the highest F1 at IoU .5, and precision and recall there.

    Returns:
        None where the class has no box or no detection finds one.
    """
    hits, boxes = matches.hits[0], int(matches.boxes.sum())
    if not hits.any():
        return None
    found = np.cumsum(hits)
    f1 = 2 * found / (np.arange(1, len(hits) + 1) + boxes)
    last_of_equals = np.append(np.diff(matches.scores) != 0, True)
    best = int(np.argmax(np.where(last_of_equals, f1, -1)))
    return float(matches.scores[best]), float(found[best] / (best + 1)), float(found[best] / boxes)


def at_precision(matches: Matches, precision: float) -> tuple[float, float, float] | None:
    """The lowest score threshold with at least `precision` at IoU .5, and precision and recall there.

    Returns:
        None where the class has no box, or no threshold is precise enough.
    """
    hits, boxes = matches.hits[0], int(matches.boxes.sum())
    if not (boxes and hits.any()):
        return None
    found = np.cumsum(hits)
    reached = found / np.arange(1, len(hits) + 1)
    last_of_equals = np.append(np.diff(matches.scores) != 0, True)
    enough = np.flatnonzero(last_of_equals & (reached >= precision))
    if not len(enough):
        return None
    last = int(enough[-1])
    return float(matches.scores[last]), float(reached[last]), float(found[last] / boxes)


def pair_up(truth: GroundTruth, detections: Detections, ids: IntArray) -> Pairing:
    """Boxes and detections of one picture paired at IoU .5, for the confusion matrix.

    Detections of a box's own class come first, best score first, as in COCO; what is left over is
    then paired across classes, which are the confusions. The rest is missed, or background.

    Args:
        truth: what is there.
        detections: those that count, best score first.
        ids: (K,) ascending class ids, the rows and columns of the matrix.
    """
    rows = np.searchsorted(ids, truth.classes)
    columns = np.searchsorted(ids, detections.classes)
    ious = pairwise_iou(detections.boxes, truth.boxes)  # (D, G)
    partner = match_boxes(np.where(columns[:, None] == rows[None, :], ious, 0))
    left = (partner < 0)[:, None] & ~np.isin(np.arange(len(rows)), partner)  # (D, G)
    partner = np.maximum(partner, match_boxes(np.where(left, ious, 0)))
    background = len(ids)
    own_rows = np.append(rows, background)[partner]  # partner -1 takes the background
    missed = rows[~np.isin(np.arange(len(rows)), partner)]
    return Pairing(
        np.concatenate([own_rows, missed]),
        np.concatenate([columns, np.full(len(missed), background)]),
    )


def confusion_matrix(pairings: Sequence[Pairing], classes: int) -> IntArray:
    """(classes + 1, classes + 1) counts: rows what is there, columns what was found."""
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for pairing in pairings:
        np.add.at(matrix, (pairing.truth, pairing.found), 1)
    return matrix


def _average_precision(matches: Matches, weights: IntArray) -> Float64Array:
    """`average_precision` of as many resamples as fit into memory.

    A picture that counts twice doubles its detections in place. Between two hits precision only
    falls, and within a doubled hit it only rises, so the precision at recall r is the highest one
    right after a hit that reaches r: only hits need be looked at.
    """
    boxes = weights @ matches.boxes  # (B,)
    reported = np.cumsum(weights[:, matches.pictures], axis=1)  # (B, D)
    result = np.full((len(weights), len(IOU_THRESHOLDS)), np.nan)
    present = boxes > 0
    for t, hits in enumerate(matches.hits):
        at = np.flatnonzero(hits)
        found = np.cumsum(weights[:, matches.pictures[at]], axis=1)[present]
        precision = found / (reported[:, at][present] + np.spacing(1))
        highest_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        levels = np.searchsorted(RECALLS, found / boxes[present, None], side="right")
        share = np.diff(levels, axis=1, prepend=0)
        result[present, t] = (share * highest_from_here).sum(axis=1) / len(RECALLS)
    return result
