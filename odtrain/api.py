"""What `import odtrain` gives: the jobs as functions, and whatever was trained as a detector.

`overrides` are what the command takes, a sequence of `key=value`; `odtrain train --cfg` prints the keys.
Whatever the user can put right is raised as `odtrain.errors.OdtrainError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from odtrain import structures
from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError, DataError
from odtrain.structures import FloatArray, UInt8Image
from odtrain.system import loading, logs
from odtrain.system.processor import choose_onednn
from odtrain.system.telemetry import allow_telemetry
from odtrain_runtime.pictures import UnusableError
from odtrain_runtime.predictor import one_by_one, pixels_of

if TYPE_CHECKING:
    import pandas as pd

    from odtrain.config.schema import Config
    from odtrain.dataset.read import Dataset
    from odtrain.findings import Finding
    from odtrain.jobs.evaluate import EvaluateResult
    from odtrain.jobs.train import TrainResult
    from odtrain.model_source import Source

Picture: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]"
"""A path, a file's bytes, a PIL picture, or a (height, width, 3) RGB array."""
TAKEN = (
    "Give a path, a file's bytes, a PIL picture, a uint8 array (height, width, 3) in RGB, or a sequence "
    "of these."
)
"""What `Detector.predict` takes, in words."""
SHOWN_SCORE = 0.5


# ---- jobs


@logs.remembering()
def train(overrides: Sequence[str] = ()) -> TrainResult:
    """Train, evaluate, export, record and register, as `odtrain train` does.

    Raises:
        OdtrainError: something the user can put right; the run, if begun, is marked FAILED.
        KeyboardInterrupt: training ended behind a checkpoint; `train.resume=auto` goes on.
    """
    config = compose(overrides)
    _begin()
    from odtrain.jobs.train import train as job
    from odtrain.recipes.settle import settle

    return job(*settle(config, overrides))


@logs.remembering()
def evaluate(overrides: Sequence[str]) -> EvaluateResult:
    """Score `source=` on the pictures of `data.*`, as `odtrain evaluate` does.

    Raises:
        OdtrainError: the source, the data or the store are not to be had, or do not belong together.
    """
    config = compose(overrides)
    _begin()
    from odtrain.jobs.evaluate import evaluate as job

    return job(config, overrides)


def check(overrides: Sequence[str] = ()) -> tuple[Finding, ...]:
    """What is wrong or odd in the pictures and labels of `data.*`, errors first.

    Raises:
        OdtrainError: a folder or list cannot be read at all.
    """
    config = compose(overrides)
    from odtrain.dataset.check import check as job

    return job(config.data, config.model).findings


def prepare(overrides: Sequence[str] = ()) -> Dataset:
    """Check the data of `data.*` and write the files that training reads, unless they are there.

    Raises:
        DataError: the data have errors, or cannot be read or written.
    """
    config = compose(overrides)
    from odtrain.dataset.prepare import prepare as job

    return job(config.data)


def compose(overrides: Sequence[str] = ()) -> Config:
    """The configuration that overrides make, checked.

    Raises:
        ConfigError: an override cannot be read, names an unknown key or choice, or has a wrong type.
    """
    if isinstance(overrides, str):
        raise ConfigError(
            overrides,
            "is one text.",
            'Give a sequence of texts: ["train.steps=100", "data.name=mine"].',
        )
    config = compose_config(overrides, aloud=True)
    allow_telemetry(config.tracking.telemetry)
    return config


def _begin() -> None:
    """What comes before TensorFlow is imported."""
    logs.show_if_nobody_does()
    loading.calm_tensorflow()
    loading.say_what_loads()
    choose_onednn()


# ---- detectors


