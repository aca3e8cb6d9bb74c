"""What several workers on one machine cost: the processor time of a picture, beside that of one process.

Workers win nothing on a machine without GPUs; what two take more than one says what sharing takes
of each of several machines, their network left out.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import processes, training

COUNTS = (1, 2)
"""Workers."""


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        overrides: of the configuration, behind those of the training benchmark.
        chunk: steps between two readings of the clock; the first chunk is the warm-up.
        chunks: that are measured.
        rounds: of all counts in turn.
    """

    overrides: tuple[str, ...] = ("train.batch_size=24",)
    chunk: int = 3
    chunks: int = 4
    rounds: int = 3


QUICK = Extent(("model.depth_multiplier=0.25", "train.batch_size=8"), 2, 2, 1)


@dataclass(frozen=True)
class Row:
    """A number of workers.

    Attributes:
        workers: processes that shared each batch; the machine's cores were shared out among them.
        images_per_second: of all workers, the median over chunks and rounds.
        cpu_seconds: of all workers for one picture, the median over chunks and rounds.
        share: pictures per processor second, of those that one worker reached in the same round: the median.
        lowest: the least of these.
        highest: the most.
        load: processes waiting or running over the last minute, before the first round.
    """

    workers: int
    images_per_second: float
    cpu_seconds: float
    share: float
    lowest: float
    highest: float
    load: float


def measure(extent: Extent = Extent()) -> list[Row]:
    """Train with each number of workers in turn.

    Raises:
        ProcessError: a worker failed.
    """
    with tempfile.TemporaryDirectory(prefix="odtrain-benchmark-") as scratch:
        folder = Path(scratch)
        overrides = [
            *training.prepared(folder),
            *extent.overrides,
            "train.precision=fp32",
            f"train.steps={extent.chunk * (1 + extent.chunks)}",
            f"train.log_every={extent.chunk}",
        ]
        load = os.getloadavg()[0]
        turns = [
            {count: _together(count, overrides, folder / f"{turn}-{count}") for count in COUNTS}
            for turn in tqdm(range(extent.rounds), desc="workers", unit="round")
        ]
    return [_row(count, turns, load) for count in COUNTS]


def _row(count: int, turns: list[dict[int, dict[str, float]]], load: float) -> Row:
    shares = [turn[COUNTS[0]]["cpu_seconds"] / turn[count]["cpu_seconds"] for turn in turns]
    return Row(
        workers=count,
        images_per_second=statistics.median(turn[count]["images_per_second"] for turn in turns),
        cpu_seconds=statistics.median(turn[count]["cpu_seconds"] for turn in turns),
        share=statistics.median(shares),
        lowest=min(shares),
        highest=max(shares),
        load=load,
    )


def _together(count: int, overrides: list[str], folder: Path) -> dict[str, float]:
    """Images a second and processor seconds a picture of `count` workers."""
    threads = max(1, (os.cpu_count() or 1) // count)
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]

    def one(rank: int) -> dict[str, Any]:
        cluster = {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": rank},
        }
        environment = {
            "TF_CONFIG": json.dumps(cluster),
            "TF_NUM_INTRAOP_THREADS": str(threads),
            "TF_NUM_INTEROP_THREADS": str(threads),
        }
        place = {"checkpoints": str(folder / str(rank)), "environment": environment}
        found: dict[str, Any] = processes.run(train, overrides=overrides, **place).value
        return found

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(one, range(count)))
    return {
        "images_per_second": statistics.median(found[0]["images_per_second"]),
        "cpu_seconds": sum(statistics.median(each["cpu_seconds"]) for each in found),
    }


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


# ---- what runs in a process of its own


def train(
    overrides: list[str], checkpoints: str, environment: dict[str, str]
) -> dict[str, list[float]]:
    """Train as one of the workers; speed and own processor time of each chunk but the first."""
    os.environ.update(environment)
    from odtrain.config.compose import compose_config
    from odtrain.dataset.read import read_dataset
    from odtrain.jobs.fitting import batches_of, detector_to_train
    from odtrain.training.loop import Fit
    from odtrain.training.team import join

    config = compose_config(overrides)
    team = join(config.train.devices)
    dataset = read_dataset(Path(config.data.prepared))
    detector = detector_to_train(config, dataset, team)
    fit = Fit(detector, config.train, Path(checkpoints), team)
    fit.resume()
    found = training.timed(
        fit,
        lambda first: batches_of(config, dataset, detector, first, Path(checkpoints), team),
    )
    team.leave()
    return found
