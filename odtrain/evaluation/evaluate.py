"""How good detections are: COCO's numbers, with an interval.

The numbers are those of faster-coco-eval, which equal pycocotools'. A number that COCO leaves
undefined (-1) is absent here, and `Evaluation.missing` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCOeval_faster

from odtrain.errors import DataError
from odtrain.evaluation import matching
from odtrain.evaluation.coco import (
    COCO_METRICS,
    class_ids,
    curves,
    finite,
    overlaps,
    run_coco,
    to_xywh,
)
from odtrain.evaluation.matching import MAX_DETECTIONS, Float64Array, Matches
from odtrain.structures import Detections, GroundTruth, IntArray, class_label
from odtrain.system.progress import doing


@dataclass(frozen=True)
class ClassResult:
    """One row of per_class.csv. What is undefined is None.

    Attributes:
        name: of the class.
        ap: average precision over IoU .50:.95.
        ap_50: at IoU .5.
        images: pictures that hold the class.
        boxes: ground truth boxes of it.
        threshold: the score at which F1 is best, at IoU .5.
        precision: there.
        recall: there.
    """

    name: str
    ap: float | None
    ap_50: float | None
    images: int
    boxes: int
    threshold: float | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class ImageResult:
    """How one picture did at IoU .5 above the score threshold.

    Attributes:
        name: its file name.
        found: boxes found with the right class.
        missed: boxes not found, or taken for another class.
        false_positives: detections that found no box of their class.
    """

    name: str
    found: int
    missed: int
    false_positives: int

    @property
    def f1(self) -> float:
        """The picture's F1; 1 where nothing is and nothing was found."""
        return (
            2 * self.found / (2 * self.found + self.mistakes) if self.found + self.mistakes else 1
        )

    @property
    def mistakes(self) -> int:
        """Missed boxes and false positives together."""
        return self.missed + self.false_positives


