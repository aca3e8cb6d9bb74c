"""A stranger's .onnx or OpenVINO model run once in a process with bounds, before this one opens it.

`python -m odtrain.model_files.probe FILE` is that process. Loading a network is a program's work on data that
a stranger chose: what is too large, never ends or breaks the runtime ends there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from odtrain.errors import ModelFileError
from odtrain.system.progress import doing
from odtrain.system.workers import search_path
from odtrain_runtime.model_files import open_model, parts_of
from odtrain_runtime.others.raw_model import RawModel, outputs_of_grey
from odtrain_runtime.others.reading import settings_beside
from odtrain_runtime.others.recognise import input_size

MOST_SECONDS = 120
MOST_MEMORY, TIMES_THE_FILE = 8 << 30, 6
"""Bytes of address space: so many, and so often what the file takes."""
NOT_OPENED = "It is not opened. Export the model again, or take one that was made for this machine."
FAILED = 3


@doing("Looking at the model in a process of its own")
def check_runs(file: Path) -> None:
    """Run a model once, on a grey picture, within bounds of time and memory.

    Raises:
        ModelFileError: it cannot be run within them.
    """
    command = [sys.executable, "-m", "odtrain.model_files.probe", str(file)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search_path()))}
    try:
        done = subprocess.run(command, capture_output=True, timeout=MOST_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        problem = f"did not run within {MOST_SECONDS} seconds."
        raise ModelFileError(file, problem, NOT_OPENED) from None
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode == FAILED and "\n" in said:
        problem, remedy = said.split("\n", 1)
        raise ModelFileError(file, problem, remedy.rstrip("\n"))
    if done.returncode:
        gigabytes = _most_memory(file) / 1e9
        problem = (
            f"ended the process that ran it (status {done.returncode}), which may take "
            f"{gigabytes:.0f} GB of memory."
        )
        raise ModelFileError(file, problem, NOT_OPENED)


def _most_memory(file: Path) -> int:
    return MOST_MEMORY + TIMES_THE_FILE * sum(part.stat().st_size for part in parts_of(file))


# ---- the process of its own


def main(arguments: Sequence[str]) -> int:
    """Run as `FILE`; the exit status."""
    file = Path(arguments[0])
    try:
        _bound_memory(_most_memory(file))
        model = open_model(file, 1)
        if isinstance(model, RawModel):
            outputs_of_grey(model, input_size(model, settings_beside(file)))
    except ModelFileError as error:
        _, problem, remedy = error.args
        print(problem, remedy, sep="\n")
        return FAILED
    except MemoryError:
        print("needs more memory than a model may.", NOT_OPENED, sep="\n")
        return FAILED
    return 0


def _bound_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
