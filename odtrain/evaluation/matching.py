"""Which detections met which ground truth, and what average precision follows from it.

COCO matches every picture by itself, so pictures are matched once and the average precision of any
resample of them follows from counts. A comparison of two runs can draw the same resamples for both.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from odtrain.box_matching import match_pairs, place_in_group
from odtrain.structures import BoolArray as BoolArray
from odtrain.structures import Detections, GroundTruth, IntArray, pairwise_iou

Float64Array = NDArray[np.float64]
Pictures = Sequence[GroundTruth] | Sequence[Detections]
Numbers = TypeVar("Numbers", NDArray[np.int32], NDArray[np.float64])

IOU_THRESHOLDS: Float64Array = np.linspace(0.5, 0.95, 10)
"""COCO's ten, .50:.05:.95."""

RECALLS: Float64Array = np.linspace(0.0, 1.0, 101)
"""COCO's recall levels, at which precision is averaged."""

MAX_DETECTIONS = 100
"""Detections COCO counts per picture and class."""

PAIR_UP_IOU = 0.5
"""Overlap from which a detection is on a box, for the confusion matrix."""

CELLS_AT_ONCE = 4_000_000
"""Bound on resamples x detections that found a box, held in memory at a time."""

NARROW = 32
"""Resamples up to which NumPy accumulates down a column faster than row by row."""


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


@dataclass(frozen=True, eq=False)
class Pairing:
    """What became of the boxes and detections of all pictures above a score threshold.

    Attributes:
        pictures: (N,) which picture each pair, missed box or needless detection is in.
        truth: (N,) its row of the confusion matrix.
        found: (N,) its column. The last row and column are the background.
    """

    pictures: IntArray
    truth: IntArray
    found: IntArray

    def counts(self, pictures: int, background: int) -> IntArray:
        """(P, 3) boxes found, boxes missed, and detections that found none of their class, by picture."""
        right = self.truth == self.found
        kinds = right, ~right & (self.truth != background), ~right & (self.found != background)
        counted = [np.bincount(self.pictures[kind], minlength=pictures) for kind in kinds]
        return np.stack(counted, axis=1)


def match_detections(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    ids: IntArray,
    overlaps: Sequence[Float64Array],
) -> tuple[Matches, ...]:
    """(K,) COCO's greedy matching, of each class in each picture.

    Of the free boxes, a detection takes the one it overlaps most, at least by the threshold; of equal
    overlaps the later box is taken, as pycocotools does.

    Args:
        truths: one per picture.
        detections: of the same pictures.
        ids: (K,) ascending class ids.
        overlaps: (D, G) of each picture and each class that has both boxes and detections there, in
            ascending order: IoU of each detection, best score first, with each box.
    """
    picture, place, scores = _counted(detections, ids)
    boxes = _boxes(truths, ids)  # (P, K)
    group = picture * len(ids) + place
    width = boxes.ravel()[group]  # (D,) how many boxes each may meet
    ious = np.concatenate([np.zeros(0), *(np.ravel(each) for each in overlaps)])
    met = np.flatnonzero(ious >= IOU_THRESHOLDS[0])
    ends = np.cumsum(width)
    row = np.searchsorted(ends, met, side="right")
    first = np.cumsum(boxes) - boxes.ravel()
    column = first[group[row]] + met - (ends - width)[row]
    order = np.lexsort((-column, -ious[met], row))  # row by row, so group by group
    row, column, iou = row[order], column[order], ious[met[order]]
    enough = iou[:, None] >= IOU_THRESHOLDS
    shape = len(scores), int(boxes.sum())
    hits = match_pairs(group[row], row, column, enough, shape) >= 0
    best_first = np.lexsort((-scores, place))
    bounds = np.searchsorted(place[best_first], np.arange(len(ids) + 1))
    own = [best_first[start:end] for start, end in itertools.pairwise(bounds)]
    return tuple(
        Matches(picture[rows], scores[rows], hits[rows].T.copy(), boxes[:, k].copy())
        for k, rows in enumerate(own)
    )


def _counted(
    detections: Sequence[Detections], ids: IntArray
) -> tuple[IntArray, IntArray, Float64Array]:
    """(D,) picture, place in `ids` and score of what COCO counts, class by class and best score first."""
    picture = origin(detections)
    place = np.searchsorted(ids, np.concatenate([found.classes for found in detections]))
    scores = np.concatenate([found.scores for found in detections]).astype(np.float64)
    order = np.lexsort((-scores, place, picture))
    picture, place, scores = picture[order], place[order], scores[order]
    group = picture * len(ids) + place
    kept = place_in_group(group) < MAX_DETECTIONS
    return picture[kept], place[kept], scores[kept]


