"""Which boxes of a video's frames are the same object, and how many cross a line or enter a zone.

ByteTrack is that of the package `trackers`, lines and zones are those of `supervision`, which comes with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from odtrain.errors import ConfigError, DataError
from odtrain.structures import Detections, IntArray

LATER = 1e-3
"""Seconds that a frame comes behind the one before it, where a file says that it does not."""
RECOVERED = 0.5
"""Part of the threshold from which a box may go on with a track, though it begins none: what ByteTrack's second
round is for."""


WAYS = {True: ("in", "out"), False: ("entered",)}
"""Whether it is a line -> what is counted at it."""


class Event(NamedTuple):
    """One object at one line or zone.

    Attributes:
        place: the name of the line or zone.
        way: `in` or `out` across a line, as supervision has it: from the top down of the frame, a line is
            crossed `in` from the left to the right; `entered` for a zone, once for each track.
        class_id: of the object.
        track: its number.
        frame: from 0.
        seconds: from the beginning of the video.
    """

    place: str
    way: str
    class_id: int
    track: int
    frame: int
    seconds: float


@dataclass(eq=False)
class Tracks:
    """The tracks of one video, frame by frame.

    Attributes:
        name: of the video, for messages.
        threshold: the score from which a box begins a track.
        lines: name -> x, y, x, y of a line, or x, y of three or more corners of a zone, in pixels.
        events: what was counted so far.
        size: (height, width) of the first frame.
    """

    name: str
    threshold: float
    lines: Mapping[str, Sequence[float]]
    events: list[Event] = field(default_factory=list)
    size: tuple[int, int] | None = None
    _seconds: float = -1.0
    _by_class: dict[int, Any] = field(default_factory=dict)
    _numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    _places: dict[str, Any] = field(default_factory=dict)
    _inside: set[tuple[str, int]] = field(default_factory=set)
    _sums: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def sums(self) -> dict[str, dict[str, int]]:
        """Of each line and zone, how often it was crossed in each way, or entered."""
        return {
            place: {way: self._sums[place, way] for way in WAYS[len(numbers) == 4]}
            for place, numbers in self.lines.items()
        }

    @property
    def counted(self) -> dict[str, str]:
        """The same in words, with the name."""
        return {
            place: f"{place}: {', '.join(f'{way} {number}' for way, number in ways.items())}"
            for place, ways in self.sums.items()
        }

    @property
    def count(self) -> int:
        """How many tracks there were."""
        return len(self._numbers)

    def update(
        self, found: Detections, size: tuple[int, int], frame: int, seconds: float
    ) -> tuple[Detections, IntArray]:
        """The detections of the next frame that are shown, and the (N,) number of each one's track, 0 for none.

        Args:
            found: those below `RECOVERED` of the threshold have no track.
            size: (height, width) of the frame; boxes of later ones of another size are laid onto the first.
            frame: its number.
            seconds: from the beginning of the video.

        Raises:
            ConfigError: `trackers` is not installed.
            DataError: a line or zone leaves the frame.
        """
        numbers = self.number(found, size, frame, seconds)
        kept = (numbers > 0) | (found.scores >= self.threshold)
        shown = Detections(found.boxes[kept], found.scores[kept], found.classes[kept])
        return shown, numbers[kept]

    def number(
        self, found: Detections, size: tuple[int, int], frame: int, seconds: float
    ) -> IntArray:
        """The (N,) number of each detection's track, 0 for none; arguments and errors as of `update`."""
        if self.size is None:
            self.size = size
            self._places = _places(self.name, self.lines, size)
        self._seconds = max(seconds, self._seconds + LATER)
        numbers = np.zeros(len(found), np.int64)
        strong = found.scores >= RECOVERED * self.threshold
        for class_id in sorted({*self._by_class, *found.classes[strong].tolist()}):
            rows = np.flatnonzero((found.classes == class_id) & strong)
            ids = self._of_class(class_id, found, rows)
            for row, number in zip(rows.tolist(), ids, strict=True):
                if number >= 0:
                    key = class_id, number
                    numbers[row] = self._numbers.setdefault(key, len(self._numbers) + 1)
        self._count(found, numbers, frame, seconds)
        return numbers

    def count_at(self, lines: Mapping[str, Sequence[float]]) -> None:
        """From now on count at these; those that were there before go on, the others begin at 0.

        Raises:
            DataError: one leaves the frame; it is counted on as before.
        """
        kept = {name for name, points in lines.items() if _alike(self.lines.get(name), points)}
        if self.size is not None:
            fresh = {name: points for name, points in lines.items() if name not in kept}
            counters = _places(self.name, fresh, self.size)
            self._places = {name: counters.get(name) or self._places[name] for name in lines}
        self.lines = dict(lines)
        self._sums = Counter({key: n for key, n in self._sums.items() if key[0] in kept})
        self._inside = {key for key in self._inside if key[0] in kept}

    def _of_class(self, class_id: int, found: Detections, rows: IntArray) -> list[int]:
        """The tracker's own number of each row, -1 for none."""
        if class_id not in self._by_class:
            self._by_class[class_id] = byte_track(self.threshold)
        part = Detections(found.boxes[rows], found.scores[rows], found.classes[rows])
        given = self._supervised(part, np.arange(len(rows)))
        tracked = self._by_class[class_id].update(given, timestamp=self._seconds)
        ids = [-1] * len(rows)
        if len(tracked):
            for row, number in zip(tracked.data["row"], tracked.tracker_id, strict=True):
                ids[int(row)] = int(number)
        return ids

    def _supervised(self, found: Detections, rows: IntArray) -> Any:
        """As `supervision` has detections: xyxy in pixels of the first frame."""
        from supervision import Detections as Supervised

        assert self.size is not None
        height, width = self.size
        xyxy = found.boxes[:, [1, 0, 3, 2]].astype(float) * [width, height, width, height]
        classes = found.classes.astype(int)
        return Supervised(xyxy, confidence=found.scores, class_id=classes, data={"row": rows})

    def _count(self, shown: Detections, numbers: IntArray, frame: int, seconds: float) -> None:
        rows = np.flatnonzero(numbers)
        if not self._places:
            return
        part = Detections(shown.boxes[rows], shown.scores[rows], shown.classes[rows])
        given = self._supervised(part, rows)
        given.tracker_id = numbers[rows]
        for place, (kind, counter) in self._places.items():
            ways: Iterable[tuple[str, Any]]
            if kind == "line":
                ways = zip(("in", "out"), counter.trigger(given), strict=True)
            else:
                inside = counter.trigger(given)
                ways = [("entered", self._entering(place, inside, numbers[rows]))]
            for way, hits in ways:
                for row in rows[np.asarray(hits, bool)].tolist():
                    class_id, track = int(shown.classes[row]), int(numbers[row])
                    self.events.append(Event(place, way, class_id, track, frame, seconds))
                    self._sums[place, way] += 1

    def _entering(self, place: str, inside: Sequence[bool], numbers: IntArray) -> list[bool]:
        """Which tracks are in a zone for the first time."""
        new = []
        for there, number in zip(inside, numbers.tolist(), strict=True):
            new.append(bool(there) and (place, number) not in self._inside)
            if there:
                self._inside.add((place, number))
        return new


