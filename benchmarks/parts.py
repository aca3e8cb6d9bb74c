"""What looking at a picture takes if only its parts are done: the bound of a command on the same cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

THRESHOLD = 0.5


class Cost(NamedTuple):
    """Of one picture.

    Attributes:
        seconds: by the clock on the wall, with as many pictures at a time as there are detectors.
        cpu_seconds: of the process, all threads.
    """

    seconds: float
    cpu_seconds: float


def cost(files: Sequence[Path], detectors: Sequence[Any], drawn: bool) -> Cost:
    """Decode, resize, invoke, and where it is asked for draw and encode, with a detector for each thread."""
    shares = [files[number :: len(detectors)] for number in range(len(detectors))]
    with ThreadPoolExecutor(len(detectors)) as pool:
        drawing = [drawn] * len(shares)
        return timed(lambda: list(pool.map(_look, detectors, shares, drawing)), len(files))


def timed(work: Callable[[], object], count: int) -> Cost:
    """What work on `count` pictures takes for each."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    elapsed, spent = time.perf_counter() - begun, time.process_time() - used
    return Cost(elapsed / count, spent / count)


def _look(detector: Any, files: Sequence[Path], drawn: bool) -> None:
    from odtrain.media.draw import draw
    from odtrain.predict.runner import DRAWN_QUALITY, jpeg
    from odtrain_runtime.detector import detections_of
    from odtrain_runtime.pictures import read_upright

    for file in files:
        image = read_upright(file)
        raw = detector.run(detector.prepare(image))
        if drawn:
            kept = detections_of(raw).above(THRESHOLD)
            jpeg(draw(image, kept, detector.class_names, threshold=0), DRAWN_QUALITY)
