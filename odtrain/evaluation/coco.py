"""COCO's evaluation by faster-coco-eval, whose numbers equal pycocotools'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from odtrain.errors import DataError
from odtrain.evaluation.matching import Float64Array
from odtrain.structures import Detections, FloatArray, GroundTruth, IntArray

CocoDict = dict[str, object]

MAX_DETECTIONS = 100
"""Detections COCO counts per picture and class."""


def class_ids(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], class_names: Sequence[str]
) -> IntArray:
    """(K,) ascending: the named ids and any other that occurs."""
    named = np.arange(1, len(class_names) + 1)
    used = (*(t.classes for t in truths), *(d.classes for d in detections))
    ids = np.unique(np.concatenate([named, *used])).astype(np.int64)
    if len(ids) and ids[0] < 1:
        raise ValueError(f"class id {ids[0]}: ids are 1-based")
    return ids


def run_coco(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], ids: IntArray
) -> COCOeval_faster:
    """COCO's evaluation, done; picture ids and annotation ids count from 1.

    Raises:
        DataError: there is no picture.
    """
    if not truths:
        raise DataError(
            "evaluation",
            "there are no pictures to evaluate.",
            "Choose a split that has pictures (evaluate.split), or give it some.",
        )
    truth = COCO(coco_truth(truths, ids), print_function=_silent)
    found = truth.loadRes(coco_results(truths, detections))
    coco = COCOeval_faster(truth, found, "bbox", print_function=_silent)
    coco.run()
    return coco


def coco_truth(truths: Sequence[GroundTruth], ids: IntArray) -> CocoDict:
    """The pictures and boxes as a COCO annotation file has them; ids count from 1.

    Args:
        truths: one per picture.
        ids: (K,) the categories.
    """
    annotations: list[CocoDict] = []
    for image_id, truth in enumerate(truths, start=1):
        # A hundredth of a pixel undoes the rounding to float32 fractions: a box labelled
        # 32 x 32 is again exactly that, which decides whether it is small or medium.
        xywh = to_xywh(truth.boxes, truth).round(2)
        for box, class_id in zip(xywh.tolist(), truth.classes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return {
        "images": [
            {"id": i, "height": truth.height, "width": truth.width}
            for i, truth in enumerate(truths, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": class_id, "name": str(class_id)} for class_id in ids.tolist()],
    }


def coco_results(truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> list[CocoDict]:
    """The detections as a COCO results file has them, their pictures counted from 1."""
    return [
        {"image_id": image_id, "category_id": class_id, "bbox": box, "score": score}
        for image_id, (truth, found) in enumerate(zip(truths, detections, strict=True), start=1)
        for box, class_id, score in zip(
            to_xywh(found.boxes, truth).tolist(),
            found.classes.tolist(),
            found.scores.tolist(),
            strict=True,
        )
    ]


def to_xywh(boxes: FloatArray, truth: GroundTruth) -> Float64Array:
    """Boxes as COCO has them.

    Args:
        boxes: (N, 4) yxyx fractions. One that is inside out gets no area, rather than a negative
            one, for which COCO would not count it as a false positive.
        truth: of the picture the boxes are in.

    Returns:
        (N, 4) left, top, width, height in pixels of the original picture.
    """
    top, left, bottom, right = boxes.astype(np.float64).T
    sides = np.maximum(right - left, 0), np.maximum(bottom - top, 0)
    pixels = np.array([truth.width, truth.height] * 2)
    xywh: Float64Array = np.stack([left, top, *sides], axis=1) * pixels
    return xywh


def finite(detections: Detections) -> Detections:
    """The detections with a point for each box, and 0 for each score, that is not a number."""
    good = np.isfinite(detections.boxes).all(axis=1, keepdims=True)
    scores = np.where(np.isfinite(detections.scores), detections.scores, np.float32(0))
    boxes = np.where(good, detections.boxes, np.float32(0))
    return Detections(boxes, scores, detections.classes)


def _silent(*_: object) -> None:
    """Take the evaluator's progress messages."""


def curves(coco: COCOeval_faster) -> Float64Array:
    """(T, R, K) precision of all sizes at the highest number of detections, NaN for undefined."""
    precision: Float64Array = np.array(coco.eval["precision"][:, :, :, 0, -1], np.float64)
    precision[precision < 0] = np.nan
    return precision


COCO_METRICS: dict[str, str] = {
    "mAP": "no ground truth",
    "mAP_50": "no ground truth",
    "mAP_75": "no ground truth",
    "mAP_small": "no ground truth up to 32 x 32 pixels",
    "mAP_medium": "no ground truth from 32 x 32 to 96 x 96 pixels",
    "mAP_large": "no ground truth from 96 x 96 pixels up",
    "AR_1": "no ground truth",
    "AR_10": "no ground truth",
    "AR_100": "no ground truth",
    "AR_small": "no ground truth up to 32 x 32 pixels",
    "AR_medium": "no ground truth from 32 x 32 to 96 x 96 pixels",
    "AR_large": "no ground truth from 96 x 96 pixels up",
}
"""COCO's twelve in its order, and what it means where COCO gives -1."""
