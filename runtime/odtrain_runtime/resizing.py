"""How a picture of any shape is brought to the shape of a network's input.

`stretch`, as in the TF1 zoo: it fills the input, whatever becomes of its aspect ratio. `pad`, as in
Model Garden: it keeps its aspect ratio, lies at the top left, and the rest has the mean colour. `pad_grey`,
as in EfficientDet: the same, its sides rounded down, and the rest is grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime.structures import FloatArray, UInt8Image

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


def resize(image: UInt8Image, size: tuple[int, int]) -> FloatArray:
    """An (H, W, 3) picture resized to (height, width), grey levels 0-255.

    Bilinear as TensorFlow 1 did it: pixel i of the result lies at i * old / new of the source, no
    half-pixel centres, no antialiasing (`tf.compat.v1.image.resize` is the same).
    """
    if image.shape[:2] == size:
        return image.astype(np.float32)
    samples = (_sample(image.shape[0], size[0]), _sample(image.shape[1], size[1]))
    return _interpolated(image, *samples)


def centred(image: UInt8Image, size: tuple[int, int]) -> FloatArray:
    """An (H, W, 3) picture resized to (height, width), grey levels 0-255.

    Bilinear with half-pixel centres, no antialiasing: TensorFlow 2's and OpenCV's `INTER_LINEAR`.
    """
    samples = (_centred(image.shape[0], size[0]), _centred(image.shape[1], size[1]))
    return _interpolated(image, *samples)


FINE, COARSE = 1 << 11, 4
"""Shares in OpenCV's whole numbers, and how many bits it drops between the directions."""


def whole_levels(image: UInt8Image, size: tuple[int, int]) -> FloatArray:
    """As `centred`, in the whole numbers of OpenCV's `INTER_LINEAR`, so that levels are its own.

    `HResizeLinear` and `VResizeLinear` of its `imgproc/src/resize.cpp`. Of pictures that are enlarged, one
    level in two thousand is one off.
    """
    (top, bottom, down), (left, right, across) = (
        _fine(image.shape[axis], size[axis]) for axis in (0, 1)
    )
    needed, places = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    lines = image[needed].astype(np.int32)
    lines = lines[:, left] * across[0][:, None] + lines[:, right] * across[1][:, None]
    lines >>= COARSE
    upper, lower = lines[places[: len(top)]], lines[places[len(top) :]]
    shares = down[:, :, None, None]
    levels = ((shares[0] * upper >> 16) + (shares[1] * lower >> 16) + 2) >> 2
    whole: FloatArray = levels.astype(np.float32)
    return whole


def _fine(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """For each pixel of a side two of the source's, and (2, new) their shares of `FINE`."""
    places = ((np.arange(new) + 0.5) * (1 / (new / old)) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.intp)
    share = np.where((first < 0) | (first >= old - 1), 0, places - first).astype(np.float32)
    first = np.clip(first, 0, old - 1)
    shares = np.rint(np.stack([1 - share, share]) * FINE).astype(np.int32)
    return first, np.minimum(first + 1, old - 1), shares


def _interpolated(image: UInt8Image, rows: Sample, columns: Sample) -> FloatArray:
    """Each row that is needed is mixed across but once, then rows are mixed."""
    (top, bottom, down), (left, right, across) = rows, columns
    needed, places = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    lines = image.reshape(image.shape[0], -1)[needed]  # (R, 3 W)
    lines = _between(
        lines.take(_channels(left), axis=1),
        lines.take(_channels(right), axis=1),
        np.repeat(across, 3),
    )
    upper, lower = lines.take(places[: len(top)], axis=0), lines.take(places[len(top) :], axis=0)
    return _between(upper, lower, down[:, None]).reshape(len(top), len(left), 3)


def pad(image: UInt8Image, size: tuple[int, int], how: str = PAD) -> FloatArray:
    """An (H, W, 3) picture at the top left of (height, width), levels 0-255.

    Bilinear as `centred`.
    """
    padded = np.full((*size, 3), FILLS[how], np.float32)
    height, width = fitted(image.shape, size, how)
    padded[:height, :width] = centred(image, (height, width))
    return padded


Sample = tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]
"""For each pixel of a side, two of the source's, and the share of the second."""


def _sample(old: int, new: int) -> Sample:
    places = np.arange(new, dtype=np.float32) * np.float32(old / new)
    first = places.astype(np.intp)
    second = np.minimum(first + 1, old - 1)
    return first, second, places - first.astype(np.float32)


def _centred(old: int, new: int) -> Sample:
    places = (np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new) - np.float32(0.5)
    below = np.floor(places)
    first = np.maximum(below, 0).astype(np.intp)
    second = np.minimum(np.ceil(places), old - 1).astype(np.intp)
    return first, second, places - below


def _channels(columns: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where the red, green and blue of each column lie in a row."""
    return (3 * columns[:, None] + np.arange(3)).ravel()


def _between(a: NDArray[Any], b: NDArray[Any], share: FloatArray) -> FloatArray:
    start = a.astype(np.float32, copy=False)
    mixed: FloatArray = b.astype(np.float32)
    mixed -= start
    mixed *= share
    mixed += start
    return mixed
