"""What a served model saw and found, kept for later: a line of JSON a picture, written beside the serving.

    DIR/log-20261129T101500-4711-001.jsonl  what was seen, in UTC; the first line says of which model
    DIR/pictures/20261129T101501-4711-1.jpg the pictures themselves, where they are asked for

A request hands over its picture and goes on; a thread looks at it and writes, twice a second.
What a full queue cannot take is counted, not waited for. On a full disk logging ends, and serving goes on.
"""

from __future__ import annotations

import atexit
import errno
import io
import json
import math
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from odtrain_runtime.errors import OdtrainError
from odtrain_runtime.seen.looks import glance, looks_of
from odtrain_runtime.structures import Detections, UInt8Image, areas

VERSION = 1
FOLDER_VARIABLE = "ODTRAIN_SERVE_LOG"
"""By which whoever runs a registered model says where to log."""
SHARE_VARIABLE, BOUND_VARIABLE = f"{FOLDER_VARIABLE}_PICTURES", f"{FOLDER_VARIABLE}_MEGABYTES"
"""By which they say which share of the pictures to keep, and how much in all."""
FULL = (errno.ENOSPC, errno.EDQUOT)
WAITING = 16
"""Pictures that may wait to be looked at."""
LARGEST_WAITING = 3 * 2_000_000
"""Bytes of a decoded picture that waits as it is: copying it would cost the request more."""
LARGEST_KEPT = 3 * 16_000_000
"""Bytes of a decoded picture that is kept; a larger one is logged without it."""
LONGEST_KEPT = 65_500
"""Pixels of a side of it: what libjpeg writes."""
LOWEST = 0.1
"""Detections are logged from this score on, whatever is shown: logs of other thresholds can be compared."""
SECONDS = 0.5
"""Between writes: no more than a second is lost where the process is killed, on a busy machine too."""
LONGEST_CLOSE = 10.0
"""Seconds that a server which ends waits for what is not written yet."""
LOWEST_PRIORITY = 19
"""Of the thread that looks and writes: requests come first."""
FILE_BYTES = 4_000_000
"""From which a new file is begun."""
PICTURES, QUALITY = "pictures", 90


@dataclass(frozen=True)
class LogSettings:
    """What is kept.

    Attributes:
        folder: where.
        pictures: share of the pictures that are kept too, 0 to 1.
        max_megabytes: of all of it; the oldest goes first.
    """

    folder: Path
    pictures: float = 0.0
    max_megabytes: float = 200.0


@dataclass(frozen=True, eq=False)
class _Seen:
    """A picture that waits to be looked at.

    Attributes:
        time: when it came, in seconds since 1970.
        size: (height, width) in pixels.
        rough: the picture, or its `looks.glance` where it is large.
        whole: the picture, where it is to be kept.
        found: in it, at low scores too.
    """

    time: float
    size: tuple[int, int]
    rough: UInt8Image
    whole: UInt8Image | None
    found: Detections


