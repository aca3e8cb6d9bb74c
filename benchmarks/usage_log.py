"""What `serve.log` costs a request: two servers of one model, one with a log, asked in turn.

python -m benchmarks.usage_log MODEL.tflite PICTURE [REQUESTS]
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

WARM_UP = 20
PAUSE = 0.02
"""Seconds between requests: a server that is asked as fast as it can shares its cores with the log."""


def main(arguments: Sequence[str]) -> None:
    """Ask both in turn, and print the medians."""
    model, picture = Path(arguments[0]), Path(arguments[1]).read_bytes()
    count = int(arguments[2]) if len(arguments) > 2 else 400
    with tempfile.TemporaryDirectory() as folder:
        log = [f"serve.log={folder}/log"]
        with _served(model, []) as without, _served(model, log) as with_log:
            times: dict[str, list[float]] = {without: [], with_log: []}
            for number in range(WARM_UP + count):
                for address, taken in sorted(times.items(), reverse=bool(number % 2)):
                    begun = time.perf_counter()
                    requests.post(f"{address}detect", data=picture, timeout=60).raise_for_status()
                    if number >= WARM_UP:
                        taken.append(1000 * (time.perf_counter() - begun))
                    time.sleep(PAUSE)
    a, b = times[without], times[with_log]
    more = statistics.median(y - x for x, y in zip(a, b, strict=True))
    print(f"without {statistics.median(a):.2f} ms, with {statistics.median(b):.2f} ms a request;")
    print(f"in pairs {more:+.2f} ms, median of {count}")


@contextmanager
def _served(model: Path, settings: Sequence[str]) -> Iterator[str]:
    command = [sys.executable, "-m", "odtrain", "serve", f"source={model}", "serve.port=0"]
    command += ["serve.open_browser=false", *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        (address,) = re.findall(r"http://\S+/", server.stdout.readline())
        try:
            yield address
        finally:
            server.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
