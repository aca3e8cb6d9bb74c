"""What is asked of a served detector, and what it answers: the same wherever it is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from odtrain_runtime.errors import OdtrainError
from odtrain_runtime.pictures import (
    TooManyPixelsError,
    UnusableError,
    exif_orientation,
    open_image,
    upright_rgb,
)
from odtrain_runtime.structures import Detections, UInt8Image, class_label
from odtrain_runtime.turns import PixelTurns


class RequestError(OdtrainError):
    """A request that cannot be understood."""


def asked_score(text: str) -> float:
    """The threshold that a request names, 0-1.

    Raises:
        RequestError: it is no score.
    """
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise RequestError(f"threshold={text}", "is no score from 0 to 1.", "Give 0.5, say.")
    return score


@contextmanager
def sent_picture(body: bytes, max_megapixels: float, turns: PixelTurns) -> Iterator[UInt8Image]:
    """(H, W, 3) pixels of a request's picture, upright, as long as it is its turn.

    Raises:
        UnusableError: its bytes are no picture, it is damaged, or has too many pixels.
    """
    file, limit = Path("sent"), round(max_megapixels * 1_000_000)
    image = open_image(file, body, limit)
    with turns.of(image.width * image.height):
        yield np.asarray(upright_rgb(file, image, exif_orientation(image)))


def as_json(
    image: UInt8Image, found: Detections, class_names: Sequence[str], milliseconds: float
) -> dict[str, Any]:
    """Boxes yxyx as fractions, 1-based class ids and names, best score first."""
    classes = found.classes.tolist()
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "boxes": np.round(found.boxes.astype(float), 5).tolist(),
        "scores": np.round(found.scores.astype(float), 4).tolist(),
        "classes": classes,
        "class_names": [class_label(class_names, number) for number in classes],
        "model_ms": round(milliseconds, 2),
    }


def failure(error: OdtrainError) -> tuple[int, str]:
    """The HTTP status and the message for a picture or request that is not answered."""
    if isinstance(error, UnusableError):
        status = 413 if isinstance(error, TooManyPixelsError) else 400
        return status, f"The picture {error.cause}"
    return 400 if isinstance(error, RequestError) else 500, f"{error.args[0]}: {error.args[1]}"
