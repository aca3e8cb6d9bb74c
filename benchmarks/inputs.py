"""How many pictures a second the input pipeline gives, beside how many a training step takes.

Each row is a process of its own, in turn: the pipeline alone, without and with decoded pictures kept,
and training steps whose pictures come from one batch that is given again and again, so that they wait
for no pipeline.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import pictures, processes
from odtrain.config.compose import compose_config
from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare

CACHE_MB = 512


@dataclass(frozen=True)
class Network:
    """A network and the pictures that it is trained on.

    Attributes:
        name: for people.
        overrides: of the configuration.
        own_pictures: those that the configuration names, instead of `benchmarks.pictures`.
    """

    name: str
    overrides: tuple[str, ...]
    own_pictures: bool = False


NETWORKS = (
    Network("panels, 160x160", (), own_pictures=True),
    Network("ssd_mobilenet_v1, 300x300", ("model=ssd_mobilenet_v1_coco", "train.checkpoint=null")),
)


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        rounds: of all rows, in turn.
        seconds: that each row is measured for, after its warm-up.
        networks: that are measured.
    """

    rounds: int = 3
    seconds: float = 10.0
    networks: tuple[Network, ...] = NETWORKS


QUICK = Extent(1, 1.0, NETWORKS[:1])


@dataclass(frozen=True)
class Row:
    """One network, medians over the rounds.

    Attributes:
        network: its name.
        step: pictures a second of training steps alone.
        plain: pictures a second of the pipeline alone, each decoded anew.
        kept: the same with decoded pictures kept.
        load: processes waiting or running over the last minute, before it started.
    """

    network: str
    step: float
    plain: float
    kept: float
    load: float


def measure(extent: Extent = Extent()) -> list[Row]:
    """Measure the pipeline and the steps of each network, in turn.

    Raises:
        ProcessError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="odtrain-benchmark-") as scratch:
        return [
            _measured(network, Path(scratch) / str(number), extent)
            for number, network in enumerate(tqdm(extent.networks, desc="inputs", unit="network"))
        ]


def _measured(network: Network, folder: Path, extent: Extent) -> Row:
    overrides = [*network.overrides, f"data.prepared={folder}"]
    if not network.own_pictures:
        images, labels = (path.parent for path in pictures.sources()[0])
        overrides += ["data.name=benchmark", f"data.images={images}", f"data.annotations={labels}"]
    prepare(compose_config(overrides).data)
    given = {"overrides": overrides, "seconds": extent.seconds}
    runs: dict[str, list[processes.Finished]] = {"step": [], "plain": [], "kept": []}
    for _ in range(extent.rounds):
        runs["step"].append(processes.run(steps, **given))
        runs["plain"].append(processes.run(pipeline, cache_mb=0, **given))
        runs["kept"].append(processes.run(pipeline, cache_mb=CACHE_MB, **given))
    medians = {
        name: statistics.median(run.value for run in finished) for name, finished in runs.items()
    }
    load = statistics.median(run.load for run in runs["step"])
    return Row(network.name, **medians, load=load)


# ---- what runs in a process of its own


def pipeline(overrides: list[str], seconds: float, cache_mb: float) -> float:
    """Pictures a second of the pipeline alone, after one epoch in which pictures come to be kept."""
    config = compose_config(overrides)
    batches, pictures_of_an_epoch = batches_of(config, cache_mb)
    warm_up = -(-pictures_of_an_epoch // config.train.batch_size) + 1
    for _ in itertools.islice(batches, warm_up):
        pass
    return _rate(batches, config.train.batch_size, seconds)


def steps(overrides: list[str], seconds: float) -> float:
    """Pictures a second of training steps alone: one batch, given again and again."""
    import tensorflow as tf

    from odtrain.dataset.read import read_dataset
    from odtrain.models.build import build_detector
    from odtrain.training.loop import Fit, Listener

    config = compose_config(overrides)
    classes = len(read_dataset(Path(config.data.prepared)).class_names)
    detector = build_detector(config.model, classes, seed=config.train.seed)
    batch = next(batches_of(config, 0)[0])
    speeds: list[float] = []
    begun = time.monotonic()

    def note(metrics: dict[str, float], step: int) -> None:
        if "train/images_per_second" in metrics:
            speeds.append(metrics["train/images_per_second"])
        if len(speeds) > 2 and time.monotonic() - begun > 3 * seconds:
            raise _EnoughError

    settings = replace(config.train, steps=10**6, log_every=5, checkpoint_every=10**6)
    with tempfile.TemporaryDirectory() as checkpoints:
        try:
            Fit(detector, settings, Path(checkpoints)).run(
                lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
                lambda step: [str(step)],
                None,
                0,
                Listener(note, lambda: None, lambda step: None),
            )
        except _EnoughError:
            pass
    return statistics.median(speeds[1:])


class _EnoughError(Exception):
    """Enough was measured."""


def batches_of(config: Config, cache_mb: float) -> tuple[Iterator[Any], int]:
    """Batches as a training gets them, and how many pictures an epoch has."""
    from odtrain.dataset.read import read_dataset
    from odtrain.io.tfrecord import index_records
    from odtrain.models.ssd import extent, resize
    from odtrain.training.input_pipeline import training_batches

    index = index_records(read_dataset(Path(config.data.prepared)).records("train"))
    batches = training_batches(
        index,
        lambda image: resize(image, config.model),
        config.augment,
        extent=lambda image: extent(image, config.model),
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        first_step=0,
        cache_mb=cache_mb,
    )
    return iter(batches), len(index)


def _rate(batches: Iterator[Any], batch_size: int, seconds: float) -> float:
    count, begun = 0, time.monotonic()
    while (taken := time.monotonic() - begun) < seconds:
        next(batches)
        count += batch_size
    return count / taken
