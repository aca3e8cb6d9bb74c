"""Tarballs and checkpoints as strangers make them."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import re
import tarfile
from pathlib import Path

import pytest
from support.disks import left_by_a_killed_process

from odtrain.errors import CheckpointError
from odtrain.io import archives
from odtrain.io.archives import locate, unpack
from odtrain.io.checksums import sha256_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "odtrain" / "zoo"


def tarball(file: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    """A .tar.gz of files (name, content) and of whatever members are given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return file


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


CHECKPOINT = (("m/model.ckpt.index", b"i"), ("m/model.ckpt.data-00000-of-00001", b"d"))


def checkpoint(folder: Path, *names: str, state: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.index").write_bytes(b"i")
        (folder / f"{name}.data-00000-of-00001").write_bytes(b"d")
    if state is not None:
        (folder / "checkpoint").write_text(f'model_checkpoint_path: "{state}"\n')
    return folder


def test_an_archive_is_unpacked_into_the_cache_and_nothing_beside_it(tmp_path, cache):
    archive = tarball(tmp_path / "mine" / "zoo.tar.gz", *CHECKPOINT)
    folder = unpack(archive)
    assert folder.parent == cache
    assert (folder / "m" / "model.ckpt.index").read_bytes() == b"i"
    assert [file.name for file in archive.parent.iterdir()] == ["zoo.tar.gz"]


def test_an_archive_is_unpacked_once(tmp_path):
    archive = tarball(tmp_path / "zoo.tar.gz", *CHECKPOINT)
    before = (unpack(archive) / "m").stat()
    after = (unpack(archive) / "m").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_what_a_killed_process_left_is_cleared_away(tmp_path, cache):
    archive = tarball(tmp_path / "zoo.tar.gz", *CHECKPOINT)
    left = left_by_a_killed_process(cache / sha256_of(archive)[:16])
    left.mkdir(parents=True)
    (left / "half").write_text("half a file")
    assert sorted(p.name for p in unpack(archive).iterdir()) == ["m"]
    assert not left.exists()


def test_two_processes_may_unpack_one_archive_at_once(tmp_path):
    archive = tarball(tmp_path / "zoo.tar.gz", ("m/large", b"x" * 5_000_000), *CHECKPOINT)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map_async(unpack, [archive] * 2, chunksize=1).get(timeout=60)
    assert first == second
    assert (first / "m" / "large").stat().st_size == 5_000_000


@pytest.mark.parametrize(
    ("member", "why"),
    [
        pytest.param(("../evil", b"x"), '"../evil" would be written outside its folder', id="up"),
        pytest.param(
            ("m/../../x", b"x"), '"m/../../x" would be written outside its folder', id="in"
        ),
        pytest.param(("/evil", b"x"), '"/evil" would be written outside its folder', id="absolute"),
        pytest.param(("..\\x", b"x"), '"..\\x" would be written outside its folder', id="windows"),
        pytest.param(("C:/x", b"x"), '"C:/x" would be written outside its folder', id="drive"),
        pytest.param(
            special("m/link", tarfile.SYMTYPE, "/etc/passwd"),
            '"m/link" is a link or a device',
            id="symbolic link",
        ),
        pytest.param(
            special("m/link", tarfile.LNKTYPE, "../x"), '"m/link" is a link or a device', id="link"
        ),
        pytest.param(special("tty", tarfile.CHRTYPE), '"tty" is a link or a device', id="device"),
        pytest.param(special("fifo", tarfile.FIFOTYPE), '"fifo" is a link or a device', id="pipe"),
    ],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, cache, member, why):
    archive = tarball(tmp_path / "evil.tar.gz", *CHECKPOINT, member)
    with pytest.raises(CheckpointError) as raised:
        unpack(archive)
    assert str(raised.value) == (
        f"{archive}: not unpacked: {why}.\n"
        "  No zoo archive does that. Do not trust it; get the archive from its publisher."
    )
    assert [p.suffix for p in cache.iterdir()] == [".lock"]
    assert not (tmp_path / "evil").exists()


def test_a_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 1_000_000)
    archive = tarball(tmp_path / "bomb.tar.gz", ("zeros", bytes(2_000_000)))
    with pytest.raises(CheckpointError, match="not unpacked: it unpacks to more than 1,000,000 by"):
        unpack(archive)


def test_a_bomb_behind_the_archive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", 1_000_000)
    archive = tarball(tmp_path / "bomb.tar.gz", *CHECKPOINT)
    with gzip.open(archive, "ab") as stream:
        stream.write(bytes(5_000_000))
    with pytest.raises(CheckpointError, match="not unpacked: it unpacks to more than 1,000,000 by"):
        unpack(archive)


def test_a_header_as_large_as_a_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LONGEST_READ", 10_000)
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * 20_000}
    archive = tmp_path / "bomb.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(CheckpointError, match="not unpacked: it has a header of 20,480 bytes"):
        unpack(archive)


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    archive = tarball(tmp_path / "many.tar.gz", *CHECKPOINT, ("third", b""))
    with pytest.raises(CheckpointError, match="not unpacked: it has more than 2 members"):
        unpack(archive)


