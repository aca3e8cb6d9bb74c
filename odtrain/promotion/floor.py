"""What a version must find at all before it may carry an alias, whatever it is compared with."""

from __future__ import annotations

from collections.abc import Sequence

from odtrain.box_matching import match_boxes
from odtrain.evaluation.evaluate import map_bounds, match_classes
from odtrain.structures import Detections, LabelledSplit, pairwise_iou

RECALL_IOU = 0.5
RESAMPLES = 1000


def recall(split: LabelledSplit, shown: Sequence[Detections]) -> float:
    """The share of the labelled objects that have a detection of their class, at IoU `RECALL_IOU`.

    Args:
        split: the labelled pictures.
        shown: what is shown of each of them, at the threshold of prediction.
    """
    objects = sum(len(truth.classes) for truth in split.truths)
    found = 0
    for truth, each in zip(split.truths, shown, strict=True):
        overlaps = pairwise_iou(each.boxes, truth.boxes)
        overlaps[each.classes[:, None] != truth.classes[None]] = 0
        found += int((match_boxes(overlaps, RECALL_IOU) >= 0).sum())
    return found / objects if objects else 0.0


def lower_end(split: LabelledSplit, found: Sequence[Detections]) -> float | None:
    """Of the 95 % interval of the mAP over pictures drawn again; None where there is no interval."""
    matches = match_classes(split.truths, found, split.class_names)
    return map_bounds(matches, len(split.truths), RESAMPLES, seed=0)[0].get("mAP_lo")
