"""What a run has to tell its tracking server, safe on disk until the server has it.

A `Spool` is a folder: `journal.jsonl` (one line an entry, in order), `sent` (how many bytes of it
have arrived) and `files/` (artifacts that wait, laid out as the run's artifact tree). An `Outbox`
empties it from one background thread, and keeps trying when the other side is gone.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odtrain.io.atomic import Settling, copy, make_folder, write_text

LONGEST_PAUSE_SECONDS = 60.0
OFTEN = ("metrics",)
"""Kinds of entries that come by the step."""


@dataclass(frozen=True)
class SpoolEntry:
    """One thing to tell.

    Attributes:
        kind: what it is: metrics, params, tags, grown, dataset, prune or status.
        body: its content, as JSON has it.
        end: offset in the journal, in bytes, of what follows it.
    """

    kind: str
    body: dict[str, Any]
    end: int


@dataclass(frozen=True)
class WaitingFile:
    """An artifact that has not arrived; `stamp` changes when it is replaced by a newer one."""

    local: Path
    artifact: str
    stamp: tuple[int, int]


class Spool:
    """The entries and files of one run that have not arrived yet.

    Opening the folder of an earlier process finds what that one could not send.
    Where the disk refuses, entries wait in memory alone.
    """

    def __init__(self, folder: Path) -> None:
        """Open, or make, the spool in `folder`."""
        self.folder = folder
        self.problem: OSError | None = None
        self._journal = folder / "journal.jsonl"
        self._sent = folder / "sent"
        self._files = folder / "files"
        self._lock = threading.Lock()
        make_folder(folder)
        self._waiting = deque(entry for entry in self.journal() if entry.end > self._sent_bytes())
        self._end = self._journal.stat().st_size if self._journal.exists() else 0
        self._stream = self._journal.open("ab", buffering=0)
        self._torn = not _ends_a_line(self._journal)
        self._settling = Settling(self._journal)

    def append(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take one entry in; a kill does not lose it when this returns.

        Nor does a power cut, but for metrics of the last second or so: see `sync`.
        """
        text = json.dumps({"kind": kind, "body": body}, ensure_ascii=False)
        line = text.encode(errors="surrogatepass") + b"\n"
        with self._lock:
            self._write(line)
            self._settle(at_once=kind not in OFTEN)
            self._waiting.append(SpoolEntry(kind, dict(body), self._end))

    def _write(self, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line
        try:
            written = self._stream.write(line)
        except OSError as problem:
            self.problem = problem
            written = 0
        self._end += written or 0
        self._torn = written != len(line)

    def _settle(self, at_once: bool) -> None:
        try:
            self._settling.due(at_once=at_once)
        except OSError as problem:
            self.problem = problem

    def sync(self) -> None:
        """Have every entry on disk when this returns, where the disk takes it."""
        try:
            with self._lock:
                self._settling.now()
        except OSError as problem:
            self.problem = problem

    def journal(self) -> list[SpoolEntry]:
        """Every entry ever taken in, sent or not; a line left half written by a kill is none."""
        if not self._journal.exists():
            return []
        entries, end = [], 0
        for line in self._journal.read_bytes().splitlines(keepends=True):
            end += len(line)
            try:
                fields = json.loads(line)
            except ValueError:
                continue
            entries.append(SpoolEntry(fields["kind"], fields["body"], end))
        return entries

    def waiting(self) -> list[SpoolEntry]:
        """The entries that have not arrived, oldest first."""
        with self._lock:
            return list(self._waiting)

    def arrived(self, count: int) -> None:
        """Forget the oldest `count` waiting entries."""
        with self._lock:
            for _ in range(count):
                last = self._waiting.popleft()
        try:
            write_text(self._sent, str(last.end))
        except OSError as problem:
            self.problem = problem

    def keep_file(self, local: Path, artifact: str) -> None:
        """Copy a file to wait here as `artifact` (posix path); a newer one replaces an older one.

        It is on disk when this returns.

        Raises:
            OSError: it could not be copied.
        """
        copy(local, self._files / artifact)

    def files(self) -> list[WaitingFile]:
        """The artifacts that have not arrived."""
        found = sorted(path for path in self._files.rglob("*") if path.is_file())
        return [
            WaitingFile(path, path.relative_to(self._files).as_posix(), _stamp(path))
            for path in found
        ]

    def file_arrived(self, file: WaitingFile) -> None:
        """Delete a waiting artifact, unless a newer one has taken its place meanwhile."""
        if _stamp(file.local) == file.stamp:
            file.local.unlink()

    def forget_files(self, folder: str, keep: Iterable[str]) -> None:
        """Drop the artifacts that wait below `folder`, but for those named in `keep`."""
        kept = {f"{folder}/{name}" for name in keep}
        for file in self.files():
            if file.artifact.startswith(f"{folder}/") and file.artifact not in kept:
                file.local.unlink(missing_ok=True)

    @property
    def empty(self) -> bool:
        """Whether everything has arrived."""
        return not self._waiting and not self.files()

    def close(self, *, discard: bool = False) -> None:
        """Close the journal, on disk; with `discard`, and if everything has arrived, delete the folder."""
        self.sync()
        self._stream.close()
        if discard and self.empty:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _sent_bytes(self) -> int:
        return int(self._sent.read_text() or 0) if self._sent.exists() else 0


def _ends_a_line(journal: Path) -> bool:
    size = journal.stat().st_size
    if size == 0:
        return True
    with journal.open("rb") as stream:
        stream.seek(size - 1)
        return stream.read(1) == b"\n"


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return (status.st_ino, status.st_mtime_ns)


class Outbox:
    """Empties a spool every few seconds in the background, and at once when asked.

    Whatever goes wrong on the way never reaches the caller: it is tried again later, after pauses
    that double up to a minute.
    """

    def __init__(
        self,
        send: Callable[[], None],
        every_seconds: float,
        lost: Callable[[Exception], None],
        back: Callable[[], None],
    ) -> None:
        """`send` empties the spool or raises; `lost` and `back` are told when that changes."""
        self.down = False
        self._send = send
        self._every = every_seconds
        self._lost = lost
        self._back = back
        self._pause = every_seconds
        self._retry_at = 0.0
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_sending, name="odtrain-outbox", daemon=True
        )

    def start(self) -> None:
        """Start to send in the background."""
        self._thread.start()

    def flush(self, *, insist: bool = False) -> bool:
        """Send everything now; False if it could not be.

        While the other side is known to be gone this returns at once, unless asked to `insist`.
        """
        if self.down and not insist and (self._is_tried_elsewhere() or not self._is_due()):
            return False
        with self._sending:
            try:
                self._send()
            except Exception as problem:
                self._note_lost(problem)
                return False
            self._note_back()
            return True

    def note_lost(self, problem: Exception) -> None:
        """Someone else saw that the other side is gone."""
        self._note_lost(problem)

    def close(self) -> bool:
        """Stop the thread and send what is left; False if it could not be."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        return self.flush(insist=True)

    def _keep_sending(self) -> None:
        while not self._stop.wait(self._every):
            self.flush()

    def _is_due(self) -> bool:
        return time.monotonic() >= self._retry_at

    def _is_tried_elsewhere(self) -> bool:
        """Whether the thread in the background does it: nobody else waits for a server that hangs."""
        return self._thread.is_alive() and threading.current_thread() is not self._thread

    def _note_lost(self, problem: Exception) -> None:
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS) if self.down else self._every
        self._retry_at = time.monotonic() + self._pause
        if not self.down:
            self.down = True
            self._lost(problem)

    def _note_back(self) -> None:
        if self.down:
            self.down = False
            self._back()
