"""A model looks at pictures and frames, several at a time; what it sees is drawn, written and noted."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from odtrain.config.schema import PredictConfig
from odtrain.errors import DataError
from odtrain.io.atomic import write_bytes
from odtrain.media.draw import draw, draw_places
from odtrain.media.find import Medium
from odtrain.media.images import finding_of, frame_count
from odtrain.media.video import Frame, Video, VideoWriter, open_video
from odtrain.model_files.thresholds import Thresholds
from odtrain.model_source import Source
from odtrain.predict.outputs import Prediction, voc_xml
from odtrain.predict.progress import Journal, stamp_of
from odtrain.predict.tracks import RECOVERED, Tracks
from odtrain.structures import Detections, IntArray, UInt8Image
from odtrain.system.workers import in_chunks, in_threads
from odtrain_runtime.pictures import UnusableError, read_upright

logger = logging.getLogger(__name__)

DRAWN_QUALITY, FRAME_QUALITY = 92, 95
"""JPEG qualities of drawn pictures, and of frames that are written for labelling."""
FINISHED = -1
"""Frame number in the journal of a video that was drawn to its end."""


@dataclass(frozen=True, eq=False)
class FrameTask:
    """One picture, or one frame, to look at.

    Attributes:
        medium: the picture or video.
        frame: of the video.
        known: what an interrupted run of the same job found in it.
        labelled: whether it gets a VOC XML.
    """

    medium: Medium
    frame: Frame | None = None
    known: Detections | None = None
    labelled: bool = False


@dataclass(frozen=True, eq=False)
class Seen:
    """What came of a frame's task; `found` is None for a picture that cannot be read.

    Attributes:
        task: what was looked at.
        size: (height, width) in pixels.
        found: detections from the thresholds on.
        drawn: the frame to write, where a video is drawn.
    """

    task: FrameTask
    size: tuple[int, int] = (0, 0)
    found: Detections | None = None
    drawn: UInt8Image | None = None


@dataclass(eq=False)
class PredictionRunner:
    """How the pictures of one job are looked at.

    Attributes:
        source: the model.
        thresholds: from which score on detections count.
        config: what is written.
        folder: where it is written.
        names: of each file: its drawn picture or video, and its XML, below `folder`.
        workers: pictures at a time.
        journal: where everything found is noted.
        advance: is told how many pictures and frames were done.
        whole: pictures and videos that could be read.
        followed: of each video that was tracked here: its tracks, and by frame what is shown with its numbers.
    """

    source: Source
    thresholds: Thresholds
    config: PredictConfig
    folder: Path
    names: dict[Path, tuple[Path, Path]]
    workers: int
    journal: Journal
    advance: Callable[[int], Any] = field(default=lambda count: None)
    whole: list[Medium] = field(default_factory=list)
    followed: dict[str, tuple[Tracks, dict[int, tuple[Detections, IntArray]]]] = field(
        default_factory=dict
    )

    # ---- pictures

    def at_pictures(self, media: Sequence[Medium]) -> None:
        """Look at pictures, but for those that an interrupted run has done."""
        for seen in self._run(self._undone(media)):
            if seen.found is not None:
                self.whole.append(seen.task.medium)

    def _undone(self, media: Sequence[Medium]) -> Iterator[FrameTask]:
        for medium in media:
            if self._is_done(medium, None):
                self.whole.append(medium)
                self.advance(1)
            else:
                yield FrameTask(medium, labelled=self.config.xml)

    def _is_done(self, medium: Medium, frame: int | None) -> bool:
        """Whether an interrupted run has done a picture, or a video to its end, and all is still there."""
        entry = self.journal.get((medium.name, frame))
        drawn, xml = (self.folder / name for name in self.names[medium.file])
        return (
            entry is not None
            and entry["stamp"] == stamp_of(medium.here)
            and (drawn.exists() or not self.config.drawn)
            and (xml.exists() or not self.config.xml or medium.moving)
        )

    # ---- videos

    def at_video(self, medium: Medium) -> None:
        """Look at every frame of a video; what an interrupted run found is not looked for again."""
        if self._is_done(medium, FINISHED):
            self.whole.append(medium)
            self.advance(len(self.journal.frames(medium.name)))
            return
        try:
            video = open_video(medium.here, medium.name)
        except DataError as error:
            logger.warning(error)
            return
        with video:
            self.at_frames(medium, video, video)
        if video.problem:
            logger.warning(f"{medium.name}: {video.problem} What could be read is written.")
        self.journal.add((medium.name, FINISHED), stamp_of(medium.here))

    def at_frames(self, medium: Medium, video: Video, frames: Iterable[Frame]) -> None:
        """Look at frames as they come, and write the drawn video as far as they go."""
        target, tracks = self.folder / self.names[medium.file][0], self.tracks_of(medium)
        if tracks is not None:
            self.followed[medium.name] = tracks, {}
        count, last, begun = 0, 0, time.perf_counter()
        writer = VideoWriter(target, video) if self.config.drawn else None
        try:
            for seen in self._run(self._tasks(medium, frames, video.live)):
                drawn = seen.drawn if tracks is None else self._draw_tracks(medium, seen)
                count += 1
                last = seen.task.frame.number + 1 if seen.task.frame else last
                if seen.task.frame is not None and drawn is not None and writer is not None:
                    writer.write(seen.task.frame, drawn)
                if medium not in self.whole[-1:]:
                    self.whole.append(medium)
        except BaseException as error:
            # Ctrl-C leaves a video that ends where it was; anything else, such as a full disk, none.
            if writer is not None and not isinstance(error, KeyboardInterrupt):
                writer.discard()
                writer = None
            raise
        finally:
            if writer is not None:
                writer.close()
            if count:
                rate = count / max(time.perf_counter() - begun, 1e-9)
                lost = f", {last - count} lost in between" if last > count else ""
                counted = f"{count} frame{'s' * (count > 1)}{lost}"
                logger.info(f"{medium.name}: {counted}, {rate:.1f} a second.")
        if writer is not None and writer.dropped_audio:
            codecs = ", ".join(writer.dropped_audio)
            logger.warning(
                f"{medium.name}: its sound ({codecs}) is left out: .mp4 cannot hold it as it is."
            )

    def tracks_of(self, medium: Medium) -> Tracks | None:
        """Of a video, where they are asked for: to be told of every frame in order."""
        if not self.config.track:
            return None
        return Tracks(medium.name, self.thresholds.lowest, self.config.lines or {})

    def _draw_tracks(self, medium: Medium, seen: Seen) -> UInt8Image | None:
        """The frame with what is tracked in it; None where nothing is drawn."""
        frame = seen.task.frame
        if frame is None or seen.found is None:
            return None
        tracks, known = self.followed[medium.name]
        shown, numbers = tracks.update(seen.found, seen.size, frame.number, frame.seconds)
        known[frame.number] = shown, numbers
        if not self.config.drawn:
            return None
        names = self.source.class_names
        drawn = draw(frame.image, shown, names, threshold=0, tracks=numbers)
        return draw_places(drawn, tracks.lines, tracks.counted) if tracks.lines else drawn

    def _keep(self, found: Detections, task: FrameTask) -> Detections:
        """What is noted: of a video that is tracked also boxes that may go on with a track."""
        if self.config.track and task.frame is not None:
            return found.above(RECOVERED * self.thresholds.lowest)
        return self.thresholds.keep(found)

    def _tasks(self, medium: Medium, frames: Iterable[Frame], live: bool) -> Iterator[FrameTask]:
        """Frames with what is known of them, one each `predict.xml_every_seconds` to be labelled."""
        stamp = None if live else stamp_of(medium.here)
        every, due = self.config.xml_every_seconds, 0.0
        for frame in frames:
            entry = None if live else self.journal.get((medium.name, frame.number))
            known = entry["found"] if entry and entry["stamp"] == stamp else None
            labelled = self.config.xml and frame.seconds >= due
            if labelled and every:
                due = (frame.seconds // every + 1) * every
            yield FrameTask(medium, frame, known, labelled)

    # ---- both

    def _run(self, tasks: Iterable[FrameTask]) -> Iterator[Seen]:
        """Look at frames in order, several at a time; note each one that is done."""
        chunks = in_chunks(tasks, self.source.batch)
        threads, ahead = self.workers + 1, self.workers + 2
        for several in in_threads(self._look, chunks, threads=threads, ahead=ahead, finish=True):
            for seen in several:
                self._note(seen)
                self.advance(1)
                yield seen

    def _note(self, seen: Seen) -> None:
        task = seen.task
        if seen.found is None or task.known is not None:
            return
        if task.frame is None:
            self.journal.add(
                (task.medium.name, None), stamp_of(task.medium.here), seen.size, seen.found
            )
        else:
            key = task.medium.name, task.frame.number
            stamp = (
                stamp_of(task.medium.here) if task.medium.stat or task.medium.file.exists() else ""
            )
            self.journal.add(key, stamp, seen.size, seen.found, task.frame.seconds)

    def _look(self, tasks: Sequence[FrameTask]) -> list[Seen]:
        """Read, detect, draw and write a few pictures; in a thread of the pipeline."""
        images = [_image(task) for task in tasks]
        new = [i for i, task in enumerate(tasks) if images[i] is not None and task.known is None]
        found = self.source.detect_all([image for i in new if (image := images[i]) is not None])
        kept = [self._keep(each, tasks[i]) for i, each in zip(new, found, strict=True)]
        fresh = dict(zip(new, kept, strict=True))
        return [
            Seen(task) if image is None else self._finish(task, image, task.known or fresh[i])
            for i, (task, image) in enumerate(zip(tasks, images, strict=True))
        ]

    def _finish(self, task: FrameTask, image: UInt8Image, found: Detections) -> Seen:
        drawn = None
        tracked = self.config.track and task.frame is not None
        if self.config.drawn and not tracked:  # tracks are drawn frame by frame, in order
            drawn = draw(image, found, self.source.class_names, threshold=0)
        if task.labelled:
            self._write_xml(task, image, self.thresholds.keep(found))
        if task.frame is None and drawn is not None:
            self._write(self.folder / self.names[task.medium.file][0], jpeg(drawn, DRAWN_QUALITY))
            drawn = None
        return Seen(task, (image.shape[0], image.shape[1]), found, drawn)

    def _write_xml(self, task: FrameTask, image: UInt8Image, found: Detections) -> None:
        """Beside each other: a frame as a picture, and its XML. A picture's own file stays where it is."""
        file, xml = task.medium.file, self.folder / self.names[task.medium.file][1]
        if task.frame is not None:
            file = xml.with_suffix("") / f"frame-{task.frame.number:06d}.jpg"
            xml = file.with_suffix(".xml")
            self._write(file, jpeg(image, FRAME_QUALITY))
        one = Prediction(file, image.shape[0], image.shape[1], found, image_id=0)
        self._write(xml, voc_xml(one, self.source.class_names))

    def _write(self, file: Path, content: bytes) -> None:
        write_bytes(file, content, durable=False)
        self.journal.after(file)


def jpeg(image: UInt8Image, quality: int) -> bytes:
    """An (H, W, 3) RGB picture as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _image(task: FrameTask) -> UInt8Image | None:
    """The pixels; None, once that was told, for a picture that cannot be read."""
    if task.frame is not None:
        return task.frame.image
    try:
        image = read_upright(task.medium.here)
    except UnusableError as error:
        logger.warning(finding_of(error))
        return None
    if (frames := frame_count(task.medium.here)) > 1:
        logger.warning(f"{task.medium.name}: holds {frames} pictures; the first one is looked at.")
    return image
