"""How a picture of any shape is brought to the shape of a network's input.

`stretch`, as in the TF1 zoo: it fills the input, whatever becomes of its aspect ratio. `pad`, as in
Model Garden: it keeps its aspect ratio, lies at the top left, and the rest has the mean colour. `pad_grey`,
as in EfficientDet: the same, its sides rounded down, and the rest is grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from odtrain_runtime.structures import FloatArray

STRETCH, PAD, PAD_GREY = "stretch", "pad", "pad_grey"

GREY = 127.0
"""Of 0-255: what EfficientDet's normalisation makes 0 (`mean_rgb` of automl's `hparams_config`)."""

FILLS = {PAD: (123.675, 116.28, 103.53), PAD_GREY: (GREY, GREY, GREY)}
"""RGB 0-255 of what a padded picture does not fill. The first is ImageNet's mean, which Model Garden's
normalisation makes 0 (`official.vision.ops.preprocess_ops.MEAN_RGB`)."""


def fitted(shape: Sequence[int], size: tuple[int, int], how: str) -> tuple[int, int]:
    """(height, width) at which a picture of (height, width) `shape` just fits into `size`.

    In float32, as `resize_and_crop_image` of Model Garden's `preprocess_ops` computes it, which rounds, and
    automl's `DetectionInputProcessor`, which rounds down. `how` is a key of `FILLS`.
    """
    sides = np.array(shape[:2], np.float32)
    scaled = sides * np.min(np.array(size, np.float32) / sides)
    height, width = (np.rint(scaled) if how == PAD else np.maximum(scaled, 1)).astype(int)
    return int(height), int(width)


def extent(shape: Sequence[int], size: tuple[int, int], how: str) -> FloatArray:
    """(4,) factors that bring yxyx fractions of a picture to fractions of the padded input."""
    share = np.array(fitted(shape, size, how), np.float32) / np.array(size, np.float32)
    factors: FloatArray = np.tile(share, 2)
    return factors