def _boxes(truths: Sequence[GroundTruth], ids: IntArray) -> IntArray:
    """(P, K) ground truth boxes of each class in each picture."""
    place = np.searchsorted(ids, np.concatenate([truth.classes for truth in truths]))
    group = origin(truths) * len(ids) + place
    return np.bincount(group, minlength=len(truths) * len(ids)).reshape(len(truths), -1)


def origin(pictures: Pictures) -> IntArray:
    """(N,) which picture each box or detection is in."""
    return np.repeat(np.arange(len(pictures)), [len(each.classes) for each in pictures])


def draw_resamples(pictures: int, count: int, seed: int) -> IntArray:
    """How often each picture is in each of `count` resamples with replacement: (count, pictures).

    The same arguments give the same resamples, so that two runs on the same pictures can be
    compared pair by pair.
    """
    rng = np.random.default_rng(seed)
    drawn: IntArray = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=count)
    return drawn


def average_precision(matches: Matches, weights: IntArray) -> Float64Array:
    """(B, T) `average_precisions` of one class alone."""
    curves: Float64Array = average_precisions([matches], weights)[0]
    return curves


def average_precisions(classes: Sequence[Matches], weights: IntArray) -> Float64Array:
    """COCO's 101-point interpolated average precision of each class for weighted pictures.

    Args:
        classes: matches of each class.
        weights: (B, P) how often each picture counts.

    Returns:
        (K, B, T) from 0 to 1, NaN where the weighted pictures hold no box of the class.
    """
    by_picture = np.ascontiguousarray(weights.T, np.int32)  # a row holds all resamples of a picture
    result = np.full((len(classes), len(weights), len(IOU_THRESHOLDS)), np.nan)
    for matches, curves in zip(classes, result, strict=True):
        size = max(1, CELLS_AT_ONCE // max(1, int(matches.hits.any(axis=0).sum())))
        for start in range(0, len(weights), size):
            chunk = by_picture[:, start : start + size]
            curves[start : start + size] = _average_precision(matches, chunk)
    return result


def mean_average_precision(classes: Sequence[Matches], weights: IntArray) -> Float64Array:
    """COCO's mAP: the mean over IoU thresholds and those classes that have boxes.

    Args:
        classes: matches of each class.
        weights: (B, P) how often each picture counts.

    Returns:
        (B,) from 0 to 1, NaN where the weighted pictures hold no box at all.
    """
    return mean_over_classes(average_precisions(classes, weights))


def mean_over_classes(curves: Float64Array) -> Float64Array:
    """(B,) mean of (K, B, T) over thresholds and those classes that have boxes, NaN where none has."""
    by_class = curves.mean(axis=2)
    present = ~np.isnan(by_class)
    count = present.sum(axis=0)
    total = np.where(present, by_class, 0).sum(axis=0)
    mean: Float64Array = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
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


def pair_up(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], ids: IntArray
) -> Pairing:
    """Boxes and detections paired at IoU .5, for the confusion matrix.

    Detections of a box's own class come first, best score first, as in COCO; what is left over is
    then paired across classes, which are the confusions. The rest is missed, or background.

    Args:
        truths: what is there, one per picture.
        detections: those that count, best score first.
        ids: (K,) ascending class ids, the rows and columns of the matrix.
    """
    background = len(ids)
    classes = np.searchsorted(ids, np.concatenate([truth.classes for truth in truths]))
    names = np.searchsorted(ids, np.concatenate([found.classes for found in detections]))
    pairs = _overlapping(truths, detections)
    shape = len(names), len(classes)
    partner = _match_in_order(pairs[:, names[pairs[1]] == classes[pairs[2]]], shape)
    free = ~np.isin(np.arange(len(classes)), partner)
    left = (partner < 0)[pairs[1]] & free[pairs[2]]
    partner = np.maximum(partner, _match_in_order(pairs[:, left], shape))
    missed = ~np.isin(np.arange(len(classes)), partner)
    return Pairing(
        np.concatenate([origin(detections), origin(truths)[missed]]),
        np.concatenate([np.append(classes, background)[partner], classes[missed]]),
        np.concatenate([names, np.full(missed.sum(), background)]),
    )


