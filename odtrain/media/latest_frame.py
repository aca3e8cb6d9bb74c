"""The newest frame of a camera, whatever time is spent on the one before."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType

from odtrain.media.video import Frame, Video

WAIT_SECONDS = 1.0


class Newest:
    """Reads a camera, or a video as if it were one, in a thread; frames nobody asks for in time are dropped."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.ended = False
        self._frame: Frame | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="odtrain-camera", daemon=True)

    def __enter__(self) -> Newest:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def after(self, number: int, seconds: float) -> Frame | None:
        """The newest frame behind frame `number`, waited for at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._number() > number, seconds)
            return self._frame if self._number() > number else None

    def frames(self, max_seconds: float | None = None) -> Iterator[Frame]:
        """Newest frames one after the other, until the camera is gone or so long has passed."""
        number = -1
        while True:
            frame = self.after(number, WAIT_SECONDS)
            if frame is None and self.ended:
                return
            if frame is None:
                continue
            if max_seconds is not None and frame.seconds > max_seconds:
                return
            number = frame.number
            yield frame

    @property
    def seen(self) -> bool:
        """Whether there was any frame."""
        return self._frame is not None

    def _number(self) -> int:
        return -1 if self._frame is None else self._frame.number

    def _read(self) -> None:
        try:
            begun = time.monotonic()
            for frame in self.video:
                wait = 0.0 if self.video.live else begun + frame.seconds - time.monotonic()
                if self._stop.wait(max(0.0, wait)):
                    break
                with self._changed:
                    self._frame = replace(frame, taken=time.monotonic())
                    self._changed.notify_all()
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()
            self.video.close()
