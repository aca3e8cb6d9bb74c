"""Boxes as the whole program holds them: yxyx order, fractions 0-1 of the picture, float32."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
UInt8Image = NDArray[np.uint8]
"""(H, W, 3) RGB picture, values 0-255."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one picture, best score first.

    Attributes:
        boxes: (N, 4) yxyx, fractions 0-1 of the picture.
        scores: (N,) probabilities 0-1.
        classes: (N,) label-map ids, 1-based.
    """

    boxes: FloatArray
    scores: FloatArray
    classes: IntArray

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float) -> Detections:
        """The detections whose score is at least `threshold`."""
        keep = self.scores >= threshold
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])


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


Detect = Callable[[UInt8Image], Detections]
"""The seam between whatever detects and whatever evaluates, times or draws. A trained model, a .pb,
a SavedModel and a .tflite each are one."""


def areas(yxyx: FloatArray) -> FloatArray:
    """(N,) areas of (N, 4) boxes, in the square of their unit; 0 where a box is inside out."""
    sides = np.maximum(yxyx[:, 2:] - yxyx[:, :2], 0)
    product: FloatArray = sides[:, 0] * sides[:, 1]
    return product


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