def _overlapping(truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> IntArray:
    """(3, N) picture, detection and box of each pair on each other, in the order in which they choose."""
    pairs = [np.zeros((3, 0), np.int64)]
    row = column = 0
    for picture, (truth, found) in enumerate(zip(truths, detections, strict=True)):
        ious = pairwise_iou(found.boxes, truth.boxes)  # (D, G)
        rows, columns = np.nonzero(ious >= PAIR_UP_IOU)
        order = np.lexsort((-ious[rows, columns], rows))
        picture_of = np.full(len(rows), picture)
        pairs.append(np.stack([picture_of, rows[order] + row, columns[order] + column]))
        row, column = row + len(found), column + len(truth.classes)
    return np.concatenate(pairs, axis=1)


def _match_in_order(pairs: IntArray, shape: tuple[int, int]) -> IntArray:
    """(D,) the box of each detection, from pairs as `_overlapping` has them; -1 for none."""
    groups, rows, columns = pairs
    return match_pairs(groups, rows, columns, np.ones((len(rows), 1), bool), shape)[:, 0]


def confusion_matrix(pairing: Pairing, classes: int) -> IntArray:
    """(classes + 1, classes + 1) counts: rows what is there, columns what was found."""
    side = classes + 1
    counts = np.bincount(pairing.truth * side + pairing.found, minlength=side * side)
    return counts.reshape(side, side)


def _average_precision(matches: Matches, weights: NDArray[np.int32]) -> Float64Array:
    """(B, T) average precision of one class, for (P, B) weights.

    A picture that counts twice doubles its detections in place. Between two hits precision only
    falls, and within a doubled hit it only rises, so the precision at recall r is the highest one
    right after a hit that reaches r: only hits need be looked at.
    """
    result = np.full((weights.shape[1], len(IOU_THRESHOLDS)), np.nan)
    holding = np.flatnonzero(matches.boxes)
    boxes = matches.boxes[holding] @ weights[holding]  # (B,)
    present = boxes > 0
    if not present.all():
        boxes, weights = boxes[present], weights[:, present]
    at = np.flatnonzero(matches.hits.any(axis=0))  # (H,)
    drawn = weights[matches.pictures[at]]  # (H, B)
    reported = _sums(weights, matches.pictures, at) + np.spacing(1)
    levels, places = _levels(boxes, int(drawn.sum(axis=0).max(initial=0)))
    for t, hits in enumerate(matches.hits[:, at]):
        found = _accumulate(np.add, drawn[hits])
        precision = found / reported[hits]
        highest_from_here = _accumulate(np.maximum, precision[::-1])[::-1]
        share = np.diff(levels[found + places], axis=0, prepend=np.int8(0))
        by_resample = np.multiply(share.T, highest_from_here.T, order="C")
        result[present, t] = by_resample.sum(axis=1) / len(RECALLS)
    return result


def _sums(weights: NDArray[np.int32], pictures: IntArray, at: IntArray) -> NDArray[np.int32]:
    """(H, B) how many detections the weighted pictures have, up to and with each of those at `at`."""
    starts = [0, *(at[:-1] + 1)]
    steps = [
        weights[pictures[start : end + 1]].sum(axis=0, dtype=np.int32)
        for start, end in zip(starts, at, strict=False)
    ]
    return _accumulate(np.add, np.array(steps, np.int32).reshape(len(at), weights.shape[1]))


def _accumulate(step: np.ufunc, rows: Numbers) -> Numbers:
    """Each row joined to those before it, in place."""
    if rows.shape[1] <= NARROW:
        step.accumulate(rows, axis=0, out=rows)
        return rows
    for above, row in itertools.pairwise(rows):
        step(above, row, out=row)
    return rows


def _levels(boxes: IntArray, most: int) -> tuple[NDArray[np.int8], IntArray]:
    """How many of `RECALLS` are reached with so many found of so many boxes.

    Args:
        boxes: (B,) in each resample.
        most: that are found in any.

    Returns:
        A table, and (B,) where in it each resample's row starts, from none found to `most`.
    """
    counts, row = np.unique(boxes, return_inverse=True)
    recall = np.arange(most + 1) / counts[:, None]
    table = np.searchsorted(RECALLS, recall, side="right").astype(np.int8)
    return table.ravel(), row * (most + 1)
