"""Boxes as the whole program holds them: yxyx order, fractions 0-1 of the picture, float32.

Those of detections are the runtime's, so that what it finds and what odtrain evaluates is one class.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime.structures import Detect as Detect
from odtrain_runtime.structures import Detections as Detections
from odtrain_runtime.structures import FloatArray as FloatArray
from odtrain_runtime.structures import IntArray as IntArray
from odtrain_runtime.structures import UInt8Image as UInt8Image
from odtrain_runtime.structures import areas as areas
from odtrain_runtime.structures import class_label as class_label

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What people said is in one picture.

    Attributes:
        name: the picture's file name.
        height: of the picture in pixels.
        width: of the picture in pixels.
        boxes: (N, 4) yxyx, fractions 0-1 of the picture.
        classes: (N,) label-map ids, 1-based.
    """

    name: str
    height: int
    width: int
    boxes: FloatArray
    classes: IntArray


@dataclass(frozen=True, eq=False)
class LabelledSplit:
    """What is in each picture of a split, and which pictures they are.

    Attributes:
        class_names: index 0 = class id 1.
        truths: one per picture, in the order of the records.
        keys: (P,) one per picture, of its encoded pixels, boxes and class names; equal pictures are
            told apart by their number.
    """

    class_names: tuple[str, ...]
    truths: list[GroundTruth]
    keys: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Equal for the same labelled pictures under the same classes, in any order."""
        parts = [*self.class_names, *sorted(self.keys)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def part(self, rows: Sequence[int]) -> LabelledSplit:
        """The pictures of those rows alone."""
        truths, keys = [self.truths[i] for i in rows], [self.keys[i] for i in rows]
        return LabelledSplit(self.class_names, truths, tuple(keys))


def pairwise_iou(a_yxyx: FloatArray, b_yxyx: FloatArray) -> FloatArray:
    """Intersection over union of every box in `a` with every box in `b`.

    Args:
        a_yxyx: (A, 4) boxes, in any unit that both sets share.
        b_yxyx: (B, 4) boxes.

    Returns:
        (A, B) values from 0 to 1. Two boxes without area score 0, not NaN.
    """
    top_left = np.maximum(a_yxyx[:, None, :2], b_yxyx[None, :, :2])  # (A, B, 2)
    bottom_right = np.minimum(a_yxyx[:, None, 2:], b_yxyx[None, :, 2:])  # (A, B, 2)
    sides = np.maximum(bottom_right - top_left, 0)  # (A, B, 2), 0 where they miss each other
    overlap = sides[..., 0] * sides[..., 1]  # (A, B)
    union = areas(a_yxyx)[:, None] + areas(b_yxyx)[None, :] - overlap  # (A, B)
    iou: FloatArray = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou
