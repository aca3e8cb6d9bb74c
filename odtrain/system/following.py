"""Processes that end with the one that began them, killed or not."""

from __future__ import annotations

import os
import signal
import threading
import time

SECONDS_BETWEEN_LOOKS = 0.5
"""At whether the process that began this one is still there."""


def follow(parent: int) -> None:
    """End this process as SIGTERM does (a training's run is KILLED) if `parent`, which began it, is gone.

    The number comes from the parent itself: it may be gone before this process looks for the first time.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
