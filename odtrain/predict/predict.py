"""What a model finds in pictures, videos and cameras: drawn, and as tables.

Everything found is noted in a journal as soon as it is done. So a run that was stopped leaves tables of
what it found, and the same command goes on from there.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from odtrain import __version__
from odtrain.config.schema import Config, PredictConfig
from odtrain.errors import ConfigError, DataError, told_if_not_written
from odtrain.io.locks import alone
from odtrain.io.remote.files import brought_ahead
from odtrain.media.find import Medium, camera_number, find_media
from odtrain.media.latest_frame import Newest
from odtrain.media.video import open_camera, open_video
from odtrain.model_files.thresholds import choose_thresholds
from odtrain.model_source import Source, open_source
from odtrain.predict.outputs import NO_PLACE, Prediction, write_tables
from odtrain.predict.progress import Journal, stamp_of
from odtrain.predict.runner import PredictionRunner
from odtrain.predict.tracks import mot_rows
from odtrain.predict.tracks_files import Tracked, write_tracks
from odtrain.system.progress import Bar
from odtrain.system.workers import cores
from odtrain_runtime.plain import plain_lines

logger = logging.getLogger(__name__)

DRAWN, XML = "drawn", "xml"
JOURNAL = "predictions.part.jsonl"
LOCK = ".predictions.lock"
MATTERING = (
    "threshold",
    "drawn",
    "xml",
    "xml_every_seconds",
    "label_map",
    "tiles",
    "track",
    "lines",
)
"""Settings of prediction that change what is written."""


def predict(
    config: Config,
    source: Source | None = None,
    runner: Callable[..., PredictionRunner] = PredictionRunner,
) -> str:
    """Run `source=` over `input=`; write what is drawn, predictions.csv and .json to `output=`.

    A picture that cannot be read is told and left out; the others are done. Interrupted, it writes the
    tables of what was done.

    Args:
        config: what is looked at, and how.
        source: a model that is open already, in place of the one that `source=` names.
        runner: looks at the pictures.

    Raises:
        ConfigError: input or source is not given.
        DataError: there is nothing to look at, none of it can be read, the camera went away, or the
            output cannot be written.
    """
    settings, folder = config.predict, Path(config.output or "predictions")
    media = _media(settings, config.input, folder)
    if source is None:
        workers = settings.workers or cores()
        source = open_source(config.source, config, workers, settings.threads, settings.tiles)
        tell_nameless(source)
    camera = camera_number(config.input)
    with _written(folder), _alone(folder):
        if camera is None:
            job = _job(source, settings)
            return _predict_media(
                media, _runner(media, source, settings, folder, job, runner), config.input
            )
        return _predict_camera(camera, source, settings, folder)


def tell_nameless(source: Source) -> None:
    """Say so where a model carries no class names."""
    if not source.class_names:
        logger.info(
            f"{source.name} carries no class names: they are class 1, class 2, ... "
            "predict.label_map=FILE gives names."
        )


def _written(folder: Path) -> AbstractContextManager[None]:
    return told_if_not_written(folder, NO_PLACE)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the output folder: two predictions would overwrite each other's tables."""
    problem, remedy = "another prediction writes there.", "Choose another: output=DIR."
    with alone(folder / LOCK, busy=ConfigError(f"output={folder}", problem, remedy)):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


# ---- pictures and videos


def _media(settings: PredictConfig, input: str | None, folder: Path) -> list[Medium]:
    """What is to be looked at; nothing where that is a camera."""
    if camera_number(input) is not None:
        return []
    stopped = (folder / JOURNAL).is_file()
    with _written(folder):
        return find_media(settings, input, folder, DRAWN, going_on=stopped)


def _predict_media(media: Sequence[Medium], runner: PredictionRunner, given: str | None) -> str:
    if runner.journal.before:
        logger.info(f"going on: {runner.journal.before} pictures and frames were done before.")
    try:
        with _progress(runner, _total(media)):
            _work(runner, media)
        said = _finish(runner, media) if runner.whole else None
    except KeyboardInterrupt:
        logger.info(
            f"\n{_finish(runner, media)}\n  It is not all: the same command goes on from there."
        )
        raise
    finally:
        runner.journal.close()
    runner.journal.remove()
    if said is None:
        raise DataError(str(given), "holds no picture that can be read.", "See above.")
    return said


def _job(source: Source, settings: PredictConfig) -> dict[str, Any]:
    """What must be the same for a stopped run to be gone on with."""
    values = asdict(settings)
    return {
        "odtrain": __version__,
        "source": source.name,
        "stamp": stamp_of(source.file) if source.file else "",
        "settings": {key: values[key] for key in MATTERING},
    }


def _work(runner: PredictionRunner, media: Sequence[Medium]) -> None:
    for moving, several in groupby(media, key=lambda medium: medium.moving):
        if not moving:
            pictures = list(several)
            with brought_ahead({each.file: each.stat for each in pictures if each.stat}):
                runner.at_pictures(pictures)
            continue
        for medium in several:
            runner.at_video(medium)


def _runner(
    media: Sequence[Medium],
    source: Source,
    settings: PredictConfig,
    folder: Path,
    job: Mapping[str, Any],
    kind: Callable[..., PredictionRunner] = PredictionRunner,
) -> PredictionRunner:
    return kind(
        source=source,
        thresholds=choose_thresholds(settings, source.class_names, source.passport, source.name),
        config=settings,
        folder=folder,
        names=output_names(media),
        workers=settings.workers or cores(),
        journal=Journal(folder / JOURNAL, job),
    )