class UsageLog:
    """Writes what it is given until it is closed."""

    def __init__(
        self, settings: LogSettings, model: str, class_names: Sequence[str], run: str = ""
    ) -> None:
        """`model` is what serves, for whoever reads the log; `run` is the one that it comes from, if known.

        On a full disk nothing is logged from the start, and that is said.

        Raises:
            OSError: the folder cannot be written for another reason.
        """
        self._settings = settings
        self._head = {
            "version": VERSION,
            "model": model,
            "run": run,
            "classes": list(class_names),
        }
        self._queue: queue.Queue[_Seen | None] = queue.Queue(WAITING)
        self._random = random.Random()
        self._lost = self._number = self._kept = 0
        self._unseen = float("inf")  # bytes written since the folder was looked at
        self._stream: io.FileIO | None = None
        self._lines: list[str] = []
        self.stopped = False
        try:
            settings.folder.mkdir(parents=True, exist_ok=True)
            self._begin_file()
        except OSError as error:
            if error.errno not in FULL:
                raise
            return self._end(error)
        self._thread = threading.Thread(target=self._run, name="odtrain-log", daemon=True)
        self._thread.start()

    def add(self, image: UInt8Image, found: Detections) -> None:
        """Hand over an (H, W, 3) picture, which nobody changes any more, and what was found in it."""
        if self.stopped:
            return
        size = (image.shape[0], image.shape[1])
        keep = self._random.random() < self._settings.pictures
        keep = keep and image.size <= LARGEST_KEPT and max(size) <= LONGEST_KEPT
        whole = image if keep else None
        rough = image if image.size <= LARGEST_WAITING else glance(image)
        try:
            self._queue.put_nowait(_Seen(time.time(), size, rough, whole, found))
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits."""
        with suppress(queue.Full):  # where the disk hangs
            if not self.stopped:
                self._queue.put(None, timeout=LONGEST_CLOSE)
                self._thread.join(LONGEST_CLOSE)

    def _run(self) -> None:
        if sys.platform == "linux":  # where threads have a priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        try:
            self._write_all()
        except Exception as error:  # whatever it is, it is not the requests' concern
            with suppress(OSError):  # where a picture was too large, lines may still have room
                self._flush()
            self._end(error)
        self._close_file()

    def _close_file(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _end(self, error: Exception) -> None:
        self.stopped = True
        self._close_file()
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        said = f"{self._settings.folder}: logging ended: {reason}. Serving goes on."
        print(said, file=sys.stderr, flush=True)

    def _write_all(self) -> None:
        due, ended = time.monotonic() + SECONDS, False
        while not ended:
            with suppress(queue.Empty):
                seen = self._queue.get(timeout=max(due - time.monotonic(), 0.01))
                ended = seen is None
                if seen is not None:
                    self._look(seen)
            if ended or time.monotonic() >= due:
                self._flush()
                due = time.monotonic() + SECONDS

    def _look(self, seen: _Seen) -> None:
        line: dict[str, Any] = {
            "time": round(seen.time, 3),
            "height": seen.size[0],
            "width": seen.size[1],
            **seen_as_json(seen.rough, seen.found),
        }
        if self._lost:
            line["lost_before"], self._lost = self._lost, 0
        if seen.whole is not None:
            line["picture"] = self._keep(seen.time, seen.whole)
        self._lines.append(json.dumps(line, separators=(",", ":")) + "\n")

    def _keep(self, when: float, image: UInt8Image) -> str:
        """The name of a JPEG of the pixels alone: nothing of the file that was sent comes along."""
        folder = self._settings.folder / PICTURES
        folder.mkdir(exist_ok=True)
        start = f"{_stamp(when)}-{os.getpid()}"
        names = (folder / f"{start}-{number}.jpg" for number in count(self._kept + 1))
        file = next(each for each in names if not each.exists())
        self._kept += 1
        content = io.BytesIO()
        Image.fromarray(image).save(content, "JPEG", quality=QUALITY)
        part = file.with_suffix(".part")
        try:
            part.write_bytes(content.getvalue())
            part.replace(file)
            self._unseen += content.tell()
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        return file.name

    def _flush(self) -> None:
        if not self._lines:
            return
        if self._stream is None or self._stream.tell() > FILE_BYTES:
            self._begin_file()
        assert self._stream is not None
        self._write("".join(self._lines).encode())
        self._lines = []
        self._bound()

    def _write(self, data: bytes) -> None:
        """All of it: what the disk does not take is an error, and leaves no half line."""
        assert self._stream is not None
        before = self._stream.tell()
        self._unseen += len(data)
        try:
            while data:
                data = data[self._stream.write(data) :]
        except OSError:
            with suppress(OSError):
                self._stream.truncate(before)
                self._stream.seek(before)
            raise

    def _begin_file(self) -> None:
        self._close_file()
        start = f"log-{_stamp(time.time())}-{os.getpid()}"
        for number in count(self._number + 1):
            self._number = number
            file = self._settings.folder / f"{start}-{number:03}.jsonl"
            with suppress(FileExistsError):
                self._stream = io.FileIO(file, "x")
                break
        self._write((json.dumps(self._head) + "\n").encode())

    def _bound(self) -> None:
        """Remove the oldest files, never the one that is written to, until a tenth of the bound is free.

        The folder is looked at whenever that may be full again: there may be other servers that write to it.
        """
        folder, limit = self._settings.folder, self._settings.max_megabytes * 1_000_000
        if self._unseen <= limit / 10:
            return
        self._unseen = 0
        sizes = {}
        for file in [*folder.glob("log-*.jsonl"), *(folder / PICTURES).glob("*")]:
            with suppress(OSError):
                state = file.stat()
                sizes[file] = state.st_mtime, state.st_size
        held = sum(size for _, size in sizes.values())
        for file in sorted(sizes, key=lambda each: sizes[each]):
            if held <= 0.9 * limit:
                return
            if self._stream is None or file.name != Path(self._stream.name).name:
                with suppress(OSError):
                    file.unlink()
                held -= sizes[file][1]


def seen_as_json(image: UInt8Image, found: Detections) -> dict[str, Any]:
    """How an (H, W, 3) picture looks; scores, classes and areas (parts of it) of what was found there."""
    found = found.above(LOWEST)
    return {
        **asdict(looks_of(glance(image))),
        "scores": np.round(found.scores.astype(float), 4).tolist(),
        "classes": found.classes.tolist(),
        "areas": np.round(areas(found.boxes).astype(float), 6).tolist(),
    }


def log_of_environment(
    model: str, class_names: Sequence[str], run: str, variables: Mapping[str, str] = os.environ
) -> UsageLog | None:
    """The log that environment variables ask for, for servers that have no settings of ours; None for none.

    `model`, `class_names` and `run` are those of `UsageLog`.

    Raises:
        OdtrainError: a variable is no number that it may be.
        OSError: as of `UsageLog`.
    """
    folder = variables.get(FOLDER_VARIABLE)
    if not folder:
        return None
    share = _number(variables, SHARE_VARIABLE, "0", (0, 1))
    bound = _number(variables, BOUND_VARIABLE, "200", (1, math.inf))
    log = UsageLog(LogSettings(Path(folder), share, bound), model, class_names, run)
    atexit.register(log.close)
    return log


def _number(
    variables: Mapping[str, str], name: str, default: str, bounds: tuple[float, float]
) -> float:
    given = variables.get(name) or default
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not bounds[0] <= value <= bounds[1]:
        to = "at least 1" if bounds[1] == math.inf else "from 0 to 1"
        raise OdtrainError(f"{name}={given}", f"is no number {to}.", "Correct the variable.")
    return value


def _stamp(when: float) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(when))
