"""What every opened model file is: a detector that knows where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others.reading import Reading
from odtrain_runtime.structures import Detections, FloatArray, UInt8Image, areas
from odtrain_runtime.tflite_metadata import BOXES, CLASSES, COUNT, SCORES
from odtrain_runtime.tiles import Tiles, look_by_tiles

MAKE_AGAIN = "Export the model again, or check that the file was copied or downloaded whole."
DETECTORS_ONLY = "Only object detectors with boxes, classes and scores as outputs can be run."

BATCH = 4
"""A frozen graph took 14 % less processor time a picture in fours than one by one; eights gave no more."""

Raw = dict[str, NDArray[Any]]
"""Outputs of one picture by role: boxes (M, 4) yxyx fractions, classes (M,) 1-based, scores (M,)
and count (), all float."""


@dataclass(frozen=True, eq=False)
class FileDetector:
    """An exported file that detects; call it with a picture of any size.

    Attributes:
        path: the file, or the SavedModel's folder.
        format: the export format its passport names, else `pb`, `saved_model` or `tflite`.
        threads: that a .tflite runs with, which may be 1 where more would lose detections
            (`Postprocess.safe_threads`); for the others the number asked for.
        prepare: makes a picture of any size what `run` takes.
        run: the file's own run, nothing else.
        class_names: index 0 = class id 1; empty where nobody says.
        names_given: they are not the file's own, but were given with it.
        num_classes: how many it tells apart; None if the file does not say.
        input_size: (height, width) in pixels that pictures are resized to; None if unknown.
        passport: where the file says it comes from; empty in a stranger's file.
        run_batch: `run` of several prepared pictures of one size at once, where the file takes them.
        extent: what fractions of a picture are multiplied by to be fractions of `run`'s input.
        tiles: that larger pictures are looked at by; None where they are looked at as a whole alone.
        lanes: how many calls of `run` go on side by side.
        origin: what is taken from fractions of `run`'s input before they are divided by `extent`.
        reading: how its pictures and outputs are read, where it does not end in detections of its own.
    """

    path: Path
    format: str
    threads: int
    prepare: Callable[[UInt8Image], NDArray[Any]]
    run: Callable[[NDArray[Any]], Raw]
    class_names: tuple[str, ...] = ()
    names_given: bool = False
    num_classes: int | None = None
    input_size: tuple[int, int] | None = None
    passport: dict[str, str] = field(default_factory=dict)
    run_batch: Callable[[NDArray[Any]], list[Raw]] | None = None
    extent: Callable[[UInt8Image], FloatArray | float] = lambda picture: 1.0
    tiles: Tiles | None = None
    lanes: int = 1
    origin: Callable[[UInt8Image], FloatArray | float] = lambda picture: 0.0
    reading: Reading | None = None

    def __call__(self, image: UInt8Image) -> Detections:
        """What the file finds in an (H, W, 3) picture.

        Raises:
            ModelFileError: the file runs, but not as a detector of pictures.
        """
        return self.detect_all([image])[0]

    def detect_all(self, images: Sequence[UInt8Image]) -> list[Detections]:
        """What the file finds in each of several (H, W, 3) pictures, at once where that can be.

        Raises:
            ModelFileError: the file runs, but not as a detector of pictures.
        """
        if self.tiles is None:
            return self._look_at(images)
        return [look_by_tiles(self._look_at, image, self.tiles) for image in images]

    def _look_at(self, images: Sequence[UInt8Image]) -> list[Detections]:
        try:
            raws = zip(self._run_all(images), images, strict=True)
            found = [detections_of({**raw, BOXES: self._placed(raw, image)}) for raw, image in raws]
        except ModelFileError:
            raise
        except Exception as error:
            cannot_run(self.path, error)
        if self.names_given:
            highest = max((int(each.classes.max(initial=0)) for each in found), default=0)
            if highest > len(self.class_names):
                raise other_classes(self.path, f"finds class {highest}", len(self.class_names))
        return found

    def _placed(self, raw: Raw, image: UInt8Image) -> FloatArray:
        """(M, 4) boxes as fractions of the picture."""
        placed: NDArray[Any] = (raw[BOXES] - self.origin(image)) / self.extent(image)
        return placed.astype(np.float32, copy=False)

    def _run_all(self, images: Sequence[UInt8Image]) -> list[Raw]:
        if self.run_batch is None:
            return self._run_side_by_side(images)
        raws: list[Raw] = []
        for start in range(0, len(images), BATCH):
            ready = [self.prepare(image) for image in images[start : start + BATCH]]
            for _, alike in groupby(ready, key=lambda tensor: tensor.shape):
                several = list(alike)
                one = len(several) == 1
                raws += [self.run(several[0])] if one else self.run_batch(np.concatenate(several))
        return raws

    def _run_side_by_side(self, images: Sequence[UInt8Image]) -> list[Raw]:
        if self.lanes == 1 or len(images) == 1:
            return [self.run_once(image) for image in images]
        with ThreadPoolExecutor(self.lanes) as pool:
            return list(pool.map(self.run_once, images))

    def run_once(self, picture: UInt8Image) -> Raw:
        """The outputs for a picture that is already at the input size."""
        return self.run(self.prepare(picture))


def detections_of(raw: Raw) -> Detections:
    """Detections best first, clipped to the picture; padding and boxes without area are dropped."""
    count = round(float(raw[COUNT]))
    boxes = np.clip(raw[BOXES][:count], 0, 1).astype(np.float32)
    scores = raw[SCORES][:count].astype(np.float32)
    found = (scores > 0) & (areas(boxes) > 0)
    order = np.argsort(-scores, kind="stable")
    order = order[found[order]]
    classes = np.rint(raw[CLASSES][:count]).astype(np.int64)
    return Detections(boxes[order], scores[order], classes[order])


def other_classes(path: Path, what: str, names: int) -> ModelFileError:
    """The error of a list of names that is of other classes than the file's."""
    listed = "1 name is" if names == 1 else f"{names} names are"
    problem = f"{what}, but {listed} given: which name is of which class is not known."
    return ModelFileError(path, problem, "Give the list that the model was made with.")


def cannot_run(path: Path, error: Exception) -> NoReturn:
    """Turn whatever a runtime said of a file into an error that says what to do.

    Raises:
        ModelFileError: always.
    """
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ModelFileError(path, f"cannot be run: {reason}", MAKE_AGAIN) from error
