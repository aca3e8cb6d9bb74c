"""What is written is there whole or not at all, and on disk once its writer returns."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from support.disks import left_by_a_killed_process, mounted
from support.file_server import serving
from support.pictures import draw_picture, write_xml

from odtrain.collect.collect import collect
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.prepare import prepare
from odtrain.evaluation.saved_detections import Kept, write_kept
from odtrain.io import atomic
from odtrain.io.archives import unpack
from odtrain.io.download import Wanted, download
from odtrain.predict.outputs import write_tables
from odtrain.predict.progress import Journal
from odtrain.registry.register import ModelCandidate, postpone
from odtrain.structures import Detections
from odtrain.tracking.sender import RunRecord
from odtrain.tracking.spool import Spool

FOUND = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int64))
RECORD = RunRecord("", "e", "r", "r", None, None, "train", 0, {})


class Disk:
    """A disk that a power cut can hit: what was flushed, and where the rest has gone.

    Attributes:
        files: inode -> bytes of it that were flushed.
        names: path -> inode, of those whose folder was flushed since.
        flushes: paths in order.
    """

    def __init__(self) -> None:
        self.files: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self.flushes: list[str] = []
        self.renamed_too_early: list[str] = []

    def flushed(self, path: Path) -> None:
        if path.is_dir():
            self.names |= {str(each): each.stat().st_ino for each in path.iterdir()}
        else:
            self.files[path.stat().st_ino] = path.stat().st_size

    def renamed(self, path: Path, target: Path) -> None:
        inside = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if any(self.files.get(each.stat().st_ino) != each.stat().st_size for each in inside):
            self.renamed_too_early.append(str(target))

    def holds(self, file: Path) -> bool:
        """Whether a power cut would leave `file` as it is."""
        status = file.stat()
        named = self.names.get(str(file.absolute())) == status.st_ino
        return named and self.files.get(status.st_ino) == status.st_size


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    """Every flush and rename of this process from here on."""
    disk, fsync, rename = Disk(), os.fsync, os.replace

    def flush(handle: int) -> None:
        fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").resolve()
        disk.flushes.append(str(path))
        disk.flushed(path)

    def move(path: Path, target: Path) -> None:
        disk.renamed(Path(path), Path(target))
        rename(path, target)

    def flush_all(path: Path) -> None:
        disk.flushes.append("all")
        for each in (tmp_path, *tmp_path.rglob("*")):
            disk.flushed(each)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", move)
    monkeypatch.setattr(atomic, "_sync_file_system", flush_all)
    return disk


# ---- each that says so


def spool(folder: Path) -> Path:
    box = Spool(folder / "spool")
    box.append("tags", {"tags": {"a": "b"}})
    box._stream.close()  # as a kill does
    return folder / "spool/journal.jsonl"


def spooled_file(folder: Path) -> Path:
    (folder / "local").write_text("weights")
    box = Spool(folder / "spool")
    box.keep_file(folder / "local", "checkpoints/last")
    box.close()
    return folder / "spool/files/checkpoints/last"


def what_has_arrived(folder: Path) -> Path:
    box = Spool(folder / "spool")
    box.append("tags", {})
    box.arrived(1)
    box.close()
    return folder / "spool/sent"


def run_record(folder: Path) -> Path:
    RECORD.save(folder)
    return folder / "run.json"


def postponed(folder: Path) -> Path:
    model = folder / "model.tflite"
    model.write_bytes(b"weights")
    postpone(folder, ModelCandidate("n", "a", {"tflite_fp32": str(model)}, {}, {}, "d", 1))
    return folder


def kept_detections(folder: Path) -> Path:
    write_kept(folder / "eval/validation.npz", Kept("s", [FOUND], ("cat",), {}))
    return folder / "eval/validation.npz"


def tables(folder: Path) -> Path:
    write_tables([], ["cat"], folder / "out", moving=False)
    return folder / "out"


def predictions_journal(folder: Path) -> Path:
    journal = Journal(folder / "predictions.part.jsonl", {})
    (folder / "drawn.jpg").write_bytes(b"picture")
    journal.after(folder / "drawn.jpg")
    journal.add(("a.jpg", None), "1:1")
    journal.close()
    return folder


def downloaded(folder: Path) -> Path:
    with serving(gzip.compress(b"weights")) as server:
        return download(Wanted([server.url], folder / "cache/zoo.tar.gz", None, "")).parent


def unpacked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import tarfile

    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "model.ckpt.index").write_bytes(b"weights")
    with tarfile.open(folder / "zoo.tar.gz", "w:gz") as tar:
        tar.add(folder / "model.ckpt.index", "m/model.ckpt.index")
    return unpack(folder / "zoo.tar.gz")


WRITERS: list[Callable[[Path], Path]] = [
    spool,
    spooled_file,
    what_has_arrived,
    run_record,
    postponed,
    kept_detections,
    tables,
    predictions_journal,
    downloaded,
]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_what_was_written_survives_a_power_cut(tmp_path, disk, writer):
    written = writer(tmp_path)
    files = [written] if written.is_file() else [f for f in written.rglob("*") if f.is_file()]
    lost = [file for file in files if file.suffix != ".lock" and not disk.holds(file)]
    assert files
    assert (lost, disk.renamed_too_early) == ([], [])


def test_a_collected_picture_is_on_disk_before_the_row_that_tells_of_it(tmp_path, disk):
    for number in range(3):
        draw_picture(tmp_path / f"card/{number}.jpg", (320, 240), [], seed=number)
    collect([str(tmp_path / "card")], tmp_path / "to")
    assert [file for file in (tmp_path / "to").iterdir() if not disk.holds(file)] == []
    last = len(disk.flushes) - disk.flushes[::-1].index(str(tmp_path / "to/manifest.csv"))
    assert {str(tmp_path / f"to/img{number}.jpg") for number in (1, 2, 3)} <= {*disk.flushes[:last]}


def test_an_unpacked_archive_survives_a_power_cut(tmp_path, disk, monkeypatch):
    folder = unpacked(tmp_path, monkeypatch)
    assert disk.renamed_too_early == []
    inode = (folder / "m/model.ckpt.index").stat().st_ino
    assert disk.files[inode] == len(b"weights")
    assert str(folder) in disk.names


def test_prepared_records_are_on_disk_before_they_count_as_prepared(tiny_voc, disk):
    folder = prepare(
        section(
            DataConfig,
            name="tiny",
            images=str(tiny_voc),
            prepared=str(tiny_voc.parent / "p"),
            workers=1,
        )
    ).folder
    files = [file for file in folder.iterdir() if file.name != "state.json"]
    assert len(files) > 5
    assert [file for file in files if not disk.holds(file)] == []
    assert [name for name in disk.renamed_too_early if not name.endswith("state.json")] == []


def test_the_number_of_flushes_does_not_follow_the_number_of_pictures(tmp_path, disk):
    for number in range(60):
        draw_picture(tmp_path / f"many/{number}.jpg", (32, 24), [], seed=number)
        write_xml(tmp_path / f"many/{number}.xml", f"{number}.jpg", (32, 24), [("c", 1, 1, 20, 20)])
    config = section(
        DataConfig,
        name="many",
        images=str(tmp_path / "many"),
        prepared=str(tmp_path / "p"),
        workers=1,
    )
    prepare(config)
    assert len(disk.flushes) < 40


def test_metrics_are_flushed_about_once_a_second_and_when_asked(tmp_path, disk):
    box = Spool(tmp_path)
    for step in range(500):
        box.append("metrics", {"metrics": [["loss", 1.0, 0, step]]})
    assert disk.flushes.count(str(tmp_path / "journal.jsonl")) < 20
    box.sync()
    assert disk.holds(tmp_path / "journal.jsonl")
    box.close()


def test_an_older_checkpoint_is_deleted_when_the_newer_one_is_on_disk(tmp_path, disk):
    from odtrain.training.loop import ON_DISK

    variable = tf.train.Checkpoint(step=tf.Variable(0))
    manager = tf.train.CheckpointManager(variable, tmp_path / "last", max_to_keep=1)
    held = []
    sweep = manager._sweep

    def swept() -> None:
        newest = Path(str(manager.latest_checkpoint))
        held.extend(disk.holds(file) for file in newest.parent.glob(f"{newest.name}.*"))
        sweep()

    manager._sweep = swept
    for step in (1, 2):
        manager.save(checkpoint_number=step, options=ON_DISK)
    assert held == [True] * 4


# ---- the writer itself


def test_a_kill_between_writing_and_moving_leaves_the_old_content(tmp_path):
    (tmp_path / "run.json").write_text("old")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom odtrain.io import atomic\n"
        "Path.replace = lambda *_: os._exit(9)\n"
        "atomic.write_text(Path(sys.argv[1]), 'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.json")], check=False)
    assert done.returncode == 9
    assert (tmp_path / "run.json").read_text() == "old"
    (left,) = tmp_path.glob(".run.json.*.part")
    assert left.read_text() == "new"
    atomic.write_text(tmp_path / "other", "content")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "run.json"]


@pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path, error):
    (tmp_path / "file").write_text("old")
    with pytest.raises(type(error)), atomic.replacing(tmp_path / "file") as part:
        part.write_text("half")
        raise error
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_leaves_the_old_content_and_nothing_else(small_disk):
    atomic.write_text(small_disk / "file", "old")
    with pytest.raises(OSError, match="No space left on device"):
        atomic.write_bytes(small_disk / "file", bytes(1_000_000))
    assert [file.read_text() for file in small_disk.iterdir()] == ["old"]


def test_a_full_disk_leaves_no_folder(small_disk):
    with (
        pytest.raises(OSError, match="No space left on device"),
        atomic.replacing_folder(small_disk / "folder") as part,
    ):
        (part / "file").write_bytes(bytes(1_000_000))
    assert list(small_disk.iterdir()) == []


def test_what_cannot_be_flushed_does_not_take_the_place_of_the_old(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old")

    def refuse(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        atomic.write_text(tmp_path / "file", "new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_what_can_be_made_again_is_not_flushed(tmp_path, disk):
    atomic.write_text(tmp_path / "a/file", "content", durable=False)
    assert disk.flushes == []


def test_an_error_names_the_file_and_not_what_lies_beside_it(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        atomic.write_text(tmp_path / "file", "new")
    assert caught.value.filename == str(tmp_path / "file")


def test_what_another_process_writes_just_now_stays(tmp_path):
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        theirs = tmp_path / f".file.{atomic._host()}-{sleeper.pid}-1.part"
        theirs.write_text("half")
        elsewhere = tmp_path / ".file.00000000-999999999-1.part"
        elsewhere.write_text("half, of another machine")
        atomic.write_text(tmp_path / "file", "mine")
        assert theirs.exists()
        assert elsewhere.exists()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path):
    left = left_by_a_killed_process(tmp_path / "copy")
    (left / "images").mkdir(parents=True)
    with atomic.replacing_folder(tmp_path / "copy") as part:
        (part / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_threads_that_write_one_file_leave_one_of_the_two(tmp_path):
    texts = ["a" * 100_000, "b" * 100_000]

    def write(text: str) -> None:
        for _ in range(20):
            atomic.write_text(tmp_path / "file", text, durable=False)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path):
    name = "가" * 84
    atomic.write_text(tmp_path / name, "content")
    assert (tmp_path / name).read_text() == "content"


def test_new_folders_are_on_disk_too(tmp_path, disk):
    atomic.make_folder(tmp_path / "a/b")
    assert {str(tmp_path / "a"), str(tmp_path / "a/b")} <= set(disk.names)


def test_many_files_take_one_flush(tmp_path, disk):
    with atomic.replacing_folder(tmp_path / "folder") as part:
        for number in range(500):
            (part / str(number)).write_text("content")
    assert len(disk.flushes) < 10
    assert "all" in disk.flushes


def test_one_call_flushes_a_file_system(tmp_path):
    (tmp_path / "file").write_text("content")
    atomic._sync_file_system(tmp_path / "file")


def test_a_full_disk_names_the_file_for_who_knows_no_better_place(tmp_path):
    with mounted(tmp_path / "disk", "size=8k") as disk:
        with pytest.raises(OSError, match="No space left on device") as caught:
            atomic.write_bytes(disk / "a.json", bytes(1 << 16))
        assert (caught.value.filename, caught.value.filename2) == (None, f"{disk}/a.json")
        with pytest.raises(OSError, match="No space left on device") as caught:
            atomic.append(disk / "b.jsonl", bytes(1 << 16))
        assert (caught.value.filename, caught.value.filename2) == (None, f"{disk}/b.jsonl")


def test_a_folder_that_another_made_meanwhile_is_named_and_stays(tmp_path):
    made = tmp_path / "made"
    with pytest.raises(OSError) as caught, atomic.replacing_folder(made) as new:
        (new / "ours").touch()
        made.mkdir()
        (made / "theirs").touch()
    assert (caught.value.strerror, caught.value.filename) == ("Directory not empty", str(made))
    assert caught.value.filename2 is None
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "theirs"]
