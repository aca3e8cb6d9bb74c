"""EfficientDet-Lite0 with its golden's weights, the golden's pictures and boxes, and training steps on them.

In training mode the kernels that oneDNN brings move the golden's box loss by 4e-4; the golden was made without
them. So its steps are taken in a process of its own (the caller sets TF_ENABLE_ONEDNN_OPTS=0):

    python tests/support/golden_efficientdet.py GOLDEN_FOLDER train|survival OUTPUT.npz
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import tensorflow as tf
import tf_keras
from support.tf1_checkpoints import write_checkpoint

from odtrain.config.compose import compose_config
from odtrain.config.schema import ModelConfig
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.training.losses import training_loss
from odtrain.training.optimizers import build_optimizer

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


def golden_detector(golden: np.lib.npyio.NpzFile, **changes: object) -> SSD:
    """With the golden's weights."""
    detector = build_detector(golden_model(**changes), CLASSES)
    shapes = {name: v.shape.as_list() for name, v in detector.variables_by_name().items()}
    assign(detector, golden_weights(golden, shapes))
    return detector


def golden_checkpoint(folder: Path, prefix: Path) -> Path:
    """A checkpoint of the weights of the golden in `folder`."""
    found = golden_detector(np.load(folder / "golden.npz")).variables_by_name()
    return write_checkpoint(prefix, {name: v.numpy() for name, v in found.items()})


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


def losses_and_gradients(
    detector: SSD, fed: dict[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor]:
    """Box, class and regularisation loss, the outputs, and `gradient/NAME` of their sum before clipping."""
    with tf.GradientTape() as tape:
        encodings, logits = detector.network(detector.normalize(fed["images"]), training=training)
        boxes, classes = training_loss(detector, fed, encodings, logits, "efficientdet")
        losses = tf.stack([boxes, classes, detector.regularization()])
        whole = tf.reduce_sum(losses)
    gradients = tape.gradient(whole, detector.trainable_variables)
    named = zip(names_of(detector), gradients, strict=True)
    return {"losses": losses, "encodings": encodings, "logits": logits} | {
        f"gradient/{name}": gradient for name, gradient in named
    }


def names_of(detector: SSD) -> list[str]:
    """automl's names of the trainable variables, in their order."""
    names = {id(v): name for name, v in detector.variables_by_name().items()}
    return [names[id(v)] for v in detector.trainable_variables]


class Rates(tf_keras.optimizers.schedules.LearningRateSchedule):
    """Learning rates, one a step."""

    def __init__(self, rates: np.ndarray) -> None:
        self.rates = tf.constant(rates, tf.float32)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.rates, tf.cast(step, tf.int32))


def trained(detector: SSD, golden: np.lib.npyio.NpzFile, steps: int) -> dict[str, np.ndarray]:
    """What the first step said, what was there after it, and `losses` (steps, 3) of each."""
    fed = batch(detector, golden)
    config = compose_config(["model=efficientdet_lite0_coco"]).train
    optimizer = build_optimizer(config, Rates(golden["steps/learning_rate"]))
    optimizer.build(detector.trainable_variables)

    @tf.function
    def step() -> dict[str, tf.Tensor]:
        said = losses_and_gradients(detector, fed, training=True)
        gradients = [said[f"gradient/{name}"] for name in names_of(detector)]
        optimizer.apply_gradients(zip(gradients, detector.trainable_variables, strict=True))
        return said

    first = {name: value.numpy() for name, value in step().items()}
    after = {f"variable/{name}": v.numpy() for name, v in detector.variables_by_name().items()}
    for kind, slots in (
        ("average", optimizer._model_variables_moving_average),
        ("momentum", optimizer.momentums),
    ):
        named = zip(names_of(detector), slots, strict=True)
        after |= {f"{kind}/{name}": slot.numpy() for name, slot in named}
    later = [step()["losses"].numpy() for _ in range(steps - 1)]
    return first | after | {"losses": np.stack([first["losses"], *later])}


def survived(folder: Path) -> dict[str, np.ndarray]:
    """One step with stochastic depth, by the draws of the golden."""
    golden = np.load(folder / "golden.npz")
    rows = golden["survival/block_p_u0_u1_keep0_keep1"]
    draws = iter(rows[:, 2:4].astype(np.float32))
    detector = golden_detector(golden, survival_probability=0.8)

    def draw(shape: object) -> tf.Tensor:
        return tf.reshape(tf.constant(next(draws)), (2, 1, 1, 1))

    with mock.patch.object(tf.random, "uniform", draw):
        found = trained(detector, golden, steps=1)
    assert next(draws, None) is None
    return found


if __name__ == "__main__":
    source = Path(sys.argv[1])
    stored = np.load(source / "golden.npz")
    found = (
        survived(source)
        if sys.argv[2] == "survival"
        else trained(golden_detector(stored), stored, steps=3)
    )
    np.savez(sys.argv[3], **found)