def _total(media: Sequence[Medium]) -> int:
    """Pictures, and frames of videos as far as their files say."""
    return sum(_frames(medium) if medium.moving else 1 for medium in media)


def _frames(medium: Medium) -> int:
    try:
        with open_video(medium.here, medium.name) as video:
            return video.frames or 0
    except DataError:  # told when its turn comes
        return 0


@contextmanager
def _progress(runner: PredictionRunner, total: int | None) -> Iterator[None]:
    with Bar[None](doing="predict", total=total) as bar:
        runner.advance = bar.update
        yield


# ---- a camera


def _predict_camera(number: int, source: Source, settings: PredictConfig, folder: Path) -> str:
    """Until Ctrl-C, `predict.max_seconds`, or the camera is gone.

    Raises:
        DataError: the camera is not there, or went away; what was seen until then is written.
    """
    video = open_camera(number)
    begun = time.strftime("%Y%m%d-%H%M%S")
    medium = Medium(folder / f"camera-{number}-{begun}", f"camera:{number}", moving=True)
    runner = _runner([medium], source, settings, folder, {"camera": begun})
    logger.info(f"{medium.name}: Ctrl-C ends it.")
    try:
        with Newest(video) as newest, _progress(runner, None), suppress(KeyboardInterrupt):
            runner.at_frames(medium, video, newest.frames(settings.max_seconds))
        said = _finish(runner, [medium])
    finally:
        runner.journal.close()
    runner.journal.remove()
    if video.problem:
        print(plain_lines(said))
        raise DataError(medium.name, video.problem, f"What was seen until then is in {folder}.")
    return said


# ---- what is written


def output_names(media: Sequence[Medium]) -> dict[Path, tuple[Path, Path]]:
    """Where the drawn picture or video and the XML of each file go, so that no two meet.

    Folders are kept from where the files' own part. An XML is called like its picture, as labelImg
    looks for it, unless two pictures differ in their suffix alone.
    """
    parents = [os.path.abspath(medium.file.parent) for medium in media]  # noqa: PTH100 - links are kept
    root = os.path.commonpath(parents)
    inside = {
        medium.file: Path(os.path.relpath(parent, root), medium.file.name)
        for medium, parent in zip(media, parents, strict=True)
    }
    of_stem = Counter(name.with_suffix("") for name in inside.values())
    names = {}
    for medium in media:
        name = inside[medium.file]
        whole = f"{name.stem}{name.suffix.lower().replace('.', '-')}"
        xml = name.stem if of_stem[name.with_suffix("")] == 1 else whole
        names[medium.file] = (
            Path(DRAWN, name.parent, f"{whole}{'.mp4' if medium.moving else '.jpg'}"),
            Path(XML, name.parent, f"{xml}.xml"),
        )
    return names


def _finish(runner: PredictionRunner, media: Sequence[Medium]) -> str:
    """Write the tables of what the journal holds, and say how much that is."""
    moving = any(medium.moving for medium in media)
    counts: Counter[str] = Counter()
    videos: set[str] = set()

    tracked = Tracked()

    def counted() -> Iterator[Prediction]:
        for one in _predictions(media, runner, tracked):
            counts["boxes"] += len(one.found)
            counts["pictures" if one.frame is None else "frames"] += 1
            videos.update([one.shown_name] if one.frame is not None else [])
            yield one

    names = runner.source.class_names
    write_tables(counted(), names, runner.folder, moving, runner.config.track)
    write_tracks(tracked, names, runner.folder)
    pictures = sum(not medium.moving for medium in media)
    parts = [f"{counts['pictures']} of {pictures} pictures"] if pictures else []
    if moving:
        parts.append(
            f"{counts['frames']} frames of {len(videos)} of {len(media) - pictures} videos"
        )
    found = f"{counts['boxes']} detections from score {runner.thresholds}"
    also = f"; {tracked}" if tracked.videos else ""
    return f"{found} in {' and '.join(parts)}{also}: {runner.folder}"


def _predictions(
    media: Sequence[Medium], runner: PredictionRunner, tracked: Tracked
) -> Iterator[Prediction]:
    """Everything found, in the order of the input; the tracks of videos are noted in `tracked`."""
    number, journal = 0, runner.journal
    for medium in media:
        frames: Sequence[int | None] = journal.frames(medium.name) if medium.moving else [None]
        tracks, known = runner.followed.get(medium.name, (None, {}))
        if medium.moving and len(known) != len(
            frames
        ):  # some were followed by a run that was stopped
            tracks, known = runner.tracks_of(medium), {}
        for frame in frames:
            number += 1
            if entry := journal.get((medium.name, frame)):
                (height, width), found, seconds = entry["size"], entry["found"], entry["seconds"]
                numbers = None
                if tracks is not None and frame is not None:
                    found, numbers = known.get(frame) or tracks.update(
                        found, (height, width), frame, seconds
                    )
                    tracked.note(
                        medium.name, tracks, mot_rows(found, numbers, (height, width), frame)
                    )
                yield Prediction(
                    medium.file, height, width, found, number, medium.name, frame, seconds, numbers
                )
