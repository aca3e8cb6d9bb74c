"""Which precision is the fastest here: a small network of the kind is trained for a second in both.

What the instructions promise is not what training gets: with bfloat16 matrix instructions a wide network of
dense or of pointwise convolutions takes 0.6 to 0.9 times as long as in fp32, a narrow one up to twice as long.
The seconds are remembered for a week for this machine, its instructions and the variables that they follow
from. A kernel, a hypervisor or a neighbour that changes what no name shows is noticed then.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from odtrain import __version__
from odtrain.io.archives import cache_folder
from odtrain.io.atomic import write_text
from odtrain.models.blocks import divisible
from odtrain.models.layers import POLICIES, Layers, Record
from odtrain.system.processor import onednn_is_on, this_processor
from odtrain.system.workers import cores

MARGIN = 1.05
"""bf16 must be so many times as fast to be chosen: fp32 is what the reference computed in."""
SECONDS = 1.0
"""That the steps of one measurement take together, where single ones do not take longer."""
KEPT_SECONDS = 7 * 24 * 3600
VARIABLES = re.compile("ONEDNN|DNNL|OMP_|CUDA_VISIBLE|TF_(?!CPP_|USE_LEGACY)")
"""How environment variables begin that the speed follows from."""
WITH_BF16 = (8, 0)
"""The compute capability from which GPUs have instructions for it."""

COMPUTED = 2
"""Counted up where odtrain computes otherwise than before: what was measured then is no longer so."""

_ready: dict[Kind, Steps] = {}


class Kind(NamedTuple):
    """What a network is made of, as far as its speed follows from it.

    Attributes:
        blocks: a key of `BLOCKS`.
        width: its depth multiplier, at most 1.
    """

    blocks: str
    width: float = 1.0


class Place(NamedTuple):
    """What computes in this process.

    Attributes:
        name: of the GPU, or of the processor.
        instructions: its widest set of them.
        bf16: whether bfloat16 is computed by instructions; otherwise it is emulated.
        onednn: whether TensorFlow uses oneDNN.
        threads: of one operation.
    """

    name: str
    instructions: str
    bf16: bool
    onednn: bool
    threads: int

    def __str__(self) -> str:
        onednn = "on" if self.onednn else "off"
        return f"{self.name}, {self.instructions}, oneDNN {onednn}, {self.threads} threads"


@dataclass(frozen=True)
class Steps:
    """How long a step of a small network takes.

    Attributes:
        fp32: seconds.
        bf16: seconds; None where TensorFlow refuses to compute it.
        at: when it was measured, in seconds since 1970.
        remembered: whether that was in another process.
    """

    fp32: float
    bf16: float | None
    at: float
    remembered: bool = False

    @property
    def factor(self) -> float:
        """How many times as long a step takes in bf16."""
        return float("inf") if self.bf16 is None else self.bf16 / self.fp32

    def __str__(self) -> str:
        when = f"remembered from {time.strftime('%Y-%m-%d %H:%M', time.localtime(self.at))}"
        bf16 = "cannot be computed in bf16"
        if self.bf16 is not None:
            bf16 = f"{1000 * self.bf16:.1f} ms in bf16"
        return (
            f"a step of a small network of this kind takes {1000 * self.fp32:.1f} ms in fp32 and {bf16}, "
            f"{when if self.remembered else 'measured now'}"
        )


def fastest(place: Place, steps: Steps) -> str:
    """`fp32` or `bf16`: what was measured to be faster; never an emulation."""
    return "bf16" if place.bf16 and steps.factor * MARGIN < 1 else "fp32"


@cache
def this_place() -> Place:
    """What this process computes on: the first GPU that TensorFlow has, or the processor."""
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    threads = threads or int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0")) or cores()
    onednn, processor = onednn_is_on(), this_processor()
    for gpu in tf.config.list_physical_devices("GPU")[:1]:
        details = tf.config.experimental.get_device_details(gpu)
        capability = details.get("compute_capability") or (0, 0)
        return Place(
            details.get("device_name", "GPU"),
            f"compute capability {'.'.join(map(str, capability))}",
            capability >= WITH_BF16,
            onednn,
            threads,
        )
    # Without oneDNN TensorFlow emulates it, whatever the processor has.
    bf16 = processor.has_bf16 and onednn
    return Place(processor.name, processor.instructions, bf16, onednn, threads)


def steps_here(kind: Kind) -> Steps:
    """How long steps of a network of this kind take in this process; measured, or remembered."""
    if kind not in _ready:
        file = _file(kind)
        _ready[kind] = _remembered(file) or _remember(file, measure_steps(kind))
    return _ready[kind]


# ---- remembering


def _file(kind: Kind) -> Path:
    """Where the seconds of this machine, and of all else that they follow from, are kept."""
    variables = {key: text for key, text in os.environ.items() if VARIABLES.match(key)}
    versions = [__version__, version("tensorflow")]
    key = [kind, COMPUTED, platform.node(), this_place(), sorted(variables.items()), versions]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return cache_folder().parent / "speed" / f"{digest}.json"


def _remembered(file: Path) -> Steps | None:
    try:
        steps = Steps(**json.loads(file.read_text(encoding="utf-8")), remembered=True)
        return steps if 0 <= time.time() - steps.at < KEPT_SECONDS and steps.fp32 > 0 else None
    except (OSError, ValueError, TypeError):  # not there, or not ours: it is measured again
        return None


def _remember(file: Path, steps: Steps) -> Steps:
    values = {key: value for key, value in asdict(steps).items() if key != "remembered"}
    with suppress(OSError):  # who cannot write there measures every time
        write_text(file, json.dumps(values), durable=False)
    return steps


# ---- measuring


def measure_steps(kind: Kind) -> Steps:
    """Train a small network in both precisions for a second, in turns; the best of each counts.

    Other work on the machine disturbs both alike, and the best step the least.
    """
    fp32 = _step("fp32", kind)
    steps, best = {"fp32": fp32}, {"fp32": float("inf")}
    fp32()
    with suppress(tf.errors.OpError):  # oneDNN refuses what it has no instructions for
        bf16 = _step("bf16", kind)
        bf16()
        steps["bf16"] = bf16
    end = time.perf_counter() + SECONDS
    while best["fp32"] == float("inf") or time.perf_counter() < end:
        for precision, step in steps.items():
            began = time.perf_counter()
            step()
            best[precision] = min(best.get(precision, float("inf")), time.perf_counter() - began)
    return Steps(best["fp32"], best.get("bf16"), time.time())


def _step(precision: str, kind: Kind) -> Callable[[], object]:
    """A function that takes a training step without an update, and waits for it."""
    make = Layers(Record(), POLICIES[precision], 0, "he", 0.03, 0.99, 0.001)
    network = BLOCKS[kind.blocks](make, kind.width)
    size = (2, *network.input_shape[1:])
    # NumPy's: TensorFlow's random numbers are the training's.
    picture = tf.constant(np.random.default_rng(0).random(size, np.float32))

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.cast(network(picture, training=True), tf.float32) ** 2)
        gradients = tape.gradient(loss, network.trainable_variables)
        return tf.add_n([tf.reduce_sum(one) for one in gradients])

    return lambda: step().numpy()


def _separable(make: Layers, width: float) -> tf_keras.Model:
    """The middle of a MobileNet v1."""
    x = images = tf_keras.Input((75, 75, int(64 * width)), name="images")
    for i, (filters, stride) in enumerate([(128, 1), (256, 2), (512, 2), (512, 1)]):
        x = make.depthwise(x, f"depthwise{i}", 3, stride)
        x = make.conv(x, f"pointwise{i}", int(filters * width), 1)
    return tf_keras.Model(images, x, name="separable")


def _inverted(make: Layers, width: float) -> tf_keras.Model:
    """The first half of a MobileNet v2: six times as many channels inside each block as between them."""
    linear = make.with_activation(None)
    x = images = tf_keras.Input((75, 75, divisible(24 * width, 8)), name="images")
    for i, (filters, stride) in enumerate([(24, 1), (32, 2), (32, 1), (64, 2), (64, 1)]):
        x = make.conv(x, f"expand{i}", 6 * x.shape[-1], 1)
        x = make.depthwise(x, f"depthwise{i}", 3, stride)
        x = linear.conv(x, f"project{i}", divisible(filters * width, 8), 1)
    return tf_keras.Model(images, x, name="inverted")


def _dense(make: Layers, width: float) -> tf_keras.Model:
    """What a ResNet and the heads of an FPN are made of."""
    x = images = tf_keras.Input((38, 38, int(64 * width)), name="images")
    for i, (filters, stride) in enumerate([(128, 2), (128, 1), (256, 2), (256, 1)]):
        x = make.conv(x, f"conv{i}", int(filters * width), 3, stride)
    return tf_keras.Model(images, x, name="dense")


BLOCKS: dict[str, Callable[[Layers, float], tf_keras.Model]] = {
    "separable": _separable,
    "inverted": _inverted,
    "dense": _dense,
}
"""Small networks that stand for the kinds."""
