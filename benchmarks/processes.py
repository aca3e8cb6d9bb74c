"""Functions run in a fresh process, so that time and memory are those of the function alone.

`python -m benchmarks.processes MODULE FUNCTION ARGUMENTS OUT` is that process. Arguments and what is
returned travel as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MESSAGE_LINES = 20
"""Of a failed process: the last lines of what it said."""


class ProcessError(Exception):
    """A process of a benchmark ended early; says which, how, and its last messages."""


@dataclass(frozen=True)
class Finished:
    """What a function did in a process of its own.

    Attributes:
        value: what it returned.
        seconds: by the clock on the wall, from before the process started until after it ended.
        cpu_seconds: of the process, all threads, in and out of the kernel.
        peak_memory_mb: its largest resident memory, in 10^6 bytes.
        tensorflow: whether TensorFlow was imported at the end.
        load: processes waiting or running over the last minute, before it started.
    """

    value: Any
    seconds: float
    cpu_seconds: float
    peak_memory_mb: float
    tensorflow: bool
    load: float


def run(
    function: Callable[..., Any], checkout: Path | None = None, /, **arguments: Any
) -> Finished:
    """Call a function of a module with `arguments` in a fresh process.

    Args:
        function: of a module of `benchmarks`.
        checkout: whose odtrain it imports; this one by default.
        arguments: of the function.

    Raises:
        ProcessError: the process ended with another status than 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "finished.json"
        command = [sys.executable, "-m", "benchmarks.processes", _module(function)]
        command += [function.__qualname__, json.dumps(arguments), str(out)]
        load, used, start = os.getloadavg()[0], _cpu_seconds_of_children(), time.perf_counter()
        place, environment = _place(checkout, Path(folder))
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-MESSAGE_LINES:])
            raise ProcessError(f"{function.__name__} ended with {done.returncode}:\n{last}")
        reported = json.loads(out.read_text(encoding="utf-8"))
    return Finished(
        **reported,
        seconds=seconds,
        cpu_seconds=_cpu_seconds_of_children() - used,
        load=load,
    )


def _place(checkout: Path | None, scratch: Path) -> tuple[Path | None, dict[str, str]]:
    """Where the process starts, and its environment with the places where it finds modules.

    Of another checkout that is a folder in which nothing but these benchmarks is found before its odtrain.
    """
    first = [str(Path(__file__).parents[1])]
    if checkout is not None:
        (scratch / "benchmarks").symlink_to(Path(__file__).resolve().parent)
        first = [str(scratch), str(checkout), str(checkout / "runtime")]
    places = os.pathsep.join([*first, *(each for each in sys.path if each)])
    environment = os.environ | {"PYTHONPATH": places, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return (scratch if checkout else None), environment


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- the process of its own


def _module(function: Callable[..., Any]) -> str:
    """Where a process of its own imports a function from; that of `python -m NAME` is called __main__."""
    run_as = sys.modules["__main__"].__spec__
    return run_as.name if function.__module__ == "__main__" and run_as else function.__module__


def main(arguments: Sequence[str]) -> None:
    """Run as `MODULE FUNCTION ARGUMENTS OUT`."""
    module, function, values, out = arguments
    value = getattr(importlib.import_module(module), function)(**json.loads(values))
    reported = {
        "value": value,
        "peak_memory_mb": peak_memory_mb(),
        "tensorflow": "tensorflow" in sys.modules,
    }
    Path(out).write_text(json.dumps(reported), encoding="utf-8")


def peak_memory_mb() -> float:
    """Of this process alone: on Linux, `ru_maxrss` would start from its parent's size."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    main(sys.argv[1:])
