"""A detector for programs: pictures in whatever form they are at hand, detections out."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.model_files import load_detectors
from odtrain_runtime.pictures import (
    DamagedError,
    decode,
    exif_orientation,
    read_upright,
    upright_rgb,
)
from odtrain_runtime.provenance import LABELS_FILE, read_label_list
from odtrain_runtime.structures import Detect, Detections, UInt8Image

CARD = "model_card.md"
SUMS = "SHA256SUMS"
STANDS_FOR = re.compile(r"`([^`/]+)` stands for the version")
"""How the card of a registered model names the file that is served."""

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | UInt8Image
"""A file, the bytes of one, a Pillow picture, or (H, W, 3) RGB values 0-255."""
TAKEN = "Give a path, a file's bytes, a Pillow picture, or (height, width, 3) RGB values, uint8."
"""What `pixels_of` takes, in words."""


@dataclass(frozen=True, eq=False)
class Detector:
    """Something that detects.

    Attributes:
        detect: what is found in one (H, W, 3) picture.
        class_names: index 0 = class id 1; empty where nobody says.
    """

    detect: Detect
    class_names: tuple[str, ...] = ()

    def predict(self, pictures: Picture | Iterable[Picture]) -> list[Detections]:
        """What is found in each picture, whatever its score: `found.above(0.5)` are the sure ones.

        Args:
            pictures: one, or several. Files and Pillow pictures are turned upright, as EXIF says.

        Raises:
            UnusableError: a picture cannot be read.
            ModelFileError: the file runs, but not as a detector of pictures.
        """
        return [self.detect(pixels_of(picture)) for picture in one_by_one(pictures)]


def one_by_one(pictures: Picture | Iterable[Picture]) -> Iterable[Picture]:
    """The pictures, of one or of several; what is none is given as it is, and refused later."""
    if isinstance(pictures, np.ndarray):
        return pictures if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, str | os.PathLike | bytes | Image.Image):
        return [pictures]
    return pictures if isinstance(pictures, Iterable) else [pictures]


def load(
    path: str | os.PathLike[str], threads: int = 1, workers: int = 1, trusted: bool = False
) -> Detector:
    """The detector of an exported file.

    Args:
        path: a .tflite (or, where what runs it is installed, an .onnx, an OpenVINO .xml, a .pb or a SavedModel
            folder), or a folder as `odtrain models download` leaves it, of which the file that stands for the
            version is taken.
        threads: of each interpreter, which may be one where more would lose detections.
        workers: threads that may run it at once.
        trusted: whether a TensorFlow graph may do more than compute, such as read and write files.

    Raises:
        ModelFileError: there is no such file, it cannot be read, it is no object detector, may do more than
            compute, or is not the one that was downloaded.
    """
    file = served_file(Path(path))
    if file != Path(path):
        check_sums(file)
    opened = load_detectors(file, workers, threads, _labels_beside(file), trusted)
    return Detector(opened, opened.class_names)


def served_file(path: Path) -> Path:
    """The model file that `path` means: itself, or that of a folder.

    Raises:
        ModelFileError: a folder holds none, or does not say which of several is meant.
    """
    lite = sorted(path.glob("*.tflite"))
    card = path / CARD
    if not lite and not card.is_file():
        return path
    named = STANDS_FOR.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    if named and (path / named[1]).exists():
        return path / named[1]
    if len(lite) == 1:
        return lite[0]
    there = ", ".join(file.name for file in lite) or "no .tflite"
    raise ModelFileError(path, f"does not say which file is meant: {there}.", "Name the file.")


def check_sums(top: Path) -> None:
    """Hold a model file or folder against `SHA256SUMS` beside it, where that lists it.

    Raises:
        ModelFileError: it is another one.
    """
    sums = top.with_name(SUMS)
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
    for digest, _, name in (line.partition("  ") for line in lines):
        file = top.parent / name
        if top in (file, *file.parents) and not (file.is_file() and _sha256(file) == digest):
            raise ModelFileError(file, f"is not the file that {SUMS} lists.", "Download it again.")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _labels_beside(file: Path) -> tuple[str, ...]:
    """The class names in the label file of the folder, for a model file without its own."""
    labels = file.parent / LABELS_FILE
    return read_label_list(labels.read_text(encoding="utf-8")) if labels.is_file() else ()


def pixels_of(picture: Picture) -> UInt8Image:
    """(H, W, 3) RGB values 0-255 of a picture, upright.

    Raises:
        UnusableError: it cannot be read, or is none.
    """
    if isinstance(picture, str | os.PathLike):
        return read_upright(Path(picture))
    if isinstance(picture, bytes):
        return decode(Path("the bytes"), picture)
    if isinstance(picture, Image.Image):
        return np.asarray(upright_rgb(Path("the picture"), picture, exif_orientation(picture)))
    if not isinstance(picture, np.ndarray):
        raise DamagedError(Path("picture"), f"is a {type(picture).__name__}.", TAKEN)
    if (
        picture.dtype != np.uint8
        or picture.ndim != 3
        or picture.shape[2] != 3
        or 0 in picture.shape
    ):
        shown = f"is an array of {picture.dtype} {picture.shape}."
        raise DamagedError(Path("picture"), shown, "Give (height, width, 3) RGB values, uint8.")
    return picture
