"""EfficientDet-Lite0 with the weights of its golden, and the golden's pictures and boxes."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from odtrain.config.compose import compose_config
from odtrain.config.schema import ModelConfig
from odtrain.models.ssd import SSD

CLASSES = 3
PICTURES = [(1, 240, 320), (2, 333, 201)]
"""Seed, height and width."""
LEVELS = range(3, 8)


def golden_model(**changes: object) -> ModelConfig:
    """Without stochastic depth, as all of the golden but `survival`."""
    model = compose_config(["model=efficientdet_lite0_coco"]).model
    return replace(model, **{"survival_probability": 1.0, **changes})


def picture(seed: int, height: int, width: int) -> np.ndarray:
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (-(-height // 16), -(-width // 16), 3))
    large = coarse.repeat(16, 0).repeat(16, 1)[:height, :width]
    return ((3 * large + random.randint(0, 256, (height, width, 3))) // 4).astype(np.uint8)


def first_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The golden's weights, all but the moving statistics, by the rule of its README."""
    random, part = np.random.RandomState(zlib.crc32(name.encode())), name.rpartition("/")[2]
    if part == "depthwise_kernel":
        value = random.randn(*shape) * np.sqrt(2.0 / (shape[0] * shape[1]))
    elif part in ("kernel", "pointwise_kernel"):
        gain = 0.05 if "-predict" in name else 2.0
        value = random.randn(*shape) * np.sqrt(gain / np.prod(shape[:-1]))
    elif part == "bias":
        value = random.randn(*shape) * 0.3 - (2.0 if "class-predict" in name else 0.0)
    elif part == "gamma":
        value = random.uniform(0.6, 1.4, shape)
    else:
        value = random.randn(*shape) * 0.3
    return value.astype(np.float32)


def golden_weights(
    golden: np.lib.npyio.NpzFile, shapes: dict[str, list[int]]
) -> dict[str, np.ndarray]:
    """Every variable's value by automl's name, for `shapes` by the same."""
    return {
        name: golden[f"weights/{name}"] if "/moving_" in name else first_value(name, tuple(shape))
        for name, shape in shapes.items()
    }


def write_checkpoint(prefix: Path, values: dict[str, np.ndarray]) -> Path:
    """A checkpoint of TensorFlow 1's kind, that names variables."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    names = list(values)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=list(values.values()),
    )
    return prefix


def assign(detector: SSD, values: dict[str, np.ndarray]) -> None:
    for name, variable in detector.variables_by_name().items():
        variable.assign(values[name])


def batch(detector: SSD, golden: np.lib.npyio.NpzFile) -> dict[str, tf.Tensor]:
    """The golden's two pictures with their boxes, as training feeds them."""
    rows: dict[str, list[np.ndarray]] = {"images": [], "boxes": [], "classes": []}
    counts = []
    for index, which in enumerate(PICTURES):
        image = picture(*which)
        boxes, classes = (golden[f"groundtruth_{part}_{index}"] for part in ("boxes", "classes"))
        counts.append(len(boxes))
        missing = 4 - len(boxes)
        rows["images"].append(detector.resize(image).numpy())
        rows["boxes"].append(np.pad(boxes * detector.extent(image), [(0, missing), (0, 0)]))
        rows["classes"].append(np.pad(classes, (0, missing)))
    return {key: tf.constant(np.stack(value)) for key, value in rows.items()} | {
        "counts": tf.constant(counts)
    }


def flat(golden: np.lib.npyio.NpzFile, key: str, width: int) -> np.ndarray:
    """(2, A, width) of a golden's maps, `key` with a place for the level."""
    levels = [golden[key.format(level)].reshape(2, -1, width) for level in LEVELS]
    return np.concatenate(levels, axis=1)
