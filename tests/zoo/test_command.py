"""The zoo from a server to a trained model, and what of it is refused, as users meet it."""

from __future__ import annotations

import io
import tarfile

import pytest
from support.commands import TINY_RUN, odtrain
from support.file_server import serving

from odtrain.cli.main import main
from odtrain.io import download as downloads

MODEL = "ssd_mobilenet_v1_0.75_depth_coco"
TARBALL = "ssd_mobilenet_v1_0.75_depth_coco_dequantized.tar.gz"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "WAIT_SECONDS", 0.0)


@pytest.fixture
def tarball(shared):
    """Real COCO weights in the layout of the TensorFlow 1 zoo."""
    return shared / "zoo" / TARBALL


@pytest.mark.slow
def test_a_broken_download_is_gone_on_with_and_trained_from(tarball, shapes, tmp_path, capsys):
    content = tarball.read_bytes()
    half = len(content) // 2
    with serving(content) as server:
        server.tag = '"1"'
        url = f"model.zoo.url={server.url}"
        server.breaks = [half] + [0] * (downloads.ATTEMPTS - 1)
        assert main(["zoo", "fetch", MODEL, url]) == 1
        said = capsys.readouterr().err
        assert f"{server.url}: cannot be downloaded: " in said
        assert "train.checkpoint=PATH, or zoo.mirrors=[FOLDER]" in said
        server.asked.clear()
        drop = ("model=", "model.depth", "train.steps")
        tiny = [each for each in TINY_RUN if not each.startswith(drop)]
        done = odtrain(
            ["train", f"model={MODEL}", url, f"data.images={shapes}", *tiny, "train.steps=2",
             "train.checkpoint_every=2", "evaluate.every=0", "export.formats=[tflite_fp32]"],
            tmp_path,
        )  # fmt: skip
        (asked,) = server.asked
    assert done.returncode == 0, done.stderr
    assert asked is not None
    assert 0 < int(asked.removeprefix("bytes=").rstrip("-")) <= half
    (restored,) = (tmp_path / "outputs").rglob("restored.txt")
    lines = restored.read_text().splitlines()
    assert lines[0].startswith(f"weights from {tmp_path}/cache/odtrain/zoo/")
    assert any("90 classes in the checkpoint, 2 here" in line for line in lines)


def test_another_file_than_the_one_that_is_trusted_is_refused(tarball, tmp_path, capsys):
    with serving(tarball.read_bytes()) as server:
        words = [f"model.zoo.url={server.url}", f"model.zoo.sha256={'0' * 64}"]
        assert main(["zoo", "fetch", MODEL, *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f", not {'0' * 64}. It was not kept.\n" in said.err
    assert not list((tmp_path / "cache").rglob("zoo.tar.gz"))


def test_a_mirror_s_tarball_is_fetched_by_name(tarball, tmp_path, capsys):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "m.tar.gz").symlink_to(tarball)
    url = "model.zoo.url=http://127.0.0.1:9/m.tar.gz"
    assert main(["zoo", "fetch", MODEL, url, f"zoo.mirrors=[{mirror}]"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("/m.tar.gz\n")
    assert "no checksum is published. From now on its sha256 must be" in said.err


def climbing() -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo("../../.bashrc")
    member.size = 4
    return member, b"evil"


def linking() -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo("model/link")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member, b""


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (climbing, '"../../.bashrc" would be written outside its folder'),
        (linking, '"model/link" is a link or a device'),
    ],
)
def test_verify_refuses_a_real_tarball_with_a_hostile_member(tarball, tmp_path, capsys, extra, why):
    hostile = tmp_path / "hostile.tar.gz"
    with tarfile.open(tarball) as real, tarfile.open(hostile, "w:gz", compresslevel=1) as copy:
        for member in real:
            copy.addfile(member, real.extractfile(member))
        member, content = extra()
        copy.addfile(member, io.BytesIO(content))
    assert main(["zoo", "verify", str(hostile), f"model={MODEL}"]) == 1
    assert capsys.readouterr().err == (
        f"{hostile}: not unpacked: {why}.\n"
        "  No zoo archive does that. Do not trust it; get the archive from its publisher.\n"
    )
    assert not list((tmp_path / "cache").rglob("model.ckpt*"))