@pytest.mark.parametrize("kept", [20, 200, 0.5, 0.99, -4])
def test_a_truncated_archive_is_refused(tmp_path, cache, kept):
    noise = bytes(i * 7919 % 251 for i in range(200_000))
    archive = tarball(tmp_path / "zoo.tar.gz", *CHECKPOINT, ("noise", noise))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError) as raised:
        unpack(archive)
    assert re.fullmatch(
        rf"{re.escape(str(archive))}: not a whole tarball \(.+\)\.\n"
        "  Download it again: it is truncated, or something else under this name.",
        str(raised.value),
    )
    assert [p.suffix for p in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(range(256)) * 40])
def test_something_else_under_the_name_of_an_archive_is_refused(tmp_path, content):
    archive = tmp_path / "zoo.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"zoo\.tar\.gz: not a whole tarball"):
        unpack(archive)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    archive = tarball(tmp_path / "zoo.tar.gz", *CHECKPOINT)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CheckpointError) as raised:
        unpack(archive)
    folder = tmp_path / "file" / "odtrain" / "zoo"
    assert str(raised.value) == (
        f"{archive}: cannot be unpacked into {folder}: [Errno 20] Not a directory: "
        f"'{folder}'.\n"
        "  Make room or give permission there, or set XDG_CACHE_HOME to another folder."
    )


def test_a_checkpoint_is_found_in_an_archive(tmp_path):
    archive = tarball(tmp_path / "zoo.tar.gz", *CHECKPOINT, ("m/pipeline.config", b""))
    assert locate(str(archive)) == unpack(archive) / "m" / "model.ckpt"


@pytest.mark.parametrize("name", ["zoo.tgz", "zoo.tar"])
def test_other_names_of_archives_work_too(tmp_path, name):
    archive = tmp_path / name
    packed = tarball(tmp_path / "zoo.tar.gz", *CHECKPOINT).read_bytes()
    archive.write_bytes(gzip.decompress(packed) if name == "zoo.tar" else packed)
    assert locate(archive).name == "model.ckpt"


@pytest.mark.parametrize(
    "given",
    [
        "model.ckpt",
        "model.ckpt.index",
        "model.ckpt.meta",
        "model.ckpt.data-00000-of-00001",
        "checkpoint",
        ".",
    ],
)
def test_a_checkpoint_is_found_by_any_of_its_names(tmp_path, given):
    checkpoint(tmp_path, "model.ckpt", state="model.ckpt")
    assert locate(tmp_path / given) == tmp_path / "model.ckpt"


@pytest.mark.parametrize(
    "state", ["/home/someone/train/model.ckpt-20", "C:\\\\train\\\\model.ckpt-20", "model.ckpt-20"]
)
def test_of_a_path_written_on_another_machine_only_the_name_counts(tmp_path, state):
    checkpoint(tmp_path, "model.ckpt-20", "model.ckpt-100", state=state)
    assert locate(tmp_path) == tmp_path / "model.ckpt-20"


def test_without_a_state_file_the_newest_step_is_taken(tmp_path):
    checkpoint(tmp_path, "model.ckpt-99", "model.ckpt-100", "model.ckpt-20")
    assert locate(tmp_path) == tmp_path / "model.ckpt-100"


def test_a_state_file_that_names_what_is_gone_is_passed_over(tmp_path):
    checkpoint(tmp_path, "model.ckpt-7", state="model.ckpt-5")
    assert locate(tmp_path) == tmp_path / "model.ckpt-7"


def test_a_missing_checkpoint_says_what_was_looked_for(tmp_path):
    with pytest.raises(CheckpointError) as raised:
        locate(tmp_path / "model.ckpt")
    assert str(raised.value) == (
        f"{tmp_path}/model.ckpt: no such tarball, folder or checkpoint.\n"
        f"  Looked for {tmp_path}/model.ckpt and {tmp_path}/model.ckpt.index. "
        "Give a .tar.gz, a folder or a model.ckpt prefix."
    )


def test_a_folder_without_a_checkpoint_says_what_was_looked_for(tmp_path):
    with pytest.raises(CheckpointError) as raised:
        locate(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: no checkpoint in it.\n"
        "  Looked for what its file `checkpoint` names, for model.ckpt.index, "
        "and for the newest *-STEP.index."
    )


def test_an_archive_without_a_checkpoint_is_named_as_the_user_knows_it(tmp_path):
    archive = tarball(tmp_path / "zoo.tar.gz", ("readme", b""))
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(archive))}: no checkpoint in it"):
        locate(archive)


def test_an_index_without_its_data_is_named(tmp_path):
    (tmp_path / "model.ckpt.index").write_bytes(b"i")
    with pytest.raises(CheckpointError) as raised:
        locate(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}/model.ckpt: its index is there, its data is not.\n"
        "  Put model.ckpt.data-00000-of-00001 beside model.ckpt.index."
    )


def test_an_exported_model_is_no_checkpoint(tmp_path):
    (tmp_path / "frozen_inference_graph.pb").write_bytes(b"")
    with pytest.raises(CheckpointError) as raised:
        locate(tmp_path / "frozen_inference_graph.pb")
    assert str(raised.value) == (
        f"{tmp_path}/frozen_inference_graph.pb: "
        "an exported model, not a checkpoint: it has no variables to go on from.\n"
        "  Give the .tar.gz it came from, or its model.ckpt. Of a frozen .pb, odtrain zoo adopt makes one."
    )
