"""How much the latency of one file differs when it is timed again, alone and beside other trainings.

A sweep compares latencies that were taken one after the other, by workers that train side by side and wait
for each other's timings (`odtrain.system.timing_lock`). What is left of the disturbance is what
`sweep.latency_noise`
is to cover. Neighbours here multiply matrices in steps as long as a training's, on one processor each.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import pictures, processes, zoo
from odtrain.config.compose import section
from odtrain.config.schema import BenchmarkConfig
from odtrain.export import benchmark
from odtrain.system import timing_lock as turns

MODEL = "panels_ssd_mobilenet_v1"
FORMATS = ("tflite_fp32", "tflite_int8", "pb")
NEIGHBOURS = {"none": (0, False), "two that wait": (2, True), "two that do not wait": (2, False)}
"""Who computes meanwhile: how many processes, and whether they take turns as a sweep's workers do."""
ONE_PROCESSOR = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
STEP_SECONDS = 0.1
"""About what a step of a small training takes."""


@dataclass(frozen=True)
class Row:
    """One file beside one kind of neighbours.

    Attributes:
        format: of the file.
        neighbours: a key of `NEIGHBOURS`.
        latencies: in ms, the median of each timing.
        load: processes waiting or running over the last minute, before the first one.
    """

    format: str
    neighbours: str
    latencies: tuple[float, ...]
    load: float

    @property
    def median(self) -> float:
        """Of the timings, in ms."""
        return statistics.median(self.latencies)

    def within(self, share: float) -> float:
        """How far `share` of the timings lie from their median at most, as a fraction of it."""
        away = sorted(abs(each - self.median) / self.median for each in self.latencies)
        return away[max(0, round(share * len(away)) - 1)]


def measure(rounds: int = 20) -> list[Row]:
    """Time each file `rounds` times beside each kind of neighbours, the files in turn."""
    picture = pictures.decoded(1)
    timing = section(BenchmarkConfig)
    rows = []
    with tempfile.TemporaryDirectory(prefix="odtrain-noise-") as scratch:
        folder = Path(scratch)
        made = processes.run(
            zoo.write_files, model=MODEL, formats=list(FORMATS), nms="builtin", folder=str(folder)
        ).value["written"]
        with tqdm(total=len(NEIGHBOURS) * rounds, desc="noise", unit="round") as bar:
            for kind, (count, waiting) in NEIGHBOURS.items():
                load = os.getloadavg()[0]
                found: dict[str, list[float]] = {format: [] for format, _ in made}
                with _neighbours(count, folder / "turns" if waiting else None):
                    for _ in range(rounds):
                        for format, file in made:
                            timed = benchmark.measure(
                                Path(file), picture, timing.runs, timing.threads
                            )
                            found[format].append(timed.latency_ms_p50)
                        bar.update()
                rows += [Row(format, kind, tuple(ms), load) for format, ms in found.items()]
    return rows


@contextmanager
def _neighbours(count: int, folder: Path | None) -> Iterator[None]:
    """`count` processes that compute; with `folder` this one and they take turns there."""
    command = [sys.executable, "-m", "benchmarks.noise", *([str(folder)] if folder else [])]
    kept = os.environ.get(turns.VARIABLE)
    with ExitStack() as stack:
        if folder:
            os.environ[turns.VARIABLE] = str(folder)
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | ONE_PROCESSOR)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
        try:
            yield
        finally:
            os.environ.pop(turns.VARIABLE, None)
            if kept is not None:
                os.environ[turns.VARIABLE] = kept


# ---- what runs in a process of its own


def compute(folder: Path | None) -> None:
    """Multiply matrices until killed, giving way between two steps where there is a folder."""
    if folder:
        turns.take_part(folder)
    matrix = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    print("computing", flush=True)
    while True:
        turns.give_way()
        end = time.monotonic() + STEP_SECONDS
        while time.monotonic() < end:
            matrix @ matrix


if __name__ == "__main__":
    compute(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
