"""Boxes as odtrain and its runtime hold them: yxyx order, fractions 0-1 of the picture, float32."""

from __future__ import annotations

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


Detect = Callable[[UInt8Image], Detections]
"""The seam between whatever detects and whatever evaluates, times or draws. A trained model, a .pb,
a SavedModel and a .tflite each are one."""


def areas(yxyx: FloatArray) -> FloatArray:
    """(N,) areas of (N, 4) boxes, in the square of their unit; 0 where a box is inside out."""
    sides = np.maximum(yxyx[:, 2:] - yxyx[:, :2], 0)
    product: FloatArray = sides[:, 0] * sides[:, 1]
    return product


def class_label(class_names: Sequence[str], class_id: int) -> str:
    """The name of a 1-based label-map id, or `class N` where the names do not reach it."""
    return class_names[class_id - 1] if 1 <= class_id <= len(class_names) else f"class {class_id}"
