"""How many pictures a second `odtrain serve` answers, how long each waits, and whether memory stays flat.

The server runs in a process of its own, as the command starts it; clients are threads of this one, which
share its cores. Every answer is checked.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import requests
from tqdm import tqdm

from benchmarks import pictures, processes, zoo
from odtrain.predict.runner import jpeg

MODEL = "ssd_mobilenet_v1_0.25_depth_192"
FORMATS = ("tflite_fp32", "saved_model")
SETTLED = 500
"""Requests before memory is looked at the first time."""


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        clients: at a time, one row each.
        requests: of each row.
        long: requests of the last row of each format, at the largest number of clients.
    """

    clients: Sequence[int] = (1, 4, 16)
    requests: int = 1000
    long: int = 10_000


WHOLE = Extent()
QUICK = Extent((1, 4), 40, 60)


@dataclass(frozen=True)
class Row:
    """One load on one server.

    Attributes:
        format: of the file that is served.
        clients: that ask at a time, each for one picture after the other.
        requests: in all.
        errors: answers of another status than 200, or without the picture's size.
        per_second: answers.
        p50_ms: median of the time to an answer.
        p99_ms: 99th percentile of it.
        memory_mb: of the server in 10^6 bytes, after `SETTLED` requests, and at the end.
        load: processes waiting or running over the last minute, before the row.
    """

    format: str
    clients: int
    requests: int
    errors: int
    per_second: float
    p50_ms: float
    p99_ms: float
    memory_mb: tuple[float, float]
    load: float


def measure(extent: Extent = WHOLE) -> list[Row]:
    """Serve each format and ask it, with more and more clients.

    Raises:
        ProcessError: exporting failed.
    """
    body = jpeg(pictures.decoded(1)[0], 90)
    jobs = [(clients, extent.requests) for clients in extent.clients]
    jobs.append((max(extent.clients), extent.long))
    rows = []
    with tempfile.TemporaryDirectory(prefix="odtrain-serving-") as folder:
        done = processes.run(
            zoo.write_files, model=MODEL, formats=list(FORMATS), nms="builtin", folder=folder
        )
        for format, file in done.value["written"]:
            with _served(Path(file)) as (address, server):
                for clients, requests_ in tqdm(jobs, desc=f"serving {format}", unit="load"):
                    rows.append(_ask(format, address, server, body, clients, requests_))
    return rows


@contextmanager
def _served(file: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of `odtrain serve` on a free port."""
    command = [sys.executable, "-m", "odtrain", "serve", f"source={file}", "serve.port=0"]
    process = subprocess.Popen(
        [*command, "serve.open_browser=false"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.partition(": ")[2].split()[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _ask(
    format: str, address: str, server: psutil.Process, body: bytes, clients: int, count: int
) -> Row:
    load = os.getloadavg()[0]
    seconds: list[float] = []
    errors: list[str] = []
    settled: list[float] = []
    turns = iter(range(count))
    lock = threading.Lock()

    def client() -> None:
        with requests.Session() as session:
            while True:
                with lock:
                    turn = next(turns, None)
                if turn is None:
                    return
                if turn == min(SETTLED, count // 2):
                    settled.append(server.memory_info().rss / 1e6)
                begun = time.perf_counter()
                answer = session.post(f"{address}detect", data=body, timeout=120)
                seconds.append(time.perf_counter() - begun)
                if answer.status_code != 200 or "width" not in answer.json():
                    errors.append(answer.text[:200])

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begun
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    memory = settled[0], server.memory_info().rss / 1e6
    return Row(
        format, clients, count, len(errors), count / elapsed, float(p50), float(p99), memory, load
    )
