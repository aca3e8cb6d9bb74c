"""Downloads from a server that breaks off, lies, or is not there."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.file_server import Server, serving

from odtrain.errors import CheckpointError
from odtrain.io import download as downloads
from odtrain.io.download import Wanted, download, file_in

CONTENT = gzip.compress(bytes(i * 7919 % 251 for i in range(2_999_500)), compresslevel=0, mtime=0)
"""Nearly 3,000,000 bytes, since nothing is compressed."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BY_HAND = "Get it by hand."


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CONTENT) as state:
        yield state


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(downloads, "WAIT_SECONDS", 0.0)


def wanted(folder: Path, url: str, sha256: str | None = SHA256, mirrors=()) -> Wanted:
    return Wanted(
        (url,), folder / "cache" / "zoo.tar.gz", sha256, BY_HAND, tuple(map(str, mirrors))
    )


def test_a_file_is_downloaded_once(tmp_path, server):
    one = download(wanted(tmp_path, server.url))
    two = download(wanted(tmp_path, server.url))
    assert one == two == tmp_path / "cache" / "zoo.tar.gz"
    assert one.read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path, server):
    server.breaks = [1_000_000, 500_000]
    assert download(wanted(tmp_path, server.url)).read_bytes() == CONTENT
    assert server.asked[0] is None
    first, second = (int(range_.strip("bytes=-")) for range_ in server.asked[1:])
    assert 0 < first <= 1_000_000
    assert first < second <= 1_500_000


def test_a_later_command_goes_on_with_what_an_earlier_one_left(tmp_path, server):
    server.breaks = [1_000_000] + [0] * (downloads.ATTEMPTS - 1)
    with pytest.raises(CheckpointError):
        download(wanted(tmp_path, server.url))
    assert wanted(tmp_path, server.url).part.stat().st_size > 0
    server.asked.clear()
    assert download(wanted(tmp_path, server.url)).read_bytes() == CONTENT
    assert server.asked != [None]
    assert not wanted(tmp_path, server.url).part.exists()


def test_a_server_that_cannot_go_on_is_asked_for_all_again(tmp_path, server):
    server.ranges, server.breaks = False, [1_000_000]
    assert download(wanted(tmp_path, server.url)).read_bytes() == CONTENT


def test_two_versions_of_a_file_are_never_joined(tmp_path, server):
    server.tag, server.content = '"old"', b"\x1f\x8b" + bytes(2_999_998)
    server.breaks = [1_000_000] + [0] * (downloads.ATTEMPTS - 1)
    with pytest.raises(CheckpointError):
        download(wanted(tmp_path, server.url))
    server.tag, server.content = '"new"', CONTENT
    assert download(wanted(tmp_path, server.url)).read_bytes() == CONTENT
    names = sorted(p.name for p in (tmp_path / "cache").iterdir())
    assert names == ["zoo.tar.gz", "zoo.tar.gz.lock"]


def test_a_partial_file_longer_than_the_whole_is_thrown_away(tmp_path, server):
    want = wanted(tmp_path, server.url)
    want.part.parent.mkdir()
    want.part.write_bytes(bytes(len(CONTENT) + 1))
    assert download(want).read_bytes() == CONTENT


def test_another_file_than_published_is_not_kept(tmp_path, server):
    server.content = b"something else"
    digest = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, server.url))
    assert str(raised.value) == (
        f"{server.url}: its sha256 is {digest}, not {SHA256}. It was not kept.\n  {BY_HAND}"
    )
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["zoo.tar.gz.lock"]


def test_without_a_published_digest_the_first_is_pinned_and_told(tmp_path, server, capsys):
    want = wanted(tmp_path, server.url, sha256=None)
    download(want)
    assert want.pin.read_text() == f"{SHA256}\n"
    told = f"{server.url}: no checksum is published. From now on its sha256 must be\n  {SHA256}"
    assert f"{told} ({want.pin})\n" in capsys.readouterr().err


def test_a_file_that_changed_since_is_refused(tmp_path, server):
    want = wanted(tmp_path, server.url, sha256=None)
    download(want).write_bytes(b"changed")
    digest = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(CheckpointError) as raised:
        download(want)
    assert str(raised.value) == (
        f"{want.file}: its sha256 is {digest}, not {SHA256}.\n"
        "  It changed since it was downloaded. Delete it to have it downloaded again."
    )


def test_what_is_fetched_again_must_be_what_was_pinned(tmp_path, server, capsys):
    want = wanted(tmp_path, server.url, sha256=None)
    download(want).unlink()
    server.content = b"\x1f\x8bsomething else"
    digest = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(CheckpointError) as raised:
        download(want)
    assert str(raised.value) == (
        f"{server.url}: its sha256 is {digest}, not {SHA256}, pinned in {want.pin}. It was not kept."
        f"\n  {BY_HAND}"
    )
    server.content = CONTENT
    assert download(want).read_bytes() == CONTENT
    assert capsys.readouterr().err.count("no checksum is published") == 1


def test_a_page_that_asks_to_sign_in_is_neither_kept_nor_pinned(tmp_path, server):
    server.content = b"<html>Welcome to our wireless network"
    want = wanted(tmp_path, server.url, sha256=None)
    with pytest.raises(CheckpointError) as raised:
        download(want)
    assert str(raised.value) == (
        f"{server.url}: what was sent under this name is not a .tar.gz: a page that asks to sign in, "
        f"perhaps. It was not kept.\n  {BY_HAND}"
    )
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["zoo.tar.gz.lock"]


# ---- mirrors


UNREACHABLE = "http://127.0.0.1:9/zoo.tar.gz"  # the discard port: nobody listens


