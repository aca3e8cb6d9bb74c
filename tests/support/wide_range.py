"""A small SSD with known weights, and what its int8 files lose when some of them are spread far apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from odtrain.config.compose import section
from odtrain.config.schema import BenchmarkConfig, ModelConfig
from odtrain.export.lite import LiteWriter
from odtrain.export.parity import Proof, prove
from odtrain.export.raw_outputs import raw_beside
from odtrain.export.suppression import BUILTIN
from odtrain.export.writers import passport_of
from odtrain.export_formats import INT8
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.structures import Detections, GroundTruth, UInt8Image

NAMES = ("circle", "square")
OBJECTS = 3
"""In a picture, in the mean: the best of what the float32 network finds counts as what is there."""
WIDTH = 300.0
"""By how much every other channel is smaller."""


def small_detector() -> SSD:
    """At 96 pixels, with scores that differ widely, and statistics of the drawn pictures."""
    config = section(
        ModelConfig,
        name="small",
        architecture="ssd_mobilenet_v1",
        input_size=96,
        depth_multiplier=0.25,
        initializer="he",
    )
    return with_known_weights(build_detector(config, len(NAMES)))


PREDICTORS = {
    "BoxEncodingPredictor/weights": 0.05,
    "ClassPredictor/weights": 0.15,
}
"""Ends of variables' names, and how far their numbers are spread."""


def with_known_weights(detector: SSD) -> SSD:
    """The detector with scores that differ widely, and statistics of the drawn pictures."""
    random = np.random.default_rng(5)
    for name, variable in detector.variables_by_name().items():
        for end, spread in PREDICTORS.items():
            if name.endswith(end):
                variable.assign(random.normal(0, spread, variable.shape).astype(np.float32))
        # Activations hardly bend, so that an error is not enlarged from layer to layer as where it does.
        for end, value in (("gamma", 0.8), ("beta", 3.0)):
            if name.endswith(f"/{end}"):
                variable.assign(np.full(variable.shape, value, np.float32))
        if name.endswith("ClassPredictor/biases"):
            variable.assign(np.full(variable.shape, -4, np.float32))
    settle_statistics(detector, drawn_pictures(16, seed=3))
    return detector


def settle_statistics(detector: SSD, pictures: Sequence[UInt8Image]) -> None:
    """Give batch norm the mean and variance of these pictures, as at the end of a training."""
    for layer in detector.network._flatten_layers():
        if hasattr(layer, "momentum"):
            layer.momentum = 0.0
    batch = np.stack([np.asarray(detector.resize(picture)) for picture in pictures])
    detector.network(detector.normalize(batch), training=True)


def widen(detector: SSD) -> None:
    """Make every other channel behind two depthwise layers `WIDTH` times smaller, its readers' weights larger.

    What the network says stays the same but where ReLU6 cuts off; no range of 256 levels holds both kinds.
    """
    variables = detector.variables_by_name()
    for layer in ("Conv2d_3", "Conv2d_5"):
        stem = f"FeatureExtractor/MobilenetV1/{layer}"
        part = np.ones(variables[f"{stem}_depthwise/BatchNorm/gamma"].shape, np.float32)
        part[::2] = 1 / WIDTH
        for end in ("gamma", "beta"):
            variable = variables[f"{stem}_depthwise/BatchNorm/{end}"]
            variable.assign(variable.numpy() * part)
        kernel = variables[f"{stem}_pointwise/weights"]
        kernel.assign(kernel.numpy() / part[None, None, :, None])


def drawn_pictures(count: int, seed: int) -> list[UInt8Image]:
    """Bright shapes on grey, 96 x 96."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        picture = Image.new("RGB", (96, 96), (90, 90, 90))
        canvas = ImageDraw.Draw(picture)
        for _ in range(4):
            x, y, side = (int(each) for each in random.integers((0, 0, 10), (70, 70, 40)))
            colour = tuple(int(each) for each in random.integers(0, 255, 3))
            shape = canvas.ellipse if random.random() < 0.5 else canvas.rectangle
            shape([x, y, x + side, y + side], fill=colour)
        pictures.append(np.asarray(picture))
    return pictures


def best_as_truth(found: Sequence[Detections], pictures: Sequence[UInt8Image]) -> list[GroundTruth]:
    """The best detections of all pictures together, as if they were labelled: mAP is then 1."""
    scores = np.sort(np.concatenate([each.scores for each in found]))
    cut = scores[-OBJECTS * len(pictures)]
    return [
        GroundTruth(f"{i}.jpg", *picture.shape[:2], best.boxes.clip(0, 1), best.classes)
        for i, (picture, best) in enumerate(
            zip(pictures, (each.above(float(cut)) for each in found), strict=True)
        )
    ]


@dataclass(frozen=True)
class Case:
    """A detector, its writer, and what its files are held against.

    Attributes:
        writer: calibrated with 16 pictures.
        pictures: of the split.
        reference: what the detector finds in them.
        truths: the best of that.
        passport: of an int8 file.
    """

    writer: LiteWriter
    pictures: list[UInt8Image]
    reference: list[Detections]
    truths: list[GroundTruth]
    passport: dict[str, str]

    @classmethod
    def of(cls, detector: SSD, count: int = 12) -> Case:
        """The case of a detector."""
        pictures = drawn_pictures(count, seed=9)
        reference = list(map(detector.as_detect(), pictures))
        return cls(
            LiteWriter(detector, drawn_pictures(16, seed=3), BUILTIN),
            pictures,
            reference,
            best_as_truth(reference, pictures),
            passport_of(detector, INT8, {}),
        )

    def prover(self, max_map_drop: float) -> Callable[[Path], Proof]:
        """What holds a file against the detector."""
        proven = partial(
            prove,
            reference=self.reference,
            raw=raw_beside(self.writer.detector, self.pictures),
            images=self.pictures,
            truths=self.truths,
            class_names=NAMES,
            max_map_drop=max_map_drop,
            benchmark=section(BenchmarkConfig, runs=5),
        )
        return lambda file: proven({INT8: file})[0]
