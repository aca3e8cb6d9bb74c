"""Full disks, folders that go and folders that turn read-only in the middle of a training."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.disks import mounted
from support.faults import WHOLE, Training, note

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder to which nothing new is written, for a while; files that are open stay so."""
    for words in (["--bind", folder], ["-o", "remount,bind,ro"]):
        subprocess.run(["mount", *words, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def filled(folder: Path, left: int) -> Iterator[None]:
    """The file system of `folder` full but for `left` bytes, for a while."""
    usage = shutil.disk_usage(folder)
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        for _ in range(max(0, usage.free - left) // 65536):
            file.write(bytes(65536))
    try:
        yield
    finally:
        ballast.unlink()


@pytest.mark.parametrize(
    ("place", "left", "when"),
    [
        pytest.param("outputs", 100_000, "2/14 [", id="checkpoints"),
        pytest.param("outputs", 400_000, "14/14 [", id="export"),
        pytest.param("mlartifacts", 20_000, "2/14 [", id="artifacts"),
        pytest.param("datasets", 1_000, "", id="records"),
    ],
)
def test_a_full_disk(training, place, left, when):
    with mounted(training.folder / place, "size=64m"):
        command = training.begin()
        if when:
            command.until(when)
        with filled(training.folder / place, left):
            done = command.wait()
        training.check_whole(f"{place}/ full {'in training' if when else 'from the start'}", done)


def test_a_full_disk_below_the_database(training: Training):
    """SQLite is on a small file system that fills up after two steps."""
    with mounted(training.folder / "store", "size=16m") as store:
        shutil.copy(training.folder / "mlflow.db", store / "mlflow.db")
        training = Training(training.folder, f"sqlite:///{store}/mlflow.db", training.settings)
        command = training.begin()
        command.until("2/14 [")
        with filled(store, 0):
            done = command.wait()
        synced = training.sync()
        state = training.state()
        note("the database's disk full in training", done, state)
        assert "Traceback" not in done.said + synced.said
        assert state == WHOLE


def test_no_room_for_temporary_files(training):
    with mounted(training.folder.parent / "tmp", "size=64k") as small:
        done = training.begin(TMPDIR=str(small)).wait()
    training.check_whole("TMPDIR has no room", done)


def test_the_disk_turns_read_only(training):
    command = training.begin()
    command.until("4/14 [")
    with read_only(training.folder / "outputs"):
        done = command.wait()
    training.check_whole("outputs/ turns read-only in training", done)


@pytest.mark.parametrize("folder", ["outputs", "datasets"])
def test_a_folder_is_deleted(training, folder):
    command = training.begin()
    command.until("4/14 [")
    aside = Path(tempfile.mkdtemp(dir=training.folder.parent))
    shutil.move(training.folder / folder, aside)
    done = command.wait()
    training.check_whole(f"{folder}/ is deleted in training", done)
