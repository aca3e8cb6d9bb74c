"""COCO's evaluation by faster-coco-eval, whose numbers equal pycocotools'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from odtrain.errors import DataError
from odtrain.evaluation.matching import Float64Array, Pictures, origin
from odtrain.structures import Detections, FloatArray, GroundTruth, IntArray
from odtrain.system.garbage import seldom_collecting

CocoDict = dict[str, object]


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
    with seldom_collecting():
        truth = coco_truth(truths, ids)
        found = truth | {"annotations": coco_results(truths, detections)}
        sides = (COCO(side, print_function=_silent) for side in (truth, found))
        coco = COCOeval_faster(*sides, "bbox", print_function=_silent)
        coco.run()
    return coco


def coco_truth(truths: Sequence[GroundTruth], ids: IntArray) -> CocoDict:
    """The pictures and boxes as a COCO annotation file has them; ids count from 1.

    Args:
        truths: one per picture.
        ids: (K,) the categories.
    """
    # A hundredth of a pixel undoes the rounding to float32 fractions: a box labelled
    # 32 x 32 is again exactly that, which decides whether it is small or medium.
    boxes = _all_xywh(truths, truths).round(2)
    return {
        "images": [
            {"id": i, "height": truth.height, "width": truth.width}
            for i, truth in enumerate(truths, start=1)
        ],
        "annotations": _annotations(truths, boxes),
        "categories": [{"id": class_id, "name": str(class_id)} for class_id in ids.tolist()],
    }


def coco_results(truths: Sequence[GroundTruth], detections: Sequence[Detections]) -> list[CocoDict]:
    """The detections as a COCO results file has them, their pictures counted from 1, with id and area."""
    annotations = _annotations(detections, _all_xywh(detections, truths))
    scores = np.concatenate([found.scores for found in detections]).tolist()
    for annotation, score in zip(annotations, scores, strict=True):
        annotation["score"] = score
    return annotations


def _annotations(pictures: Pictures, xywh: Float64Array) -> list[CocoDict]:
    """Each box as COCO has it, pictures and boxes counted from 1."""
    classes = np.concatenate([each.classes for each in pictures])
    columns = (origin(pictures) + 1, classes, xywh, xywh[:, 2] * xywh[:, 3])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {
            "id": number,
            "image_id": image_id,
            "category_id": class_id,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
        }
        for number, (image_id, class_id, box, area) in enumerate(rows, start=1)
    ]


def _all_xywh(pictures: Pictures, truths: Sequence[GroundTruth]) -> Float64Array:
    """`to_xywh` of the boxes of all pictures."""
    pixels = np.array([[truth.width, truth.height] * 2 for truth in truths])
    boxes = np.concatenate([each.boxes for each in pictures])
    return _scaled(boxes, pixels[origin(pictures)])


def to_xywh(boxes: FloatArray, truth: GroundTruth) -> Float64Array:
    """Boxes as COCO has them.

    Args:
        boxes: (N, 4) yxyx fractions. One that is inside out gets no area, rather than a negative
            one, for which COCO would not count it as a false positive.
        truth: of the picture the boxes are in.

    Returns:
        (N, 4) left, top, width, height in pixels of the original picture.
    """
    return _scaled(boxes, np.array([truth.width, truth.height] * 2))


def _scaled(boxes: FloatArray, pixels: IntArray) -> Float64Array:
    top, left, bottom, right = boxes.astype(np.float64).T
    sides = np.maximum(right - left, 0), np.maximum(bottom - top, 0)
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


def overlaps(coco: COCOeval_faster) -> list[Float64Array]:
    """(D, G) IoU of detections, best score first, and boxes of each picture and class that has both."""
    return [ious for ious in coco.ious.values() if len(ious)]


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
