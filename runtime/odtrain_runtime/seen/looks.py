"""How a picture looks, in a few numbers: light, sharpness, layout and a hash by which copies are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from odtrain_runtime.structures import FloatArray, UInt8Image

HASH_SIDE = 16
"""Rows of differences, and differences in each row."""
SIDE = 300
"""Pixels of the longer side that pictures are looked at with, at least: near what networks see. Joining
whole blocks costs a fifth of a finer scaling."""
ROUGH = 600
"""Pixels of the longer side that are enough for it."""
CELLS = 4
"""Rows and columns of the layout."""


@dataclass(frozen=True)
class Looks:
    """What is told of a picture.

    Attributes:
        brightness: mean of its grey values, 0 to 255.
        contrast: their standard deviation.
        sharpness: variance of the Laplacian of its grey values, low where it is blurred (Pech-Pacheco and
            others 2000, Diatom autofocusing in brightfield microscopy).
        layout: mean red, green and blue of `CELLS` x `CELLS` cells, row by row, 0 to 255.
        likeness: `difference_hash`.
    """

    brightness: float
    contrast: float
    sharpness: float
    layout: tuple[int, ...]
    likeness: str


def glance(image: UInt8Image) -> UInt8Image:
    """A copy of so many rows and columns of an (H, W, 3) picture that the longer side keeps at least `ROUGH`.

    It costs no more than a picture of that size, however large this one is.
    """
    step = max(1, max(image.shape[:2]) // ROUGH)
    return np.ascontiguousarray(image[::step, ::step])


def looks_of(glanced: UInt8Image) -> Looks:
    """What is told of a picture, from its `glance`, seen at `SIDE` pixels or a little more."""
    picture = Image.fromarray(glanced)
    picture = picture.reduce(max(1, max(picture.size) // SIDE))
    grey = np.asarray(picture.convert("L"), np.float32)
    cells = picture.resize((CELLS, CELLS), Image.Resampling.BOX)
    return Looks(
        round(float(grey.mean()), 2),
        round(float(grey.std()), 2),
        round(_sharpness(grey), 2),
        tuple(np.asarray(cells).reshape(-1).tolist()),
        difference_hash(picture),
    )


def _sharpness(grey: FloatArray) -> float:
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())


def difference_hash(image: Image.Image) -> str:
    """Whether each pixel of the picture, shrunk to 17 x 16 grey ones, is brighter than its left neighbour.

    The difference hash (dHash) of N. Krawetz, "Kind of Like That", 2013, at 16 instead of 8 rows.

    Returns:
        256 bits as hexadecimal digits.
    """
    plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
    small = plain.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    values = np.asarray(small.convert("L"))
    return np.packbits(values[:, 1:] > values[:, :-1]).tobytes().hex()