def load(source: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Detector:
    """The detector that `source` names.

    Args:
        source: a run (its id or the first letters of it, its name, `latest`), a registered model
            (models:/NAME/N, models:/NAME@ALIAS), a file of a run (runs:/ID/export/FILE), an exported
            file, or a TF1 checkpoint of `model=`.
        overrides: such as `tracking.uri=...`, or `predict.label_map=...` for a file without names.

    Raises:
        OdtrainError: it is not there, or cannot be read.
    """
    config = compose(overrides)
    _begin()
    from odtrain.model_source import open_source

    return Detector(open_source(os.fspath(source), config))


@dataclass(frozen=True, eq=False)
class Detections(structures.Detections):
    """What a detector found in one picture, best score first, and what its numbers mean.

    Attributes:
        class_names: index 0 = id 1; empty where the model carries none.
        size: (height, width) of the picture in pixels, upright.
    """

    class_names: tuple[str, ...]
    size: tuple[int, int]

    @property
    def names(self) -> list[str]:
        """The class name of each; `class N` where the model carries none."""
        return [
            self.class_names[number - 1] if number <= len(self.class_names) else f"class {number}"
            for number in self.classes.tolist()
        ]

    @property
    def xyxy(self) -> FloatArray:
        """(N, 4) xmin, ymin, xmax, ymax in pixels."""
        height, width = self.size
        return self.boxes[:, [1, 0, 3, 2]] * np.array([width, height] * 2, np.float32)

    def above(self, threshold: float) -> Detections:
        """The detections whose score is at least `threshold`."""
        kept = super().above(threshold)
        return replace(self, boxes=kept.boxes, scores=kept.scores, classes=kept.classes)

    def to_pandas(self) -> pd.DataFrame:
        """A row for each: name, class (1-based), score, and xmin, ymin, xmax, ymax in pixels.

        Raises:
            ConfigError: pandas is not installed.
        """
        pandas = _installed("pandas", "to_pandas")
        scores, sides = self.scores.astype(float), self.xyxy.T.astype(float)
        values = {"name": self.names, "class": self.classes, "score": scores}
        corners = zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)
        frame: pd.DataFrame = pandas.DataFrame({**values, **dict(corners)})
        return frame

    def to_supervision(self) -> Any:
        """A `supervision.Detections`: boxes in pixels, class ids from 0, `class_name` in its data.

        Raises:
            ConfigError: supervision is not installed.
        """
        return _installed("supervision", "to_supervision").Detections(
            xyxy=self.xyxy,
            confidence=self.scores,
            class_id=self.classes - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )


@dataclass(frozen=True, eq=False)
class Detector:
    """Something that detects, whatever it was loaded from; `load` makes it."""

    source: Source

    @property
    def class_names(self) -> tuple[str, ...]:
        """Index 0 = id 1; empty where the model carries none."""
        return self.source.class_names

    def predict(
        self, pictures: Picture | Iterable[Picture], threshold: float = SHOWN_SCORE
    ) -> list[Detections]:
        """What is found in one picture or in several, for each in their order.

        Args:
            pictures: one or several. Files and PIL pictures are turned as their EXIF orientation says.
            threshold: lowest score, 0 to 1.

        Raises:
            DataError: one of them is no picture, or cannot be read.
            ModelFileError: the model runs, but not as a detector of pictures.
        """
        images = map(_upright, one_by_one(pictures))
        found: list[Detections] = []
        while several := list(islice(images, self.source.batch)):
            for image, one in zip(several, self.source.detect_all(several), strict=True):
                kept = one.above(threshold)
                height, width = image.shape[:2]
                found.append(
                    Detections(
                        *(kept.boxes, kept.scores, kept.classes), self.class_names, (height, width)
                    )
                )
        return found


def _upright(picture: object) -> UInt8Image:
    """(height, width, 3) RGB, as people see it.

    Raises:
        DataError: it is no picture, or cannot be read.
    """
    if isinstance(picture, str | os.PathLike | bytes | Image.Image):
        try:
            return pixels_of(picture)
        except UnusableError as error:
            raise DataError(error.args[0], error.cause, TAKEN) from error
    if isinstance(picture, np.ndarray):
        if (
            picture.dtype == np.uint8
            and picture.ndim == 3
            and picture.shape[2] == 3
            and picture.size
        ):
            return picture
        shape = "×".join(map(str, picture.shape))
        raise DataError(f"an array of {picture.dtype}, {shape}", "is no picture.", TAKEN)
    raise DataError(f"a {type(picture).__name__}", "is no picture.", TAKEN)


def _installed(name: str, method: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        remedy = f"pip install {name}"
        raise ConfigError(f"{method}()", f"{name} is not installed.", remedy) from error
