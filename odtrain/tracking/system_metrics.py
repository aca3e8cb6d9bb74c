"""How busy the machine is during a run, for the "System metrics" tab of MLflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

MEGABYTE = 1e6
EVERY_SECONDS = 10.0


class MachineMetrics:
    """Samples CPU, memory, disk and network from a background thread.

    MLflow's own monitor stops at the first failed request and loses what it had; this one hands
    its samples to the run's buffer, as every other metric. Steps count the intervals since the run
    was first started, so a resumed run goes on where it was.
    """

    def __init__(
        self, log: Callable[[dict[str, float], int], None], started: int, every_seconds: float
    ) -> None:
        """`log` takes metrics and a step; `started` is in milliseconds since 1970."""
        self._log = log
        self._started = started
        self._every = every_seconds
        self._network_at_start = psutil.net_io_counters()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="odtrain-machine", daemon=True)

    def start(self) -> None:
        """Start to sample."""
        psutil.cpu_percent()  # the first call has nothing to compare with and returns 0
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the sample under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._every):
            step = round((time.time() - self._started / 1000) / self._every)
            self._log({f"system/{name}": value for name, value in self.read().items()}, step)

    def read(self) -> dict[str, float]:
        """How busy the machine is now, by name."""
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(str(Path.cwd()))
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": round(memory.used / MEGABYTE, 1),
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": round(disk.used / MEGABYTE, 1),
            "disk_available_megabytes": round(disk.free / MEGABYTE, 1),
            **self._read_network(),
        }

    def _read_network(self) -> dict[str, float]:
        now, before = psutil.net_io_counters(), self._network_at_start
        if now is None or before is None:  # a machine without a network interface
            return {}
        received, sent = now.bytes_recv - before.bytes_recv, now.bytes_sent - before.bytes_sent
        return {
            "network_receive_megabytes": round(received / MEGABYTE, 3),
            "network_transmit_megabytes": round(sent / MEGABYTE, 3),
        }
