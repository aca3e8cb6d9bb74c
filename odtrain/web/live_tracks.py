"""Objects of live pictures followed, and counted at lines and zones that are drawn in the page."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from odtrain.predict.tracks import Tracks, byte_track
from odtrain.structures import Detections

MOST_PAGES = 16
"""Pages whose own cameras are followed at once; the one that sent nothing for longest makes way."""
MOST_PLACES, MOST_CORNERS, LONGEST_NAME = 20, 50, 60
"""Lines and zones of a page, corners of one, letters of a name."""
LONGEST_TOKEN = 64


class LiveTracks:
    """The objects of one camera; may be asked from several threads."""

    def __init__(self, name: str, threshold: float, lines: Mapping[str, Sequence[float]]) -> None:
        """`lines` are in pixels of the frame, as `predict.lines` has them.

        Raises:
            ConfigError: `trackers` is not installed.
        """
        byte_track(threshold)
        self._tracks = Tracks(name, threshold, dict(lines))
        self._drawn: dict[str, list[float]] | None = None
        self._lock = threading.Lock()
        self._frame = 0

    def follow(self, found: Detections, size: tuple[int, int], taken: float) -> dict[str, Any]:
        """The number of each detection's track, 0 for none, and what was counted so far.

        Args:
            found: in the next frame.
            size: (height, width) of it.
            taken: when, in seconds of a clock that never goes back.

        Raises:
            DataError: a line of `predict.lines` leaves the frame.
        """
        with self._lock:
            height, width = self._tracks.size or size
            if self._drawn is not None:
                places = {
                    name: (np.reshape(each, (-1, 2)) * (width, height)).ravel().tolist()
                    for name, each in self._drawn.items()
                }
                self._tracks.count_at(places)
                self._drawn = None
            numbers = self._tracks.number(found, size, self._frame, taken)
            self._frame += 1
            self._tracks.events.clear()
            lines = {
                name: np.round(np.reshape(points, (-1, 2)) / (width, height), 5).ravel().tolist()
                for name, points in self._tracks.lines.items()
            }
            return {"tracks": numbers.tolist(), "counts": self._tracks.sums, "lines": lines}

    def count_at(self, lines: dict[str, list[float]]) -> None:
        """From the next frame on count at these, in fractions of the frame; new ones begin at 0."""
        with self._lock:
            self._drawn = lines


def read_lines(body: bytes) -> dict[str, list[float]]:
    """Lines and zones that a page sends: name -> x, y, x, y, ... from 0 to 1.

    Raises:
        ValueError: they are none.
    """
    table = json.loads(body)
    if not isinstance(table, dict) or len(table) > MOST_PLACES:
        raise ValueError(f"The lines are none, or more than {MOST_PLACES}.")
    lines = {}
    for name, numbers in table.items():
        try:
            points = np.asarray(numbers, float).reshape(-1, 2)
        except (TypeError, ValueError):
            raise ValueError("A line is no line.") from None
        if not 2 <= len(points) <= MOST_CORNERS or not ((points >= 0) & (points <= 1)).all():
            raise ValueError("A line is no line.")
        if not name.strip() or len(name) > LONGEST_NAME:
            raise ValueError(f"A name is empty, or longer than {LONGEST_NAME} letters.")
        lines[name] = points.ravel().tolist()
    return lines


class PageTracks:
    """What is followed for pages that show a camera of their own, each under a token that it chose."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._pages: OrderedDict[str, LiveTracks] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, token: str) -> LiveTracks:
        """Those of a page; new ones where it was not heard of.

        Raises:
            ValueError: it is no token.
        """
        if not 0 < len(token) <= LONGEST_TOKEN:
            raise ValueError("The page has no token.")
        with self._lock:
            if token not in self._pages:
                self._pages[token] = LiveTracks("browser", self._threshold, {})
            self._pages.move_to_end(token)
            while len(self._pages) > MOST_PAGES:
                self._pages.popitem(last=False)
            return self._pages[token]
