"""File systems of a given size."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from odtrain.io import atomic


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `folder` for a while; skips the test where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs to mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def left_by_a_killed_process(place: Path) -> Path:
    """Where a process that was killed has begun to write the folder `place`."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return place.with_name(f".{place.name}.new-{atomic._host()}-{gone.pid}-{gone.pid}")
