"""How many pictures a second `odtrain serve` answers, how long each waits, and whether memory stays flat.

The server runs in a process of its own, as the command starts it; clients are threads of this one, which
share its cores: they write the bytes of a request and read those of its answer, and nothing more. The parts of
an answer (`benchmarks.parts`) are timed on the same cores before. Every answer is checked.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks import parts, pictures, processes, zoo
from odtrain.predict.runner import jpeg

MODEL = "ssd_mobilenet_v1_0.25_depth_192"
FORMATS = ("tflite_fp32", "saved_model")
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
GOAL = 0.8
"""Least share of the throughput that the parts of an answer alone have."""
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
class Answered:
    """One load on one server.

    Attributes:
        clients: that ask at a time, each for one picture after the other.
        requests: in all.
        errors: answers of another status than 200, or without the picture's size.
        per_second: answers.
        cpu_ms: processor time of the server for one request.
        p50_ms: median of the time to an answer.
        p99_ms: 99th percentile of it.
        memory_mb: of the server in 10^6 bytes, after `SETTLED` requests, and at the end.
        load: processes waiting or running over the last minute, before the row.
    """

    clients: int
    requests: int
    errors: int
    per_second: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    memory_mb: tuple[float, float]
    load: float


@dataclass(frozen=True)
class Row:
    """One load on the server of one file.

    Attributes:
        format: of the file that is served.
        of_parts: share of the throughput that decoding, resizing and invoking alone have.
        answered: what came of it.
    """

    format: str
    of_parts: float
    answered: Answered


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
            picture = Path(folder, "picture.jpg")
            picture.write_bytes(body)
            parts_alone = processes.run(
                cost_of_parts, file=file, picture=str(picture), count=extent.requests
            ).value
            with served(Path(file)) as (address, server):
                for clients, count in tqdm(jobs, desc=f"serving {format}", unit="load"):
                    answered = ask(address, server, body, clients, count)
                    rows.append(Row(format, parts_alone * answered.per_second, answered))
    return rows


@contextmanager
def served(file: Path) -> Iterator[tuple[str, psutil.Process]]:
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


def ask(address: str, server: psutil.Process, body: bytes, clients: int, count: int) -> Answered:
    """Ask a server for one picture again and again, by so many clients at a time.

    Raises:
        OSError: it closed a connection.
    """
    load = os.getloadavg()[0]
    seconds: list[float] = []
    errors: list[bytes] = []
    settled: list[float] = []
    turns = iter(range(count))
    lock = threading.Lock()
    place = urlsplit(address)
    head = f"POST /detect HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body

    def client() -> None:
        with socket.create_connection((place.hostname, place.port or 80), 120) as connection:
            while True:
                with lock:
                    turn = next(turns, None)
                if turn is None:
                    return
                if turn == min(SETTLED, count // 2):
                    settled.append(server.memory_info().rss / 1e6)
                begun = time.perf_counter()
                connection.sendall(request)
                status, answer = _answer(connection)
                seconds.append(time.perf_counter() - begun)
                if status != b"200" or b'"width"' not in answer:
                    errors.append(answer[:200])

    threads = [threading.Thread(target=client) for _ in range(clients)]
    used, begun = _cpu_seconds(server), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begun
    cpu_ms = 1000 * (_cpu_seconds(server) - used) / count
    p50, p99 = (float(number) for number in np.percentile(seconds, [50, 99]) * 1000)
    memory = settled[0], server.memory_info().rss / 1e6
    return Answered(clients, count, len(errors), count / elapsed, cpu_ms, p50, p99, memory, load)


def _answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """The status and the body of the answer that comes next."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += _more(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    (length,) = LENGTH.findall(head)
    while len(body) < int(length):
        body += _more(connection)
    return head.split(b" ", 2)[1], body


def _more(connection: socket.socket) -> bytes:
    if block := connection.recv(1 << 16):
        return block
    raise OSError("the server closed the connection")


def _cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


# ---- what runs in a process of its own


def cost_of_parts(file: str, picture: str, count: int) -> float:
    """Seconds for one picture, all cores, where nothing is done but its parts."""
    from odtrain_runtime.model_files import load_detector

    detectors = [load_detector(Path(file), 1) for _ in range(os.cpu_count() or 1)]
    files = [Path(picture)] * count
    parts.cost(files[: count // 10], detectors, drawn=False)  # warm-up
    return parts.cost(files, detectors, drawn=False).seconds
