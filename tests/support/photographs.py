"""Pictures that look alike, as cameras take them."""

from __future__ import annotations

import numpy as np
from PIL import Image


def photograph(seed: int, width: int = 240) -> Image.Image:
    """Random blobs of every size, the larger the stronger, as in a photograph; 240 pixels high."""
    random = np.random.default_rng(seed)
    total = np.zeros((240, width, 3), np.float32)
    for cell in (80, 40, 20, 10):
        rough = random.integers(0, 256, (240 // cell, max(1, width // cell), 3), np.uint8)
        blobs = Image.fromarray(rough).resize((width, 240), Image.Resampling.BICUBIC)
        total += np.asarray(blobs, np.float32) * cell / 150
    return Image.fromarray(total.astype(np.uint8))


def pan(seed: int, frames: int, step: int) -> list[Image.Image]:
    """Views of 240 pixels, each `step` pixels further along a wide scene."""
    wide = photograph(seed, 240 + frames * step)
    return [wide.crop((i * step, 0, i * step + 240, 240)) for i in range(frames)]
