"""The registered model as MLflow runs it: pictures in, boxes, scores and class names out.

The one module here that needs MLflow and pandas, which whoever loads a model by MLflow has. A version
carries the runtime of its time, yet where another is imported already, that one is taken: of this module,
the scripts of registered versions know `DetectorModel` alone.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel
from PIL import Image, UnidentifiedImageError

from odtrain_runtime.model_files import load_detectors
from odtrain_runtime.pictures import (
    OPENED,
    PIXEL_LIMIT,
    UnusableError,
    exif_orientation,
    upright_rgb,
)
from odtrain_runtime.seen.usage_log import UsageLog, log_of_environment
from odtrain_runtime.structures import UInt8Image, class_label
from odtrain_runtime.turns import PixelTurns

COLUMN = "image"
DEFAULT_THRESHOLD = 0.5
LONGEST_PATH = 4096
MOST_WORKERS = 8
"""Interpreters of a .tflite: MLflow's server answers requests in threads, and one interpreter runs one
picture at a time."""

SERVERS = (
    "mlflow.pyfunc.scoring_server.app",
    "uvicorn",
    "gunicorn",
    "waitress",
    "hypercorn",
    "mlserver",
)
"""Modules of a process that serves strangers: there, a text is never taken for a path."""
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
"""The variable by which MLflow's scoring server says to whatever it loads that it serves."""

FORMATS_SHOWN = "Send a JPEG or PNG file's bytes, base64-encoded in JSON."


NOT_OPENED = "its text is not base64, and a server opens no paths."


class Found(TypedDict):
    """What was found in one picture, best score first.

    Attributes:
        boxes: N lists of ymin, xmin, ymax, xmax; fractions 0-1.
        scores: N.
        classes: N 1-based ids.
        class_names: N.
    """

    boxes: list[list[float]]
    scores: list[float]
    classes: list[int]
    class_names: list[str]


class DetectorModel(PythonModel):
    """Runs the exported file that the model names `detector`."""

    def __init__(
        self,
        max_pixels: int = PIXEL_LIMIT,
        max_pictures: int | None = None,
        log: UsageLog | None = None,
    ) -> None:
        """`max_pixels` is of one picture, `max_pictures` of one call; None for any number."""
        self.max_pixels, self.max_pictures = max_pixels, max_pictures
        self.turns, self.log = PixelTurns(), log

    def load_context(self, context: Any) -> None:
        """Open the exported file, with the label list beside it for a file that has none."""
        labels = Path(context.artifacts["labels"]).read_text(encoding="utf-8").splitlines()
        chosen = context.model_config["detector"]
        file, workers = Path(context.artifacts[chosen]), min(os.cpu_count() or 1, MOST_WORKERS)
        self.detector = load_detectors(file, workers, class_names=labels)
        if self.log is None:
            run = self.detector.passport.get("run", "")
            self.log = log_of_environment(file.name, self.detector.class_names, run)

    # MLflow makes a schema of the hint of `model_input`, except of this one: all kinds come in.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[Found]:
        """Detect in every picture.

        Args:
            context: MLflow's.
            model_input: a table or mapping with the column `image`, a list, or one picture. A
                picture is the bytes of its file (as such or in base64), an (H, W, 3) array of
                values 0-255, a Pillow picture or, unless this process serves others, a path.
            params: `score_threshold`, below which nothing is returned.

        Returns:
            One for each picture, in their order, whatever the pictures came as.

        Raises:
            MlflowException: an input is no picture (served as HTTP status 400).
        """
        threshold = float((params or {}).get("score_threshold", DEFAULT_THRESHOLD))
        items = list(_items(model_input))
        if self.max_pictures is not None and len(items) > self.max_pictures:
            raise _refused(f"{len(items)} pictures are more than {self.max_pictures}")
        # One by one: of many that are sent, no more than one is held decoded.
        return [self._found(item, number, threshold) for number, item in enumerate(items)]

    def _found(self, item: Any, number: int, threshold: float) -> Found:
        with _told(number):
            given = _given(item, self.max_pixels)
            with self.turns.of(_pixels(given)):
                picture = _picture(given, number)
                everything = self.detector(picture)
                if self.log is not None:
                    self.log.add(picture, everything)
        found = everything.above(threshold)
        classes = [int(number) for number in found.classes]
        return {
            "boxes": [[float(side) for side in box] for box in found.boxes],
            "scores": [float(score) for score in found.scores],
            "classes": classes,
            "class_names": [class_label(self.detector.class_names, number) for number in classes],
        }


