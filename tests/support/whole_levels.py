"""Networks held against their files that take whole levels: ONNX and OpenVINO."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from odtrain.export.benchmark import agreement, measure
from odtrain.export.parity import not_exact
from odtrain.export.raw_outputs import raw_beside, raw_difference
from odtrain.export.writers import export
from odtrain.models.ssd import SSD
from odtrain.structures import UInt8Image
from odtrain_runtime.model_files import load_detector

NAMES = ("open", "엘리베이터")
CLASSES = re.compile(r"ClassPredictor/biases$|class_net/class-predict/bias$|_classifier/bias$")
LEAST_VARIANCE = 0.5
"""Of a channel, as a share of what its layer's have on average."""
PASSPORT = {"run": "r1", "data": "panels"}


def shown_pictures(count: int) -> list[UInt8Image]:
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (90 + 10 * i, 120, 3), np.uint8) for i in range(count)]


def printed_alike(example: Path, model: Path, folder: Path) -> None:
    """Assert that an example finds what `load_detector` finds in a picture of the network's size."""
    opened = load_detector(model)
    assert opened.input_size is not None
    shown = np.random.default_rng(2).integers(0, 256, (*opened.input_size, 3), np.uint8)
    Image.fromarray(shown).save(folder / "picture.png")
    words = [example, model, folder / "picture.png", "0.3"]
    done = subprocess.run(
        [sys.executable, "-I", *map(str, words)], capture_output=True, text=True, check=True
    )
    found = opened(shown).above(0.3)
    height, width = opened.input_size
    expected = [
        f"{NAMES[number - 1]} {score:.2f} {box[1] * width:.0f} {box[0] * height:.0f} "
        f"{box[3] * width:.0f} {box[2] * height:.0f}"
        for box, score, number in zip(found.boxes, found.scores, found.classes, strict=True)
    ]
    assert done.stdout.splitlines() == expected
    assert len(expected) > 10


def lively(detector: SSD) -> SSD:
    """With batch norms of pictures: features differ from place to place, as after training."""
    for layer in detector.network._flatten_layers():
        if hasattr(layer, "momentum"):
            layer.momentum = 0.0  # what is seen last counts
    batch = [detector.normalize(detector.resize(each)) for each in shown_pictures(4)]
    detector.network(tf.stack(batch), training=True)
    random = np.random.default_rng(0)
    for name, variable in detector.variables_by_name().items():
        if name.endswith(
            "moving_variance"
        ):  # of channels that hardly change the last bit would grow
            variable.assign(tf.maximum(variable, tf.reduce_mean(variable) * LEAST_VARIANCE))
        if CLASSES.search(name):
            variable.assign(random.normal(-2, 1, variable.shape))
    return detector


def agrees(detector: SSD, name: str, folder: Path, shown: list[UInt8Image]) -> Path:
    """Assert that the file of a format does what the network does before and behind suppression; the file."""
    (file,) = export(detector, NAMES, [name], folder, shown, "builtin", PASSPORT).values()
    measured = measure(file, shown, runs=2, threads=1, proven=True)
    expected = raw_beside(detector, shown)(file)
    assert not_exact(raw_difference(expected, measured.raw)) is None
    assert min(each.scores.std() for each in expected) > 0.01  # or all would agree
    assert np.abs(expected[0].boxes - expected[-1].boxes).max() > 0.01
    assert measured.class_names == NAMES
    assert (measured.passport["run"], measured.passport["format"]) == ("r1", name)
    if name != "onnx_raw":
        opened = load_detector(file)
        found = list(map(detector.as_detect(), (opened.prepare(each)[0] for each in shown)))
        same = agreement(found, measured.detections)
        assert (same.within_tolerance, same.unmatched) == (True, 0)
        assert min(map(len, found)) > 10
    return file