@dataclass(frozen=True)
class Counts:
    """What people see, over all pictures, at IoU .5 above a score threshold.

    Attributes:
        found: boxes found with the right class.
        labelled: boxes there are.
        wrong: detections that found no box of their class.
    """

    found: int
    labelled: int
    wrong: int

    @property
    def shown(self) -> int:
        """Detections there are."""
        return self.found + self.wrong


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured. K classes in ascending id, T IoU thresholds, R recall levels.

    Attributes:
        metrics: name -> value from 0 to 1: mAP, mAP_lo, mAP_hi, mAP_50, ..., `AP/<class>`.
        missing: name of each undefined metric -> why it is.
        class_names: (K,) of the evaluated classes, ids without a name as `class N`.
        per_class: (K,)
        images: one per picture, in the order given.
        precision: (T, R, K) interpolated precision, NaN for classes without boxes.
        confusion: (K + 1, K + 1), rows what is there, columns what was found, background last.
        matches: (K,) what average precision follows from; runs on the same pictures can be compared
            with `matching.draw_resamples` and `matching.mean_average_precision`.
        bootstrap: resamples behind the interval.
        threshold: the score from which the confusion matrix and `images` count detections.
    """

    metrics: dict[str, float]
    missing: dict[str, str]
    class_names: tuple[str, ...]
    per_class: tuple[ClassResult, ...]
    images: tuple[ImageResult, ...]
    precision: Float64Array
    confusion: IntArray
    matches: tuple[Matches, ...]
    bootstrap: int
    threshold: float

    @property
    def counts(self) -> Counts:
        """Of all pictures together, above the threshold."""
        return _together(self.images)


@doing("Scoring what was found")
def evaluate(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    bootstrap: int,
    seed: int,
    threshold: float = 0.5,
) -> Evaluation:
    """Score detections against ground truth.

    Args:
        truths: one per picture.
        detections: of the same pictures in the same order; at score threshold 1e-8 or so, since
            what is cut off is missing from the precision-recall curve.
        class_names: index 0 names id 1; other ids that occur are evaluated as `class N`.
        bootstrap: resamples of the pictures behind mAP_lo and mAP_hi, the 95 % percentile interval;
            0 for none. A resample repeats boxes, which favours classes with only a handful: with
            dozens of such classes the interval lies somewhat high.
        seed: of the resamples.
        threshold: the score from which the confusion matrix and the worst pictures count.

    Raises:
        DataError: there is no picture.
    """
    detections = [finite(found) for found in detections]
    ids = class_ids(truths, detections, class_names)
    labels = tuple(class_label(class_names, class_id) for class_id in ids.tolist())
    coco = run_coco(truths, detections, ids)
    precision = curves(coco)
    matches = matching.match_detections(truths, detections, ids, overlaps(coco))
    metrics, missing = _metrics(coco, precision, labels)
    bounds, no_bounds = map_bounds(matches, len(truths), bootstrap, seed)
    pairing = _pairing(truths, detections, ids, threshold)
    return Evaluation(
        metrics=metrics | bounds,
        missing=missing | no_bounds,
        class_names=labels,
        per_class=tuple(
            _class_result(label, precision[:, :, k], matches[k]) for k, label in enumerate(labels)
        ),
        images=_image_results(truths, pairing, ids),
        precision=precision,
        confusion=matching.confusion_matrix(pairing, len(ids)),
        matches=matches,
        bootstrap=bootstrap,
        threshold=threshold,
    )


def count_shown(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    threshold: float,
) -> Counts:
    """`Evaluation.counts` alone, of detections of the same pictures in the same order."""
    detections = [finite(found) for found in detections]
    ids = class_ids(truths, detections, class_names)
    pairing = _pairing(truths, detections, ids, threshold)
    return _together(_image_results(truths, pairing, ids))


def _pairing(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    ids: IntArray,
    threshold: float,
) -> matching.Pairing:
    return matching.pair_up(truths, [found.above(threshold) for found in detections], ids)


def _image_results(
    truths: Sequence[GroundTruth], pairing: matching.Pairing, ids: IntArray
) -> tuple[ImageResult, ...]:
    counts = pairing.counts(len(truths), background=len(ids)).tolist()
    return tuple(
        ImageResult(truth.name, *counted) for truth, counted in zip(truths, counts, strict=True)
    )


def _together(images: Sequence[ImageResult]) -> Counts:
    found, missed, wrong = (
        sum(getattr(one, key) for one in images) for key in ("found", "missed", "false_positives")
    )
    return Counts(found, found + missed, wrong)


def match_classes(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], class_names: Sequence[str]
) -> tuple[Matches, ...]:
    """(K,) how the detections of each named class met its boxes; those of other classes are left out.

    Raises:
        DataError: there is no picture.
    """
    detections = [_of_classes(finite(found), len(class_names)) for found in detections]
    ids = class_ids(truths, detections, class_names)
    met = overlaps(run_coco(truths, detections, ids))
    return matching.match_detections(truths, detections, ids, met)


def _of_classes(found: Detections, count: int) -> Detections:
    known = (found.classes >= 1) & (found.classes <= count)
    return Detections(found.boxes[known], found.scores[known], found.classes[known])


def operating_thresholds(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    precision: float,
) -> dict[str, float]:
    """By class, the lowest score from which at least `precision` of what is shown is right, at IoU .5.

    Classes that are never so precise, or that no picture shows, are absent.

    Raises:
        DataError: there is no picture.
    """
    points = (
        matching.at_precision(matches, precision)
        for matches in match_classes(truths, detections, class_names)
    )
    found = dict(zip(class_names, points, strict=False))
    return {name: round(point[0], 4) for name, point in found.items() if point is not None}


def quick_map(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], class_names: Sequence[str]
) -> dict[str, float]:
    """mAP, mAP_50, mAP_75 and AR_100 alone, for validation during training; undefined ones absent.

    Raises:
        DataError: there is no picture.
    """
    detections = [finite(found) for found in detections]
    coco = run_coco(truths, detections, class_ids(truths, detections, class_names))
    found = dict(zip(COCO_METRICS, coco.stats.tolist(), strict=True))
    return {name: found[name] for name in QUICK_METRICS if found[name] >= 0}


def check_evaluator(truths: Sequence[GroundTruth], class_names: Sequence[str]) -> None:
    """Feed the ground truth as detections, which must score AP 1.

    Raises:
        DataError: it does not, or there is nothing to score; the message names picture and cause.
    """
    for truth in truths:
        _check_classes(truth, class_names)
    if not any(len(truth.classes) for truth in truths):
        raise DataError(
            "ground truth",
            f"none of the {len(truths)} pictures holds a box, so that nothing can be scored.",
            "Label the pictures, or put labelled ones into this split.",
        )
    perfect = [
        Detections(truth.boxes, np.ones(len(truth.classes), np.float32), truth.classes)
        for truth in truths
    ]
    score = quick_map(truths, perfect, class_names)["mAP"]
    if score < 1 - 1e-6:
        raise _not_perfect(truths, class_names, score)


def _metrics(
    coco: COCOeval_faster, precision: Float64Array, labels: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """COCO's twelve numbers and each class's AP; those that are undefined with the reason."""
    values = dict(zip(COCO_METRICS, coco.stats.tolist(), strict=True))
    reasons = dict(COCO_METRICS)
    for label, ap in zip(labels, precision.mean(axis=(0, 1)).tolist(), strict=True):
        values[f"AP/{label}"] = -1 if np.isnan(ap) else ap
        reasons[f"AP/{label}"] = "no ground truth of this class"
    metrics = {name: value for name, value in values.items() if value >= 0}
    return metrics, {name: reasons[name] for name in values if name not in metrics}


def map_bounds(
    matches: Sequence[Matches], pictures: int, bootstrap: int, seed: int
) -> tuple[dict[str, float], dict[str, str]]:
    """mAP_lo and mAP_hi, the 95 % percentile interval of the mAP, and why there are none.

    Args:
        matches: of each class.
        pictures: that they are of.
        bootstrap: resamples of the pictures; 0 for none.
        seed: of the resamples.
    """
    reason = None
    if not any(match.boxes.any() for match in matches):
        reason = COCO_METRICS["mAP"]
    elif pictures < 2:
        reason = "an interval needs at least 2 pictures"
    elif bootstrap < 1:
        reason = "no resamples asked for"
    if reason is not None:
        return {}, {"mAP_lo": reason, "mAP_hi": reason}
    weights = matching.draw_resamples(pictures, bootstrap, seed)
    low, high = matching.interval(matching.mean_average_precision(matches, weights))
    return {"mAP_lo": low, "mAP_hi": high}, {}


def _class_result(label: str, precision: Float64Array, matches: Matches) -> ClassResult:
    """A row of per_class.csv, from the (T, R) precision of a class and its matches."""
    defined = not np.isnan(precision).any()
    threshold, best_precision, best_recall = matching.best_f1(matches) or (None, None, None)
    return ClassResult(
        name=label,
        ap=float(precision.mean()) if defined else None,
        ap_50=float(precision[0].mean()) if defined else None,
        images=int(np.sum(matches.boxes > 0)),
        boxes=int(matches.boxes.sum()),
        threshold=threshold,
        precision=best_precision,
        recall=best_recall,
    )


def _check_classes(truth: GroundTruth, class_names: Sequence[str]) -> None:
    unnamed = truth.classes[(truth.classes < 1) | (truth.classes > len(class_names))]
    if len(unnamed):
        raise DataError(
            truth.name,
            f"class id {unnamed[0]} has no name; the label map names ids 1 to {len(class_names)}.",
            "Add the class to the label map, or prepare the dataset again.",
        )


QUICK_METRICS = ("mAP", "mAP_50", "mAP_75", "AR_100")


def _not_perfect(
    truths: Sequence[GroundTruth], class_names: Sequence[str], score: float
) -> DataError:
    """The error that says why ground truth fed as detections does not score AP 1."""
    for truth in truths:
        for box, (left, top, width, height) in enumerate(to_xywh(truth.boxes, truth).tolist()):
            if not (width >= 1 and height >= 1):
                return DataError(
                    truth.name,
                    f"box {box + 1}, {class_label(class_names, int(truth.classes[box]))} at"
                    f" x {left:.2f}, y {top:.2f}, is {width:.2f} x {height:.2f} pixels,"
                    " which cannot be matched.",
                    "Redraw the box, or delete it.",
                )
        for class_id, count in zip(*np.unique(truth.classes, return_counts=True), strict=True):
            if count > MAX_DETECTIONS:
                return DataError(
                    truth.name,
                    f"holds {count} boxes of {class_label(class_names, int(class_id))}, but COCO"
                    f" counts at most {MAX_DETECTIONS} detections of a class in a picture.",
                    "Cut the picture into tiles.",
                )
    return DataError(
        "ground truth",
        f"fed as detections it scores mAP {score:.6f} instead of 1.",
        "Check the boxes for values that are not numbers.",
    )
