from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from odtrain.tracking.spool import Outbox, Spool


@pytest.fixture
def open_spool() -> Iterator[Callable[[Path], Spool]]:
    """Opens spools that the test need not close."""
    with ExitStack() as opened:

        def open_one(folder: Path) -> Spool:
            spool = Spool(folder)
            opened.callback(spool.close)
            return spool

        yield open_one


def bodies(spool: Spool) -> list[dict[str, object]]:
    return [entry.body for entry in spool.waiting()]


def test_entries_wait_in_order_until_they_have_arrived(tmp_path, open_spool):
    spool = open_spool(tmp_path / "spool")
    for number in range(3):
        spool.append("tags", {"number": number})
    spool.arrived(2)
    assert bodies(spool) == [{"number": 2}]
    assert not spool.empty
    spool.arrived(1)
    assert spool.empty


def test_another_process_finds_what_did_not_arrive(tmp_path, open_spool):
    first = open_spool(tmp_path)
    for number in range(3):
        first.append("tags", {"number": number, "name": "승강기"})
    first.arrived(1)
    again = open_spool(tmp_path)
    assert bodies(again) == [{"number": number, "name": "승강기"} for number in (1, 2)]
    again.append("tags", {"number": 3})
    again.arrived(2)
    assert bodies(open_spool(tmp_path)) == [{"number": 3}]


def test_a_line_cut_short_by_a_kill_costs_that_line_alone(tmp_path, open_spool):
    first = open_spool(tmp_path)
    first.append("tags", {"number": 0})
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"kind": "tags", "bo')
    again = open_spool(tmp_path)
    again.append("tags", {"number": 1})
    assert bodies(open_spool(tmp_path)) == [{"number": 0}, {"number": 1}]
    again.arrived(2)
    again.append("tags", {"number": 2})
    assert bodies(open_spool(tmp_path)) == [{"number": 2}]


def test_a_newer_file_replaces_one_that_waits(tmp_path, open_spool):
    spool = open_spool(tmp_path / "spool")
    local = tmp_path / "last.txt"
    for content in ("older", "newer"):
        local.write_text(content)
        spool.keep_file(local, "checkpoints/last.txt")
    (file,) = spool.files()
    assert (file.artifact, file.local.read_text()) == ("checkpoints/last.txt", "newer")


def test_a_file_replaced_while_it_was_sent_goes_on_waiting(tmp_path, open_spool):
    spool = open_spool(tmp_path / "spool")
    local = tmp_path / "last.txt"
    local.write_text("older")
    spool.keep_file(local, "last.txt")
    (sent,) = spool.files()
    local.write_text("newer")
    spool.keep_file(local, "last.txt")
    spool.file_arrived(sent)
    (file,) = spool.files()
    assert file.local.read_text() == "newer"
    spool.file_arrived(file)
    assert spool.empty


def test_a_spool_is_deleted_only_when_everything_has_arrived(tmp_path, open_spool):
    spool = open_spool(tmp_path / "spool")
    spool.append("tags", {})
    spool.close(discard=True)
    assert (tmp_path / "spool").exists()
    again = open_spool(tmp_path / "spool")
    again.arrived(1)
    again.close(discard=True)
    assert not (tmp_path / "spool").exists()


class Recipient:
    """Takes what is sent, or fails, and notes what it is told."""

    def __init__(self) -> None:
        self.away = False
        self.calls = 0
        self.news: list[str] = []

    def send(self) -> None:
        self.calls += 1
        if self.away:
            raise ConnectionError("gone")

    def outbox(self, every: float = 3600.0) -> Outbox:
        return Outbox(
            self.send,
            every,
            lambda problem: self.news.append(f"lost: {problem}"),
            lambda: self.news.append("back"),
        )


@pytest.fixture
def recipient() -> Recipient:
    return Recipient()


def test_an_outage_is_told_once_and_so_is_its_end(recipient):
    outbox = recipient.outbox()
    recipient.away = True
    assert [outbox.flush(insist=True) for _ in range(3)] == [False, False, False]
    recipient.away = False
    assert [outbox.flush(insist=True) for _ in range(2)] == [True, True]
    assert recipient.news == ["lost: gone", "back"]


def test_while_the_other_side_is_gone_flush_does_not_ask_again(recipient):
    outbox = recipient.outbox()
    recipient.away = True
    outbox.flush()
    outbox.flush()
    assert recipient.calls == 1


def test_pauses_double_up_to_a_minute(recipient, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("odtrain.tracking.spool.time.monotonic", lambda: clock[0])
    outbox = recipient.outbox(every=5.0)
    recipient.away = True
    asked = []
    for second in range(300):
        clock[0] = float(second)
        before = recipient.calls
        outbox.flush()
        if recipient.calls > before:
            asked.append(second)
    assert asked == [0, 5, 15, 35, 75, 135, 195, 255]


def test_closing_sends_once_more_even_in_an_outage(recipient):
    outbox = recipient.outbox()
    outbox.start()
    recipient.away = True
    outbox.flush()
    recipient.away = False
    assert outbox.close()
    assert recipient.news == ["lost: gone", "back"]


def test_the_background_thread_sends(recipient):
    outbox = recipient.outbox(every=0.01)
    outbox.start()
    deadline = time.monotonic() + 10
    while recipient.calls < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    outbox.close()
    assert recipient.calls >= 3
    assert not [each for each in threading.enumerate() if each.name == "odtrain-outbox"]


def test_a_file_that_waits_below_a_mirrored_folder_is_dropped_when_gone(tmp_path, open_spool):
    spool = open_spool(tmp_path / "spool")
    local = tmp_path / "file"
    local.write_text("")
    for artifact in ("checkpoints/ckpt-1", "checkpoints/ckpt-2", "checkpoints2/ckpt-1"):
        spool.keep_file(local, artifact)
    spool.forget_files("checkpoints", ["ckpt-2"])
    left = [file.artifact for file in spool.files()]
    assert left == ["checkpoints/ckpt-2", "checkpoints2/ckpt-1"]
