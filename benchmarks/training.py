"""How many pictures a second are trained on, beside what this CPU's matrix product allows.

Each variant trains in a process of its own, by `odtrain.training.loop.Fit` on prepared records with the
configuration of `model=ssd_mobilenet_v1_coco` and 90 classes, from random weights: decoding, flipping,
cropping, target assignment, hard mining and RMSProp are all in it. Before each, the product of two
large matrices is timed in the same precision. Multiplications of the network's convolutions, three
times over where they are trained (forward, and the gradients of input and kernel), are work that no
implementation on this product does without.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import pictures, processes
from odtrain.config.compose import compose_config
from odtrain.dataset.prepare import prepare

OLD_IMAGES_PER_SECOND = 4.8
"""TensorFlow 1.15's legacy/train.py, the same model at batch 24 on 2 idle cores of the same kind."""
OLD_PEAK_MEMORY_MB = 6390.0
"""Of the same: 6,094 MiB."""
NUM_CLASSES = 90


@dataclass(frozen=True)
class Variant:
    """A way to train.

    Attributes:
        precision: `train.precision`.
        freeze: `train.freeze`, stages of the backbone that are not trained.
    """

    precision: str
    freeze: int


VARIANTS = (Variant("fp32", 0), Variant("fp32", 4), Variant("bf16", 0), Variant("bf16", 4))
GOALS = {Variant("fp32", 0): 14.4, Variant("bf16", 0): 18.2}
"""Images per second on 2 idle cores: 3 and 3.8 times the old system's."""
TYPES = {"fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        overrides: of the configuration, behind the model's.
        chunk: steps between two readings of the clock; the first chunk is the warm-up.
        chunks: that are measured.
        matrix: rows and columns of the two matrices.
        variants: that are trained.
    """

    overrides: tuple[str, ...] = ()
    chunk: int = 5
    chunks: int = 6
    matrix: int = 4096
    variants: tuple[Variant, ...] = VARIANTS


QUICK = Extent(
    ("model.depth_multiplier=0.25", "train.batch_size=8"), 2, 3, 2048, (VARIANTS[0], VARIANTS[3])
)


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        variant: what was trained.
        batch_size: pictures a step.
        images_per_second: median over the chunks.
        cpu_seconds: of the process for one picture, median over the chunks.
        gflop: additions and multiplications of the convolutions for one picture, in 10^9.
        product_gflops: of the matrix product just before, the best, all cores.
        bound: pictures a second if all time went into `gflop` at that speed.
        share: of the bound that was reached.
        cpu_share: the same by processor time: what share of it the product would have needed.
        ratio: how many times as fast as the old system.
        peak_memory_mb: largest resident memory of the process in 10^6 bytes.
        load: processes waiting or running over the last minute, before it started.
    """

    variant: Variant
    batch_size: int
    images_per_second: float
    cpu_seconds: float
    gflop: float
    product_gflops: float
    bound: float
    share: float
    cpu_share: float
    ratio: float
    peak_memory_mb: float
    load: float


def measure(extent: Extent = Extent()) -> list[Row]:
    """Train every variant on the same records.

    Raises:
        ProcessError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="odtrain-benchmark-") as scratch:
        folder = Path(scratch)
        overrides = [*prepared(folder), *extent.overrides]
        return [
            _measured(folder, variant, overrides, extent)
            for variant in tqdm(extent.variants, desc="training", unit="variant")
        ]


def prepared(folder: Path) -> list[str]:
    """Prepare the pictures at hand in a folder; return the overrides that use them."""
    images, labels = (path.parent for path in pictures.sources()[0])
    overrides = [
        "model=ssd_mobilenet_v1_coco",
        "train.checkpoint=null",
        "data.name=benchmark",
        f"data.images={images}",
        f"data.annotations={labels}",
        f"data.prepared={folder / 'prepared'}",
    ]
    prepare(compose_config(overrides).data)
    return overrides


def _measured(folder: Path, variant: Variant, overrides: list[str], extent: Extent) -> Row:
    product = processes.run(time_product, dtype=TYPES[variant.precision], size=extent.matrix).value
    done = processes.run(
        train,
        overrides=[
            *overrides,
            f"train.steps={extent.chunk * (1 + extent.chunks)}",
            f"train.log_every={extent.chunk}",
            f"train.precision={variant.precision}",
            f"train.freeze={variant.freeze}",
        ],
        checkpoints=str(folder / f"{variant.precision}-{variant.freeze}"),
    )
    found = done.value
    speed = statistics.median(found["images_per_second"])
    cpu_seconds = statistics.median(found["cpu_seconds"])
    bound = product["gflops"] / found["gflop"]
    return Row(
        variant=variant,
        batch_size=found["batch_size"],
        images_per_second=speed,
        cpu_seconds=cpu_seconds,
        gflop=found["gflop"],
        product_gflops=product["gflops"],
        bound=bound,
        share=speed / bound,
        cpu_share=found["gflop"] / product["gflop_per_cpu_second"] / cpu_seconds,
        ratio=speed / OLD_IMAGES_PER_SECOND,
        peak_memory_mb=done.peak_memory_mb,
        load=done.load,
    )


# ---- what runs in a process of its own


def time_product(dtype: str, size: int) -> dict[str, float]:
    """The product that bounds training, all cores; 10^9 operations a second."""
    from odtrain.training.bound import time_matrix_product

    return time_matrix_product(dtype, size, seconds=5.0)._asdict()


def train(overrides: list[str], checkpoints: str) -> dict[str, Any]:
    """Train as the configuration says; return speed and processor time of each chunk but the first."""
    from odtrain.dataset.read import read_dataset
    from odtrain.io.tfrecord import index_records
    from odtrain.models.build import build_detector
    from odtrain.training.bound import gflop_of_training
    from odtrain.training.input_pipeline import training_batches
    from odtrain.training.loop import Fit

    config = compose_config(overrides)
    index = index_records(read_dataset(Path(config.data.prepared)).records("train"))
    detector = build_detector(
        config.model,
        NUM_CLASSES,
        frozen_stages=config.train.freeze,
        batch_norm_trained=config.train.batch_norm == "trained",
        precision=config.train.precision,
        seed=config.train.seed,
    )
    found = timed(
        Fit(detector, config.train, Path(checkpoints)),
        lambda first_step: training_batches(
            index,
            detector.resize,
            config.augment,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            first_step=first_step,
            cache_mb=config.train.cache_mb,
        ),
    )
    return {
        "batch_size": config.train.batch_size,
        "gflop": gflop_of_training(detector.network),
        **found,
    }


def timed(fit: Any, batches: Callable[[int], Any]) -> dict[str, list[float]]:
    """Train to the end: the speed, and this process's own time for a picture, of each chunk but the first."""
    from odtrain.training.loop import Listener

    speeds, cpu = [], []

    def note(metrics: dict[str, float], step: int) -> None:
        cpu.append(time.process_time())
        if "train/images_per_second" in metrics:
            speeds.append(metrics["train/images_per_second"])

    listener = Listener(note, lambda: None, lambda step: None)
    fit.run(batches, lambda step: [str(step)], None, 0, listener)
    images = fit.config.log_every * fit.config.batch_size
    used = [(end - start) / images for start, end in itertools.pairwise(cpu)]
    return {"images_per_second": speeds, "cpu_seconds": used}
