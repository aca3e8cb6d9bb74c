"""Archives and lists of the web as data, from a server that breaks off and changes its files."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.file_server import Server, serving

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.prepare import prepare
from odtrain.dataset.splits import read_list
from odtrain.errors import DataError
from odtrain.io import download as downloads
from odtrain.io.remote import cache, files
from odtrain.io.remote.unpacked import unpacked

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(b"") as state:
        state.tag = '"one"'
        yield state


def tarball(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        tar.add(folder, arcname="shapes")
    return stream.getvalue()


def config(images: str, prepared: Path) -> DataConfig:
    return section(DataConfig, name="shapes", images=images, prepared=str(prepared))


def test_an_archive_of_the_web_is_a_data_set(server, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "WAIT_SECONDS", 0.0)
    server.content = tarball(shapes)
    server.breaks = [10**9, len(server.content) // 2]
    here = prepare(config(str(shapes), tmp_path / "here"))
    there = prepare(config(server.url, tmp_path / "there"))
    assert (there.digest, there.files) == (here.digest, here.files)
    assert len(server.asked) == 4  # what it is, twice for its content, whether it is still the one
    server.content, server.tag = b"not an archive", '"two"'
    with pytest.raises(DataError, match="is not a whole archive"):
        prepare(config(server.url, tmp_path / "there"))
    assert len(list((cache.root() / cache.UNPACKED).glob("*[!k]"))) == 1


def test_a_list_of_the_web_is_read_as_it_is_now(server):
    server.content = b"img1.jpg\nimg2.jpg\n"
    assert read_list(Path(server.url)) == ["img1.jpg", "img2.jpg"]
    server.content, server.tag = b"img3.jpg\nimg4.jpg\n", '"two"'
    assert read_list(Path(server.url)) == ["img3.jpg", "img4.jpg"]


def test_what_is_not_there_is_one_line(server):
    url = server.url.replace("zoo", "none")
    with pytest.raises(DataError) as error:
        files.local_model(url)
    assert error.value.args == (url, "is not there.", "Is the address right?")


def zipped(file: Path, name: str, content: bytes = b"a") -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file


def test_an_archive_writes_nothing_outside_its_folder(tmp_path):
    file = zipped(tmp_path / "a.zip", "../../a.txt")
    with pytest.raises(DataError) as error:
        unpacked(Path("s3://b/a.zip"), file)
    assert error.value.args == (
        "s3://b/a.zip",
        'is not unpacked: "../../a.txt" would be written outside its folder.',
        "Do not trust it.",
    )
    assert not [each for each in cache.root().rglob("*.txt")]


def test_an_archive_that_is_not_whole_is_one_line(tmp_path):
    file = zipped(tmp_path / "a.zip", "a.txt", bytes(5000))
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError) as error:
        unpacked(Path("s3://b/a.zip"), file)
    assert error.value.args == (
        "s3://b/a.zip",
        "is not a whole archive (File is not a zip file).",
        "Get it again: it is truncated, or something else under this name.",
    )


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("odtrain.io.remote.unpacked.MOST_AT_LEAST", 1000)
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(10**7))
    with pytest.raises(DataError, match="it holds more than 20 times its size"):
        unpacked(Path("s3://b/a.zip"), file)
