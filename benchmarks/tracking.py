"""What logging costs: steps that log ten metrics, beside steps that log none.

`python benchmarks/tracking.py` prints one table after about three minutes; `--uri` names another
store than a new sqlite database.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.structures import FloatArray
from odtrain.tracking.tracker import Tracker

METRICS = {f"train/metric_{number}": 0.5 for number in range(10)}
EVERY = (1, 10)
"""Steps between two that log; 10 is what `train.log_every` has."""
STEP_SECONDS = 0.1
STEPS = 60
"""In a block: at least as long as the buffer waits before it sends."""
ROUNDS = 10
"""Of one block of each kind."""

Work = tuple[FloatArray, int]
"""A matrix, and how often its square is computed in a step."""


@dataclass(frozen=True)
class Measured:
    """Seconds.

    Attributes:
        silent: of each block of steps that log nothing.
        logging: steps between two that log -> of each block beside a silent one, until all that
            it logged has arrived in the store.
        calls: of each call that logs the metrics of a step.
        sending: steps between two that log -> of a processor, for sending what each block logged.
    """

    silent: list[float]
    logging: dict[int, list[float]]
    calls: list[float]
    sending: dict[int, list[float]]


@dataclass(frozen=True)
class Row:
    """One cost of logging.

    Attributes:
        name: of what costs.
        milliseconds: of it in a step, median.
        share: of a step that logs nothing.
        load: processes waiting or running over the last minute, before all of it was measured.
    """

    name: str
    milliseconds: float
    share: float
    load: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of one block of each kind")
    parser.add_argument("--uri", help="the store to log to")
    flags = parser.parse_args()
    with started(flags.uri) as tracker:
        print(table(measure(tracker, flags.rounds)))


@contextmanager
def started(uri: str | None) -> Iterator[Tracker]:
    """A run to log to, in the store `uri` or in a new sqlite database that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        config = section(
            TrackingConfig,
            uri=uri or f"sqlite:///{scratch}/mlflow.db",
            experiment="benchmark",
            system_metrics=False,
            flush_seconds=3600.0,  # sent at the end of each block, where it can be timed
        )
        with Tracker(config, Path(scratch) / "outputs").start("benchmark") as tracker:
            yield tracker


def compare(rounds: int = ROUNDS, uri: str | None = None) -> list[Row]:
    """Measure, and put a step that logs nothing beside each cost of logging."""
    load = os.getloadavg()[0]
    with started(uri) as tracker:
        measured = measure(tracker, rounds)
    one_step = statistics.median(measured.silent) / STEPS
    costs = {"a step that logs nothing": one_step}
    costs["the call that logs"] = statistics.median(measured.calls)
    for every, blocks in measured.logging.items():
        pairs = zip(measured.silent, blocks, strict=True)
        longer = statistics.median(after - before for before, after in pairs) / STEPS
        costs[f"longer steps, until all has arrived, logging every {every}"] = longer
        sending = statistics.median(measured.sending[every]) / STEPS
        costs[f"processor time to send, logging every {every}"] = sending
    return [Row(name, 1000 * cost, cost / one_step, load) for name, cost in costs.items()]


def measure(tracker: Tracker, rounds: int) -> Measured:
    """Time blocks of each kind in turn, so that all see the same machine."""
    work = sized_work()
    measured = Measured([], {k: [] for k in EVERY}, [], {k: [] for k in EVERY})
    first = 0
    for _ in tqdm(range(rounds), unit="round"):
        measured.silent.append(block(tracker, work, first, STEPS + 1, [])[0])
        for every in EVERY:
            seconds, sending = block(tracker, work, first, every, measured.calls)
            measured.logging[every].append(seconds)
            measured.sending[every].append(sending)
            first += STEPS
    return measured


def block(
    tracker: Tracker, work: Work, first: int, every: int, calls: list[float]
) -> tuple[float, float]:
    """Seconds of `STEPS` steps, each `every`th of which logs; and of the processor to send it."""
    start = time.perf_counter()
    for number in range(1, STEPS + 1):
        step(work)
        if number % every == 0:
            before = time.perf_counter()
            tracker.log(METRICS, first + number)
            calls.append(time.perf_counter() - before)
    processor = time.thread_time()
    tracker.flush()
    return time.perf_counter() - start, time.thread_time() - processor


def sized_work() -> Work:
    """Work that takes about `STEP_SECONDS`."""
    matrix = np.random.default_rng(0).random((768, 768), np.float32)
    step((matrix, 10))
    start = time.perf_counter()
    step((matrix, 20))
    return matrix, max(1, round(STEP_SECONDS * 20 / (time.perf_counter() - start)))


def step(work: Work) -> None:
    """What stands for a training step."""
    matrix, times = work
    for _ in range(times):
        matrix @ matrix


def table(measured: Measured) -> str:
    """Medians, the ratio of neighbouring blocks, and the load they were taken under."""
    one_step = statistics.median(measured.silent) / STEPS
    call, slow = statistics.median(measured.calls), statistics.quantiles(measured.calls, n=20)[-1]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        f"a step takes {one_step * 1e3:.1f} ms; {len(METRICS)} metrics at a time",
        f"the call holds a step for {call * 1e3:.3f} ms = {call / one_step:.2%} of it "
        f"(95 % of calls: {slow * 1e3:.3f} ms = {slow / one_step:.2%})",
        f"blocks of {STEPS} steps, until all has arrived in the store:",
    ]
    for every, seconds in measured.logging.items():
        pairs = zip(measured.silent, seconds, strict=True)
        low, middle, high = statistics.quantiles([b / a - 1 for a, b in pairs], n=4)
        sending = statistics.median(measured.sending[every]) / STEPS
        lines.append(
            f"  logging every {every:2d} steps {middle:+.2%} (quartiles {low:+.2%} to {high:+.2%}); "
            f"to send it, {sending * 1e3:.3f} ms of one processor a step = {sending / one_step:.2%}"
        )
    return "\n".join([*lines, f"load average {load} on {os.cpu_count()} CPUs"])


if __name__ == "__main__":
    main()
