"""Runs and times an exported file on the machine of a Ray that is kept for it.

    python -m odtrain.cluster.timed MODULE FILE OUT RUNS THREADS ...

has done there what `python -m MODULE FILE OUT ...` does here: the file and the pictures on standard input
travel, what was found comes back. The environment tells trainings to (`odtrain.system.timing_lock`).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from odtrain.cluster.probe import join
from odtrain.system.timing_lock import TIMED_BY

RESOURCE_VARIABLE = "ODTRAIN_TIMING_RESOURCE"
ADDRESS_VARIABLE = "ODTRAIN_TIMING_ADDRESS"


def environment_of_timing(resource: str) -> dict[str, str]:
    """What tells a training to have its files timed on the machine that has a resource."""
    import ray

    return {
        TIMED_BY: "odtrain.cluster.timed",
        RESOURCE_VARIABLE: resource,
        ADDRESS_VARIABLE: ray.get_runtime_context().gcs_address,
    }


def main(arguments: Sequence[str]) -> int:
    """As the benchmark's own, on the other machine."""
    import ray

    module, file, out, *more = arguments
    join(os.environ[ADDRESS_VARIABLE])
    resources = {os.environ[RESOURCE_VARIABLE]: 1}  # one file at a time
    task = ray.remote(_run).options(num_cpus=0, resources=resources, max_retries=3)
    pictures = ray.put(sys.stdin.buffer.read())
    packed = _packed(Path(file))
    names = (Path(file).name, Path(out).name)
    status, said, found = ray.get(task.remote(module, names, packed, pictures, more))
    for name, content in found.items():
        Path(out).with_name(name).write_bytes(content)
    sys.stderr.write(said)
    ray.shutdown()
    return int(status)


def _packed(file: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(file, arcname=file.name)
    return stream.getvalue()


def _run(
    module: str, names: tuple[str, str], packed: bytes, pictures: bytes, more: Sequence[str]
) -> tuple[int, str, Mapping[str, bytes]]:
    """On the machine that is kept for timing: exit status, what was said, and the files that were written."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "found")
        folder.mkdir()
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(place, filter="data")
        file, out = Path(place, names[0]), folder / names[1]
        command = [sys.executable, "-m", module, str(file), str(out), *more]
        done = subprocess.run(
            command, input=pictures, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        found = {file.name: file.read_bytes() for file in folder.iterdir()}
    said = done.stderr.decode("utf-8", "replace").replace(str(file), names[0])
    return done.returncode, said, found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
