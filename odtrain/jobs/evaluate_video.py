"""Following the objects of labelled videos, and how well that is done."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from odtrain.addresses import is_in_store
from odtrain.config.schema import Config
from odtrain.errors import ConfigError, DataError
from odtrain.evaluation.tracking import (
    COUNTS,
    FollowedFrame,
    TrackingScores,
    score_tracks,
)
from odtrain.io.remote.files import local, local_model
from odtrain.labels.tracks import TrackBox, read_tracks
from odtrain.media.find import Medium, find_media
from odtrain.media.video import Frame, open_video
from odtrain.model_files.thresholds import choose_thresholds
from odtrain.model_source import Source, open_source
from odtrain.predict.predict import tell_nameless
from odtrain.predict.tracks import RECOVERED, Tracks, mot_rows
from odtrain.structures import Detections, IntArray
from odtrain.system.progress import Bar
from odtrain.system.workers import cores, in_chunks
from odtrain.tracking.runs import origin_of
from odtrain.tracking.tracker import Tracker

SUFFIXES = (".txt", ".xml", "/gt/gt.txt")
"""What the labels of a video are called in a folder, after its own name; the last is the MOT challenge's."""
GIVE_BOTH = "Give a video and its labels, or a folder of each: input=VIDEO labels=FILE"


@dataclass(frozen=True, eq=False)
class VideoResult:
    """What an evaluation of videos came to.

    Attributes:
        run_id: of the run that holds it.
        folder: of what was followed, as MOT text, and `video.json`.
        scores: over all clips.
        clips: names of the videos.
        frames: of all clips.
        seconds: that the model and the tracker took.
    """

    run_id: str
    folder: Path
    scores: TrackingScores
    clips: Sequence[str]
    frames: int
    seconds: float

    @property
    def in_words(self) -> str:
        """The scores with their intervals, and of what."""
        values, intervals = self.scores.values, self.scores.intervals
        said = [
            f"{name} {values[name]:.3f}"
            + (f" [{low:.3f}, {high:.3f}]" if (low, high) != (None, None) else "")
            for name in ("HOTA", "MOTA", "IDF1")
            for low, high in [intervals.get(name, (None, None))]
        ]
        counts = ", ".join(f"{int(values[key])} {key.replace('_', ' ')}" for key in COUNTS.values())
        of = f"{self.frames} frames of {len(self.clips)} video{'s' * (len(self.clips) > 1)}"
        rate = f"{self.frames / max(self.seconds, 1e-9):.1f} frames a second"
        alone = "" if intervals else " One video has no interval: give a folder of clips."
        return f"{', '.join(said)}; {counts}, in {of} ({rate}).{alone}"


def evaluate_video(config: Config, overrides: Sequence[str]) -> VideoResult:
    """Follow the objects in the videos of `input=`, and score that against `labels=`.

    Raises:
        ConfigError: one of the two is not given, or `trackers` is not installed.
        DataError: a video or its labels cannot be read, or they do not belong together.
        OdtrainError: the source or the store are not to be had.
    """
    if not config.input or not config.labels:
        missing = "labels" if config.input else "input"
        raise ConfigError(missing, "is not given.", GIVE_BOTH)
    settings = config.predict
    source = open_source(config.source, config, cores(), settings.threads)
    source = source.asked(config.evaluate.tiles)
    tell_nameless(source)
    pairs = _pairs(config, config.input, _labels_here(config.labels))
    labels = [read_tracks(file, source.class_names) for _, file in pairs]
    thresholds = choose_thresholds(settings, source.class_names, source.passport, source.name)
    begun = time.perf_counter()
    followed = [
        _Clip(medium, file, _by_frame(boxes), Tracks(medium.name, thresholds.lowest, {}))
        for (medium, file), boxes in zip(pairs, labels, strict=True)
    ]
    with Bar[None](doing="evaluate", total=None) as bar:
        clips = [list(clip.frames(source, bar)) for clip in followed]
    seconds = time.perf_counter() - begun
    scores = score_tracks(clips, config.evaluate.bootstrap, config.data.seed)
    names = [medium.name for medium, _ in pairs]
    tracking = config.tracking
    if source.run_id is not None:
        origin = origin_of(source.run_id, config.runs)
        tracking = replace(tracking, experiment=origin.experiment)
    tracker = Tracker(tracking, Path(config.outputs))
    said = f"evaluate {source.name} on {len(pairs)} videos"
    with tracker.start("evaluate", said, parent=source.run_id):
        tracker.log_config(config, overrides)
        limits = {
            f"video/{name}_{end}": value
            for name, both in scores.intervals.items()
            for end, value in zip(("lo", "hi"), both, strict=True)
        }
        tracker.log({f"video/{name}": value for name, value in scores.values.items()} | limits, 0)
        table = {
            "values": scores.values,
            "intervals": scores.intervals,
            "clips": dict(zip(names, scores.by_clip, strict=True)),
        }
        tracker.log_text(json.dumps(table, indent=1) + "\n", "eval/video.json")
        for place, clip in enumerate(followed, start=1):
            stem = f"{place}-{Path(clip.medium.name).stem}"
            tracker.log_text("".join(clip.rows), f"eval/tracks/{stem}.txt")
        folder = tracker.folder / "eval"
        total = sum(map(len, clips))
        return VideoResult(tracker.name, folder, scores, names, total, seconds)


