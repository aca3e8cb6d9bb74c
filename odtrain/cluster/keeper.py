"""A Ray of this machine's own, which ends with the process that began it, killed or not.

    python -m odtrain.cluster.keeper CPUS GPUS

begins one without a dashboard, says its address, and ends it with all its processes when standard input ends.
Ray alone does not: when its driver is killed, its agents stay.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from odtrain.errors import TrainingError
from odtrain.system.workers import search_path

SAID = "odtrain-ray "
"""What stands before the address."""
SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of Linux' prctl: orphans among the descendants become children of this process."""
ENDING_SECONDS = 30
"""How long processes have to end by themselves: a training keeps a checkpoint."""
LONGEST_FOLDER = 40
"""Letters of a folder in which Ray's sockets still have names that are short enough."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Ray reports nothing home."""


@contextmanager
def kept(cpus: int, gpus: int) -> Iterator[str]:
    """The address of a Ray on this machine, which is gone afterwards.

    Raises:
        TrainingError: it cannot begin.
    """
    command = [sys.executable, "-m", "odtrain.cluster.keeper", str(cpus), str(gpus)]
    path = os.pathsep.join(filter(None, search_path()))
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            env={**os.environ, **QUIET, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is the driver's business
        )
        try:
            yield _address(process, messages)
        finally:
            _end(process)


def _address(process: subprocess.Popen[bytes], messages: IO[bytes]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode("utf-8", "replace")
        if text.startswith(SAID):
            return text.removeprefix(SAID).strip()
    messages.seek(0)
    said = messages.read().decode("utf-8", "replace").strip().splitlines()
    last = said[-1] if said else "it left no message"
    raise TrainingError(
        "cluster=ray", f"Ray does not begin on this machine: {last}", "ray start --head says more."
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(2 * ENDING_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


# ---- the process of its own


def main(arguments: Sequence[str]) -> int:
    """Keep a Ray until standard input ends."""
    cpus, gpus = map(int, arguments)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp(prefix="odtrain-ray-", dir=_place()))
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=str(folder),
        )
        print(f"{SAID}{ray.get_runtime_context().gcs_address}", flush=True)
        sys.stdin.read()
        _end_trainings(ray.__path__[0])
        ray.shutdown()
    finally:
        _end_descendants()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _place() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) <= LONGEST_FOLDER else "/tmp"


def _end_trainings(package: str) -> None:
    """What Ray's processes have begun ends by itself, as it does at SIGTERM."""

    def is_of_ray(process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return any(word.startswith(("ray::", package)) for word in process.cmdline())
        return True

    begun = [one for one in psutil.Process().children(recursive=True) if not is_of_ray(one)]
    for one in begun:
        with suppress(psutil.Error):
            one.terminate()
    psutil.wait_procs(begun, timeout=ENDING_SECONDS)


def _end_descendants() -> None:
    while left := psutil.Process().children(recursive=True):
        for one in left:
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, timeout=5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
