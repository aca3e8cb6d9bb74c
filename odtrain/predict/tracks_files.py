"""Tracks and counts of videos as files: MOT text, a table of what was counted, and its chart."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from odtrain.io.atomic import write_text
from odtrain.io.cells import write_rows
from odtrain.media.draw import printable_label
from odtrain.predict.tracks import Tracks
from odtrain.reports.count_chart import count_chart
from odtrain.structures import class_label

FOLDER = "tracks"
COUNTS, COUNTS_CHART = "counts.csv", "counts.png"
COUNTS_HEADER = ("filename", "place", "way", "class", "track", "frame", "seconds")


@dataclass
class Tracked:
    """What was tracked in each video.

    Attributes:
        videos: name -> its tracks, and its rows of MOT text.
    """

    videos: dict[str, tuple[Tracks, list[str]]] = field(default_factory=dict)

    def note(self, name: str, tracks: Tracks, rows: Iterable[str]) -> None:
        """One more frame of a video."""
        self.videos.setdefault(name, (tracks, []))[1].extend(rows)

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How often each place was crossed in each way."""
        events = (event for tracks, _ in self.videos.values() for event in tracks.events)
        return Counter((event.place, event.way) for event in events)

    def __str__(self) -> str:
        """In words."""
        tracks = sum(each.count for each, _ in self.videos.values())
        counted = [
            f"{place} {way} {number}" for (place, way), number in sorted(self.counts.items())
        ]
        return ", ".join([f"{tracks} tracks", *counted])


def write_tracks(tracked: Tracked, class_names: Sequence[str], folder: Path) -> None:
    """Write `tracks/NAME.txt` of every video; `counts.csv` and `counts.png` where lines or zones are given."""
    for number, (name, (_, rows)) in enumerate(tracked.videos.items(), start=1):
        stem = f"{number}-{Path(name).stem}" if len(tracked.videos) > 1 else Path(name).stem
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_text(folder / FOLDER / f"{stem}.txt", "".join(rows), durable=False)
    if not any(tracks.lines for tracks, _ in tracked.videos.values()):
        return
    table = io.StringIO()
    write_rows(table, [COUNTS_HEADER])
    series: dict[str, list[float]] = {}
    for name, (tracks, _) in tracked.videos.items():
        for event in tracks.events:
            label = class_label(class_names, event.class_id)
            where = [event.place, event.way, label, event.track, event.frame]
            write_rows(table, [[name, *where, f"{event.seconds:.3f}"]])
            shown = f"{event.place} {event.way}: {printable_label(class_names, event.class_id)}"
            series.setdefault(shown, []).append(event.seconds)
    write_text(folder / COUNTS, table.getvalue(), durable=False)
    count_chart(folder / COUNTS_CHART, series)