def _labels_here(given: str) -> Path:
    """The labels' file, or the folder of them, brought here from a store."""
    place = Path(given).expanduser()
    if not is_in_store(place):
        return local(place)
    return Path(local_model(given))


def _pairs(config: Config, given: str, labels: Path) -> list[tuple[Medium, Path]]:
    """Each video with its labels.

    Raises:
        DataError: one of them is no video, or has no labels.
    """
    media = find_media(config.predict, given, Path(config.outputs), "")
    still = [medium.name for medium in media if not medium.moving]
    if still:
        raise DataError(still[0], "is no video.", GIVE_BOTH)
    if labels.is_file() and len(media) == 1:
        return [(media[0], labels)]
    if not labels.is_dir():
        problem = "is a file, for several videos." if labels.is_file() else "is not there."
        raise DataError(f"labels={labels}", problem, GIVE_BOTH)
    found = []
    for medium in media:
        named = [Path(f"{labels / medium.file.stem}{suffix}") for suffix in SUFFIXES]
        file = next((file for file in named if file.is_file()), None)
        if file is None:
            names = ", ".join(str(file.relative_to(labels)) for file in named)
            raise DataError(medium.name, f"has no labels in {labels}.", f"Call them {names}.")
        found.append((medium, file))
    return found


def _by_frame(boxes: Sequence[TrackBox]) -> dict[int, list[TrackBox]]:
    frames: dict[int, list[TrackBox]] = defaultdict(list)
    for box in boxes:
        frames[box.frame].append(box)
    return frames


@dataclass(eq=False)
class _Clip:
    """A video with its labels, and what follows its objects."""

    medium: Medium
    labels: Path
    truth: dict[int, list[TrackBox]]
    tracks: Tracks

    def __post_init__(self) -> None:
        self.rows: list[str] = []

    def frames(
        self, source: Source, bar: Bar[None]
    ) -> Iterator[tuple[FollowedFrame, FollowedFrame]]:
        """What is labelled and what is followed, frame by frame; boxes as fractions of the frame.

        Raises:
            DataError: it cannot be read to its end, or its labels go on after it.
        """
        count = 0
        with open_video(self.medium.here, self.medium.name) as video:
            for several in in_chunks(video, source.batch):
                found = source.detect_all([frame.image for frame in several])
                for frame, each in zip(several, found, strict=True):
                    yield self._frame(frame, each)
                    count += 1
                bar.update(len(several))
            if video.problem:
                raise DataError(self.medium.name, video.problem, "Give a whole video.")
        if (last := max(self.truth) + 1) > count:
            raise DataError(
                str(self.labels),
                f"labels frame {last} (from 1); {self.medium.name} has {count}.",
                "Give the labels of this video.",
            )

    def _frame(self, frame: Frame, found: Detections) -> tuple[FollowedFrame, FollowedFrame]:
        height, width = size = frame.image.shape[0], frame.image.shape[1]
        weak = found.above(RECOVERED * self.tracks.threshold)
        shown, numbers = self.tracks.update(weak, size, frame.number, frame.seconds)
        self.rows += mot_rows(shown, numbers, size, frame.number)
        known = numbers > 0
        rows = self.truth.get(frame.number, [])
        corners = [(box.top, box.left, box.bottom, box.right) for box in rows]
        sides = np.array([height, width, height, width], np.float32)
        truth = FollowedFrame(
            np.array(corners, np.float32).reshape(-1, 4) / sides,
            _integers([box.track for box in rows]),
            _integers([box.class_id for box in rows]),
        )
        return truth, FollowedFrame(shown.boxes[known], numbers[known], shown.classes[known])


def _integers(numbers: Sequence[int]) -> IntArray:
    return np.array(numbers, np.int64)