def _items(given: Any) -> Iterable[Any]:
    """The pictures of an input, each still in whatever form it came."""
    if isinstance(given, pd.DataFrame):
        given = given.to_dict("list")
    if isinstance(given, Mapping):
        return _column(given)
    if isinstance(given, np.ndarray):
        if given.dtype.kind not in "OU":
            return list(given) if given.ndim == 4 else [given]
        given = given.tolist()  # texts, as MLflow's server hands on what is sent as `inputs`
    if isinstance(given, list | tuple | pd.Series):
        return [_item(item) for item in given]
    return [given]


def _item(item: Any) -> Any:
    """`{"image": X}`, one row of several, as X."""
    if isinstance(item, Mapping):
        (inner,) = _column(item)
        return inner
    return item


def _column(given: Mapping[str, Any]) -> list[Any]:
    if list(given) in ([0], ["0"]):  # a column that nobody named: of a pandas.Series, or of Spark's
        (given,) = ({COLUMN: column} for column in given.values())
    if COLUMN not in given:
        there = ", ".join(map(str, given)) or "nothing"
        raise _refused(f'there is no column "{COLUMN}" (but {there})')
    column = given[COLUMN]
    if isinstance(column, Mapping) and "b64" in column:  # as TensorFlow Serving writes bytes
        column = column["b64"]
    if isinstance(column, np.ndarray):
        if column.dtype != object and column.ndim in (2, 3):
            return [column]
        return [column.item()] if column.ndim == 0 else list(column)
    return list(column) if isinstance(column, list | tuple | pd.Series) else [column]


@contextmanager
def _told(number: int) -> Iterator[None]:
    """Say of which picture something is wrong with what was sent."""
    try:
        yield
    except UnusableError as problem:
        raise _refused(f"picture {number} {problem.cause}") from problem
    except (OSError, ValueError) as problem:
        raise _refused(f"picture {number} cannot be read: {problem}") from problem


def _given(item: Any, max_pixels: int) -> Image.Image | np.ndarray[Any, Any]:
    """A picture whose header was read, or an array."""
    if isinstance(item, Mapping) and "b64" in item:
        item = item["b64"]
    if isinstance(item, Image.Image | np.ndarray):
        return item
    return _open(_bytes(item), max_pixels)


def _pixels(given: Image.Image | np.ndarray[Any, Any]) -> int:
    if isinstance(given, Image.Image):
        return given.width * given.height
    return int(np.prod(given.shape[:2]))


def _picture(given: Image.Image | np.ndarray[Any, Any], number: int) -> UInt8Image:
    """(H, W, 3) RGB values 0-255 of one input."""
    if isinstance(given, np.ndarray):
        return _from_array(given)
    return np.asarray(upright_rgb(Path(f"picture {number}"), given, exif_orientation(given)))


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=OPENED)
    except UnidentifiedImageError:
        raise ValueError("its bytes are no picture of a format that is read.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(_too_large(PIXEL_LIMIT)) from None
    if image.width * image.height > max_pixels:
        raise ValueError(_too_large(max_pixels))
    return image


def _too_large(max_pixels: int) -> str:
    return f"it has more than {max_pixels // 1_000_000} million pixels."


def _from_array(values: np.ndarray[Any, Any]) -> UInt8Image:
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], 3, axis=2)
    if values.ndim != 3 or values.shape[2] not in (3, 4) or 0 in values.shape:
        raise ValueError(f"an array of shape {values.shape} is no (height, width, 3) picture.")
    if values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        raise ValueError("its values are not within 0-255.")
    return np.ascontiguousarray(values[:, :, :3].astype(np.uint8))


def _bytes(item: Any) -> bytes:
    if isinstance(item, bytes | bytearray | memoryview):
        return _from_base64(bytes(item)) or bytes(item)
    if isinstance(item, Path):
        return item.read_bytes()
    if isinstance(item, str):
        return _from_text(item)
    raise ValueError(f"it is a {type(item).__name__}.")


def _from_text(text: str) -> bytes:
    serving = SERVING in os.environ or any(name in sys.modules for name in SERVERS)
    if not serving and len(text) < LONGEST_PATH and Path(text).is_file():
        return Path(text).read_bytes()
    decoded = _from_base64((text.partition("base64,")[2] or text).encode())
    if decoded is None:
        raise ValueError(NOT_OPENED if serving else "its text is neither base64 nor a file here.")
    return decoded


def _from_base64(data: bytes) -> bytes | None:
    """What `data` says in base64, in one line or several; None if it is not base64, as no picture file is."""
    try:
        return base64.b64decode(data.translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        return None


def _refused(problem: str) -> MlflowException:
    return MlflowException(
        f"{problem.rstrip('.')}. {FORMATS_SHOWN}", error_code=INVALID_PARAMETER_VALUE
    )