def _alike(first: Sequence[float] | None, second: Sequence[float]) -> bool:
    """Whether two lines or zones are the same to half a pixel."""
    if first is None or len(first) != len(second):
        return False
    return bool(np.abs(np.subtract(first, second)).max() <= 0.5)


def byte_track(threshold: float) -> Any:
    """A tracker of its own.

    Raises:
        ConfigError: `trackers` is not installed.
    """
    try:
        from trackers import ByteTrackTracker
    except ImportError:
        raise ConfigError(
            "predict.track=true",
            "the package trackers is not installed.",
            "Install it: pip install 'odtrain[tracks]'",
        ) from None
    return ByteTrackTracker(track_activation_threshold=threshold, high_conf_det_threshold=threshold)


def _places(
    name: str, lines: Mapping[str, Sequence[float]], size: tuple[int, int]
) -> dict[str, tuple[str, Any]]:
    """Name -> `line` or `zone`, and what counts there."""
    if not lines:
        return {}
    from supervision import LineZone, Point, PolygonZone, Position

    places: dict[str, tuple[str, Any]] = {}
    anchors = [Position.CENTER]
    for place, numbers in lines.items():
        points = np.array(numbers, float).reshape(-1, 2)
        _check_inside(name, place, points, size)
        if len(points) == 2:
            start, end = (Point(float(x), float(y)) for x, y in points)
            counter = LineZone(start, end, triggering_anchors=anchors)
            places[place] = ("line", counter)
        else:
            zone = PolygonZone(np.rint(points).astype(int), triggering_anchors=anchors)
            places[place] = ("zone", zone)
    return places


def _check_inside(name: str, place: str, points: Any, size: tuple[int, int]) -> None:
    height, width = size
    outside = (points < 0).any(axis=1) | (points[:, 0] > width) | (points[:, 1] > height)
    for x, y in points[outside].tolist():
        raise DataError(
            name,
            f"its frames are {width} x {height}; predict.lines {place} has a point at {x:g}, {y:g}.",
            "Give pixels of the frame, x before y.",
        )


def mot_rows(
    found: Detections, numbers: IntArray, size: tuple[int, int], frame: int
) -> Iterator[str]:
    """A frame in the MOT challenge's text: frame from 1, track, left, top, width, height, score, class."""
    height, width = size
    pixels = found.boxes.astype(float) * [height, width, height, width]
    rows = zip(
        pixels.tolist(),
        found.scores.tolist(),
        found.classes.tolist(),
        numbers.tolist(),
        strict=True,
    )
    for (top, left, bottom, right), score, class_id, number in rows:
        if number:
            box = f"{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f}"
            yield f"{frame + 1},{number},{box},{score:.4f},{class_id},-1\n"
