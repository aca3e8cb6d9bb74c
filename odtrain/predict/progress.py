"""What a prediction has found so far, safe on disk, so that the same command goes on where it stopped.

One line of JSON for each picture or frame, appended when it is done: a kill costs what was under way, a power
cut the last second. A line cut off is not counted. The file is gone once the tables are written.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.io.atomic import Settling
from odtrain.structures import Detections

Key = tuple[str, int | None]
"""Name of the file, and number of the frame in it; below 0, something said of the whole video."""
NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


class Journal:
    """The findings of one job.

    Attributes:
        file: where it is kept.
        before: how many pictures and frames an earlier, interrupted run of the same job left here.
    """

    def __init__(self, file: Path, job: Mapping[str, Any]) -> None:
        """Open the journal of a job; one of another job is begun anew."""
        self.file = file
        self._offsets: dict[Key, int] = {}
        head = json.dumps({"job": dict(job)}, sort_keys=True)
        keep = self._read(head) if file.is_file() else 0
        self._stream = file.open("r+b" if keep else "w+b")
        self._stream.seek(keep)
        self._stream.truncate()
        if not keep:
            self._append(head)
        self._settling = Settling(file)
        self._settling.due(at_once=True)
        self._after: deque[Path] = deque()
        self.before = len(self._offsets)

    def _read(self, head: str) -> int:
        """Note where each line begins; how many bytes are whole, 0 for the journal of another job."""
        with self.file.open("rb") as stream:
            if stream.readline() != head.encode() + b"\n":
                return 0
            end = stream.tell()
            for line in stream:
                try:
                    entry = json.loads(line)
                    key = entry["name"], entry["frame"]
                except (ValueError, KeyError):
                    break
                if not line.endswith(b"\n"):
                    break
                self._offsets[key] = end
                end += len(line)
        return end

    def add(
        self,
        key: Key,
        stamp: str,
        size: tuple[int, int] = (0, 0),
        found: Detections = NOTHING,
        seconds: float | None = None,
    ) -> None:
        """Note what was found.

        Args:
            key: the picture or frame.
            stamp: what tells whether the file is still the same.
            size: (height, width) of the picture.
            found: what is shown of it.
            seconds: of a frame, from the beginning of its video.
        """
        entry = {
            "name": key[0],
            "frame": key[1],
            "stamp": stamp,
            "size": size,
            "seconds": seconds,
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "classes": found.classes.tolist(),
        }
        self._stream.seek(0, os.SEEK_END)
        self._offsets[key] = self._stream.tell()
        self._append(json.dumps(entry))
        self._settling.due(*(self._after.popleft() for _ in range(len(self._after))))

    def after(self, file: Path) -> None:
        """What was written, by any thread, of a picture that is noted next: on disk before the note is."""
        self._after.append(file)

    def get(self, key: Key) -> dict[str, Any] | None:
        """What was noted of a picture or frame: `stamp`, `size`, `seconds` and `found`."""
        offset = self._offsets.get(key)
        if offset is None:
            return None
        self._stream.seek(offset)
        entry: dict[str, Any] = json.loads(self._stream.readline())
        found = Detections(
            np.array(entry["boxes"], np.float32).reshape(-1, 4),
            np.array(entry["scores"], np.float32),
            np.array(entry["classes"], np.int64),
        )
        return {**entry, "found": found}

    def frames(self, name: str) -> list[int]:
        """Which frames of a video were noted, in order."""
        found = [frame for known, frame in self._offsets if known == name and frame is not None]
        return sorted(frame for frame in found if frame >= 0)

    def close(self) -> None:
        """Keep it for the next run of the same job."""
        self._settling.now()
        self._stream.close()

    def remove(self) -> None:
        """The job is done."""
        self._stream.close()
        self.file.unlink(missing_ok=True)

    def _append(self, line: str) -> None:
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()


def stamp_of(file: Path) -> str:
    """Size and time of change of a file: what tells that it is still the same."""
    stat = file.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}"