def test_a_folder_with_the_file_needs_no_network(tmp_path, capsys):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "zoo.tar.gz").write_bytes(CONTENT)
    assert download(wanted(tmp_path, UNREACHABLE, None, [mirror])).read_bytes() == CONTENT
    assert f"{mirror}/zoo.tar.gz: no checksum is published." in capsys.readouterr().err


def test_half_a_file_in_a_mirror_is_neither_kept_nor_pinned(tmp_path, server, capsys):
    half = tmp_path / "zoo.tar.gz"
    half.write_bytes(CONTENT[: len(CONTENT) // 2])
    want = wanted(tmp_path, server.url, None, [tmp_path])
    assert download(want).read_bytes() == CONTENT
    assert (
        f"{half}: it is damaged, or ends early: half a download, perhaps. It was not kept.\n"
        in capsys.readouterr().err
    )
    assert want.pin.read_text() == f"{SHA256}\n"


def test_a_mirror_without_the_file_is_told_and_passed_over(tmp_path, server, capsys):
    base = server.url.rpartition("/")[0]
    want = wanted(tmp_path, UNREACHABLE, mirrors=[tmp_path, f"{base}/old/", base])
    assert download(want).read_bytes() == CONTENT
    told = capsys.readouterr().err
    assert f"{tmp_path}/zoo.tar.gz: cannot be read: No such file or directory." in told
    assert (
        f"{base}/old/zoo.tar.gz: cannot be downloaded: the server answered 404 Not Found." in told
    )


def test_a_mirror_with_another_file_is_refused_and_the_publisher_asked(tmp_path, server, capsys):
    (tmp_path / "zoo.tar.gz").write_bytes(b"\x1f\x8bsomething else")
    digest = hashlib.sha256(b"\x1f\x8bsomething else").hexdigest()
    assert download(wanted(tmp_path, server.url, mirrors=[tmp_path])).read_bytes() == CONTENT
    assert (
        f"{tmp_path}/zoo.tar.gz: its sha256 is {digest}, not {SHA256}. It was not kept."
        in capsys.readouterr().err
    )


def test_where_no_place_has_it_every_answer_is_told(tmp_path):
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, UNREACHABLE, mirrors=[tmp_path]))
    assert str(raised.value) == (
        f"{UNREACHABLE}: cannot be downloaded: no connection to the server.\n  {BY_HAND}"
        f"\n  Tried before: {tmp_path}/zoo.tar.gz: cannot be read: No such file or directory."
    )


def test_parts_of_two_places_are_never_joined(tmp_path, server):
    server.content = b"\x1f\x8b" + bytes(2_999_998)
    server.breaks = [1_000_000] + [0] * (downloads.ATTEMPTS - 1)
    with pytest.raises(CheckpointError):
        download(wanted(tmp_path, server.url))
    server.content = CONTENT
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    assert download(wanted(tmp_path, elsewhere)).read_bytes() == CONTENT


def test_a_second_process_says_that_it_waits(tmp_path, server, capsys):
    want = wanted(tmp_path, server.url)
    want.file.parent.mkdir()
    with FileLock(f"{want.file}.lock"):
        thread = threading.Thread(target=download, args=(want,))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join()
    assert want.file.read_bytes() == CONTENT
    assert "zoo.tar.gz: another process fetches it; waiting.\n" in capsys.readouterr().err


def test_a_file_that_the_server_does_not_have(tmp_path, server):
    url = server.url.replace("zoo", "none")
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, url))
    assert str(raised.value) == (
        f"{url}: cannot be downloaded: the server answered 404 Not Found.\n  {BY_HAND}"
    )


def test_without_a_network_the_error_says_how_to_get_it_by_hand(tmp_path):
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, UNREACHABLE))
    assert str(raised.value) == (
        f"{UNREACHABLE}: cannot be downloaded: no connection to the server.\n  {BY_HAND}"
    )


def test_a_connection_that_breaks_every_time_says_so(tmp_path, server):
    server.breaks = [0] * downloads.ATTEMPTS
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, server.url))
    assert str(raised.value) == (
        f"{server.url}: cannot be downloaded: the connection broke off.\n  {BY_HAND}"
    )


def test_a_cache_that_cannot_be_written_is_named(tmp_path, server):
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(CheckpointError) as raised:
        download(wanted(tmp_path, server.url))
    assert str(raised.value) == (
        f"{server.url}: cannot be kept in {tmp_path / 'cache'}: "
        f"[Errno 17] File exists: '{tmp_path / 'cache'}'.\n  {BY_HAND}"
    )


def test_files_of_one_name_from_two_places_are_kept_apart(tmp_path):
    first, second = (file_in(tmp_path, [f"https://{host}/m.tar.gz?x=1"]) for host in ("a", "b"))
    assert first != second
    assert first.name == second.name == "m.tar.gz"


def test_nothing_that_is_said_or_kept_of_a_mirror_has_its_password(tmp_path, server, said):
    secret = server.url.replace("//", "//bob:PASSWORD@")
    server.breaks = [1_000_000] + [0] * (downloads.ATTEMPTS - 1)
    mirror = "http://bob:PASSWORD@127.0.0.1:9"
    with pytest.raises(CheckpointError) as caught:
        download(wanted(tmp_path, secret, mirrors=[mirror]))
    shown = secret.replace("PASSWORD", "***")
    assert str(caught.value) == (
        f"{shown}: cannot be downloaded: the connection broke off.\n  {BY_HAND}\n  Tried before: "
        "http://bob:***@127.0.0.1:9/zoo.tar.gz: cannot be downloaded: no connection to the server."
    )
    assert not [line for line in said if "PASSWORD" in line]
    assert wanted(tmp_path, secret).version.read_text() == f"{shown}\n"
    assert download(wanted(tmp_path, secret)).read_bytes() == CONTENT
    assert server.asked[-1] is not None  # it went on
