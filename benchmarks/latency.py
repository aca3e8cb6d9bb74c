"""How fast each exported file finds objects, how large it is, and what memory it takes.

Each file is timed on a picture of its input size, in a process of its own. Suppression takes the longer
the more a network finds, and per class it can take longer than the network itself: besides the
full-width network with random weights, one with COCO weights is measured where its tarball is at hand.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from benchmarks import pictures, processes
from odtrain.config.compose import compose_config
from odtrain.export import benchmark
from odtrain.export_formats import FORMATS

NUM_CLASSES = 90
CALIBRATION_PICTURES = 20
THREADS = (1, 2)
ZOO = pictures.CHECKOUT.parent / "shared" / "zoo"


class Network(NamedTuple):
    """What is exported.

    Attributes:
        name: for people.
        overrides: of the configuration.
        checkpoint: its weights, random without.
    """

    name: str
    overrides: tuple[str, ...]
    checkpoint: Path | None = None


FULL = Network("depth 1, random", ("model=ssd_mobilenet_v1_coco",))
COCO = Network(
    "depth 0.75, COCO",
    ("model=ssd_mobilenet_v1_0.75_depth_coco",),
    ZOO / "ssd_mobilenet_v1_0.75_depth_coco_dequantized.tar.gz",
)
SMALL = Network("depth 0.25, random", (*FULL.overrides, "model.depth_multiplier=0.25"))


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        networks: that are exported, those whose checkpoint is at hand.
        formats: for each `export.nms`, what is exported.
        runs: timed runs of each file.
    """

    networks: tuple[Network, ...]
    formats: dict[str, tuple[str, ...]]
    runs: int = 50


WHOLE = Extent((FULL, COCO), {"builtin": tuple(FORMATS), "fast": ("tflite_fp32", "tflite_int8")})
QUICK = Extent((SMALL,), {"builtin": ("pb", "tflite_fp32"), "fast": ("tflite_int8",)}, 10)


class File(NamedTuple):
    """An exported file: of which network, in which format, with which `export.nms`."""

    network: str
    format: str
    nms: str
    path: Path


@dataclass(frozen=True)
class Row:
    """One file, run with one number of threads.

    Attributes:
        file: which.
        asked: threads that it was allowed.
        threads: that it ran with: a .tflite that would lose detections by more takes one.
        latency_ms_p50: median of its runs.
        latency_ms_p90: ninth decile of its runs.
        ratio: how many times as fast as the network's first file with as many threads allowed.
        size_mb: of the file, or of all files in the folder, in 10^6 bytes.
        peak_memory_mb: largest resident memory of its process in 10^6 bytes.
        load: processes waiting or running over the last minute, before it ran.
    """

    file: File
    asked: int
    threads: int
    latency_ms_p50: float
    latency_ms_p90: float
    ratio: float
    size_mb: float
    peak_memory_mb: float
    load: float


def measure(extent: Extent = WHOLE) -> list[Row]:
    """Export every network in every format, then time every file with each number of threads.

    Raises:
        ProcessError: exporting failed.
        ModelFileError: an exported file cannot be run.
    """
    picture = pictures.decoded(1)
    with tempfile.TemporaryDirectory(prefix="odtrain-benchmark-") as folder:
        files = list(_exported(extent, Path(folder)))
        jobs = [(file, threads) for threads in THREADS for file in files]
        rows: list[Row] = []
        first: dict[tuple[str, int], float] = {}
        for file, threads in tqdm(jobs, desc="timing", unit="file"):
            load = os.getloadavg()[0]
            found = benchmark.measure(file.path, picture, extent.runs, threads)
            reference = first.setdefault((file.network, threads), found.latency_ms_p50)
            rows.append(
                Row(
                    file=file,
                    asked=threads,
                    threads=found.threads,
                    latency_ms_p50=found.latency_ms_p50,
                    latency_ms_p90=found.latency_ms_p90,
                    ratio=reference / found.latency_ms_p50,
                    size_mb=found.size_mb,
                    peak_memory_mb=found.peak_memory_mb,
                    load=load,
                )
            )
        return rows


def _exported(extent: Extent, folder: Path) -> Iterator[File]:
    networks = [each for each in extent.networks if not each.checkpoint or each.checkpoint.exists()]
    jobs = [(network, *item) for network in networks for item in extent.formats.items()]
    for network, nms, formats in tqdm(jobs, desc="exporting", unit="export"):
        written = processes.run(
            write_files,
            overrides=list(network.overrides),
            checkpoint=str(network.checkpoint or ""),
            formats=list(formats),
            nms=nms,
            folder=str(folder / network.name / nms),
        ).value
        for name, path in written.items():
            yield File(network.name, name, nms if name.startswith("tflite") else "", Path(path))


# ---- what runs in a process of its own


def write_files(
    overrides: list[str],
    checkpoint: str,
    formats: list[str],
    nms: str,
    folder: str,
) -> dict[str, str]:
    """Export a network, with random weights if no checkpoint is named; return each format's path."""
    from odtrain.export.writers import export
    from odtrain.models.build import build_detector
    from odtrain.zoo.restore import restore

    detector = build_detector(compose_config(overrides).model, NUM_CLASSES)
    if checkpoint:
        restore(detector, Path(checkpoint), "all")
    names = [f"class {number}" for number in range(1, NUM_CLASSES + 1)]
    calibration = pictures.decoded(CALIBRATION_PICTURES)
    written = export(detector, names, formats, Path(folder), calibration, nms, passport={})
    return {name: str(path) for name, path in written.items()}
