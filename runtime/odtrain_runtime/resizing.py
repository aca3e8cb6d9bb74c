"""How a picture of any shape is brought to the shape of a network's input.

`stretch`, as in the TF1 zoo: it fills the input, whatever becomes of its aspect ratio. `pad`, as in
Model Garden: it keeps its aspect ratio, lies at the top left, and the rest has the mean colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from odtrain_runtime.structures import FloatArray

STRETCH, PAD = "stretch", "pad"

FILL = (123.675, 116.28, 103.53)
"""RGB 0-255 of what a picture does not fill: ImageNet's mean, which Model Garden's normalisation makes 0
(`official.vision.ops.preprocess_ops.MEAN_RGB`)."""


def fitted(shape: Sequence[int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which a picture of (height, width) `shape` just fits into `size`.

    As `resize_and_crop_image` of Model Garden's `preprocess_ops` computes it, in float32.
    """
    sides = np.array(shape[:2], np.float32)
    scale = np.min(np.array(size, np.float32) / sides)
    height, width = np.rint(sides * scale).astype(int)
    return int(height), int(width)


def extent(shape: Sequence[int], size: tuple[int, int]) -> FloatArray:
    """(4,) factors that bring yxyx fractions of a picture to fractions of the padded input."""
    share = np.array(fitted(shape, size), np.float32) / np.array(size, np.float32)
    factors: FloatArray = np.tile(share, 2)
    return factors
