"""The live page: a camera's stream with what the model sees, and frames saved for labelling.

The page draws the boxes itself, on frames that come with their detections, so that threshold and
classes answer at once, also on a frozen frame. Frames are of a camera of this machine (or a video in its
place), asked for one by one, or of the browser's camera, sent here to be looked at.
"""

from __future__ import annotations

import json
import logging
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from odtrain.config.schema import Config, PredictConfig
from odtrain.errors import ConfigError, DataError, OdtrainError
from odtrain.io.atomic import write_bytes
from odtrain.media.find import camera_number, find_media
from odtrain.media.latest_frame import Newest
from odtrain.media.palette import css_colours
from odtrain.media.video import Frame, Video, open_camera, open_video
from odtrain.model_files.thresholds import Thresholds, choose_thresholds
from odtrain.model_source import Source, open_source
from odtrain.predict.outputs import Prediction, voc_xml
from odtrain.predict.predict import tell_nameless
from odtrain.predict.runner import jpeg
from odtrain.structures import Detections, UInt8Image
from odtrain.system.workers import cores
from odtrain.web.bounds import (
    LONGEST_BOXES,
    MOST_SAVED,
    REFUSALS,
    Bodies,
    TooLargeError,
    answer_to,
    nested_too_deep,
    refused,
)
from odtrain.web.guard import HEALTH, page, serve
from odtrain.web.live_tracks import LiveTracks, PageTracks, read_lines
from odtrain.web.serve import usage_log
from odtrain_runtime.answers import sent_picture
from odtrain_runtime.pictures import PIXEL_LIMIT, UnusableError
from odtrain_runtime.seen.usage_log import UsageLog
from odtrain_runtime.turns import PixelTurns

logger = logging.getLogger(__name__)

DEFAULT_INPUT, BROWSER = "camera:0", "browser"
DEFAULT_OUTPUT = "to_label"
LOWEST_SCORE = 0.05
"""Detections below it never reach the page; its slider begins here."""
STREAM_QUALITY = 88
PATIENCE_SECONDS = 5.0
"""How long a request waits for a frame; a camera that nobody asked for twice as long is let go."""
SECONDS_LOGGED = 1.0
"""Between frames that `serve.log` keeps."""
RETRY_SECONDS = 2.0
"""Before a camera that failed is tried again."""
LARGEST_FRAME = 32_000_000
"""Bytes of a frame that a browser sends."""
MEGAPIXELS = PIXEL_LIMIT / 1_000_000
"""Of such a frame."""
MOST_BOXES = 1000
LENGTH = struct.Struct(">I")
"""Before JSON that an encoded picture follows."""


def webcam(config: Config, token: str | None = None) -> None:
    """Serve the page until Ctrl-C, to who shows the token if there is one.

    Raises:
        ConfigError: the source is not given, the input is no camera or video, or the address cannot be had.
        ModelFileError: the model cannot be run.
    """
    settings = config.predict
    source = open_source(config.source, config, min(2, cores()), settings.threads, settings.tiles)
    tell_nameless(source)
    thresholds = choose_thresholds(settings, source.class_names, source.passport, source.name)
    folder = Path(config.output or DEFAULT_OUTPUT)
    with usage_log(config.serve, source) as log:
        watched = source if log is None else logged(source, log)
        camera = _camera(settings, config.input, folder, watched, thresholds.lowest)
        pages = PageTracks(thresholds.lowest) if settings.track else None
        app = build_app(watched, thresholds, camera, folder, pages)
        place = config.webcam
        names = place.allowed_hosts
        print(f"frames are saved to {folder.resolve()}")
        try:
            serve(app, place.host, place.port, names, "webcam page", place.open_browser, token)
        finally:
            if camera is not None:
                camera.close()


def logged(source: Source, log: UsageLog) -> Source:
    """The same, telling the log what it saw once in `SECONDS_LOGGED`: frames in between say no more."""
    last = -SECONDS_LOGGED

    def detect(image: UInt8Image) -> Detections:
        nonlocal last
        found = source.detect_all([image])[0]
        if time.monotonic() - last >= SECONDS_LOGGED:
            last = time.monotonic()
            log.add(image, found)
        return found

    return replace(source, detect=detect, opened=None)


def _camera(
    settings: PredictConfig, given: str | None, folder: Path, source: Source, threshold: float
) -> Camera | None:
    """What the server shows; None where the browser's camera is asked for.

    Raises:
        ConfigError, DataError: it is neither a camera nor a video that can be opened; `trackers` is not
            installed, where objects are followed.
    """
    name = given or DEFAULT_INPUT
    tracks = LiveTracks(name, threshold, settings.lines or {}) if settings.track else None
    if name == BROWSER:
        return None
    number = camera_number(name)
    if number is not None:
        return Camera(name, source, lambda: open_camera(number), tracks)
    media = find_media(settings, name, folder, "")
    if len(media) != 1 or not media[0].moving:
        raise ConfigError(
            f"input={name}", "is no camera and no video.", "Give camera:0, a video, or browser."
        )
    file = media[0].file
    open_video(file, name).close()
    return Camera(name, source, lambda: open_video(file, name), tracks)


@dataclass(frozen=True, eq=False)
class DetectedFrame:
    """A frame and what was found in it.

    Attributes:
        number: from 1, rising.
        picture: the frame as JPEG.
        found: detections from `LOWEST_SCORE` on.
        model_ms: that the model took, the picture's resizing included.
        taken: when the camera gave it, on the clock of `time.monotonic`.
        lost: frames that the camera gave since it was opened and that came too fast to be looked at.
        followed: as `LiveTracks.follow` gives it; empty where nothing is followed.
    """

    number: int
    picture: bytes
    found: Detections
    model_ms: float
    taken: float
    lost: int = 0
    followed: Mapping[str, Any] = field(default_factory=dict)


class Camera:
    """A camera that is open, and looked at by the model, as long as somebody asks for frames."""

    def __init__(
        self, name: str, source: Source, opener: Any, tracks: LiveTracks | None = None
    ) -> None:
        """`opener` gives the `Video`; it is called again after the camera failed, or a video ended."""
        self.name = name
        self.tracks = tracks
        self._source = source
        self._open = opener
        self._last, self._lost = -1, 0
        self._changed = threading.Condition()
        self._shot: DetectedFrame | None = None
        self._problem: str | None = None
        self._failed = self._asked = -1e9
        self._thread: threading.Thread | None = None
        self._closing = False

    def after(self, number: int) -> DetectedFrame:
        """The newest shot behind shot `number`.

        Raises:
            DataError: the camera cannot be opened, went away, or gives nothing.
        """
        with self._changed:
            self._asked = time.monotonic()
            self._begin()
            self._changed.wait_for(lambda: self._newer(number) or self._problem, PATIENCE_SECONDS)
            if self._shot is not None and self._newer(number):
                return self._shot
            raise DataError(
                self.name, self._problem or "gives no frames.", "It is tried again by itself."
            )

    def close(self) -> None:
        """Let the camera go."""
        self._closing = True
        if self._thread is not None:
            self._thread.join(timeout=PATIENCE_SECONDS)

    def _newer(self, number: int) -> bool:
        return self._shot is not None and self._shot.number > number

    def _begin(self) -> None:
        """Open the camera, unless it is open or failed just now."""
        if self._thread is None and time.monotonic() - self._failed > RETRY_SECONDS:
            self._problem = None
            self._thread = threading.Thread(target=self._run, name="odtrain-webcam", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while self._wanted():
                problem = self._watch(self._open())
                if problem:
                    raise DataError(self.name, problem, "")
            if not self._closing:
                logger.info(
                    f"nobody looks any more: {self.name} was let go. The page opens it again."
                )
        except OdtrainError as error:
            self._fail(str(error.args[1]))
        except Exception as error:
            self._fail(f"stopped: {error}")
            raise
        finally:
            with self._changed:
                self._thread = None

    def _fail(self, problem: str) -> None:
        logger.warning(f"{self.name}: {problem}")
        with self._changed:
            self._problem, self._failed = problem, time.monotonic()
            self._changed.notify_all()

    def _wanted(self) -> bool:
        return not self._closing and time.monotonic() - self._asked < 2 * PATIENCE_SECONDS

    def _watch(self, video: Video) -> str | None:
        """Look at the newest frames; why it ended, where that was no video's own end."""
        self._last, self._lost = -1, 0
        with Newest(video) as newest:
            for frame in newest.frames():
                self._publish(frame)
                if not self._wanted():
                    return None
        if video.live:
            return video.problem or "gives no frames any more."
        return None if newest.seen else video.problem or "holds no frame that can be read."

    def _publish(self, frame: Frame) -> None:
        begun = time.perf_counter()
        found = self._source.detect_all([frame.image])[0].above(LOWEST_SCORE)
        model_ms = 1000 * (time.perf_counter() - begun)
        picture = jpeg(frame.image, STREAM_QUALITY)
        size = frame.image.shape[0], frame.image.shape[1]
        followed = self.tracks.follow(found, size, frame.taken) if self.tracks else {}
        self._lost += frame.number - self._last - 1
        self._last = frame.number
        with self._changed:
            number = self._shot.number + 1 if self._shot else 1
            self._shot = DetectedFrame(
                number, picture, found, model_ms, frame.taken, self._lost, followed
            )
            self._changed.notify_all()


# ---- what the page asks for


def build_app(
    source: Source,
    thresholds: Thresholds,
    camera: Camera | None,
    folder: Path,
    pages: PageTracks | None = None,
) -> Starlette:
    """The page and what it calls.

    Args:
        source: the model.
        thresholds: from which the page shows detections at first.
        camera: of the server; None for the browser's alone.
        folder: where frames are saved.
        pages: follows what browsers' cameras see; None where nothing is followed.
    """
    bodies, turns, saved = Bodies(), PixelTurns(), list[str]()

    async def about(request: Request) -> Response:
        track = {"track": pages is not None}
        return JSONResponse({**_about(source, thresholds, camera, folder), **track})

    async def frame(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if camera is None or not after.isdecimal():
            return refused("There is no such frame.", 404)
        try:
            shot = await run_in_threadpool(camera.after, int(after))
        except DataError as error:
            return refused(f"{error.args[0]}: {error.args[1]}", 503)
        age_ms = 1000 * (time.monotonic() - shot.taken)
        head = {
            "number": shot.number,
            "model_ms": shot.model_ms,
            "age_ms": age_ms,
            "lost": shot.lost,
        }
        return _with_picture({**head, **_as_json(shot.found), **shot.followed}, shot.picture)

    def look(body: bytes, tracks: LiveTracks | None) -> dict[str, Any]:
        with sent_picture(body, MEGAPIXELS, turns) as image:
            begun = time.perf_counter()
            found = source.detect_all([image])[0].above(LOWEST_SCORE)
            seen = {"model_ms": 1000 * (time.perf_counter() - begun), **_as_json(found)}
            size = image.shape[0], image.shape[1]
        return {**seen, **(tracks.follow(found, size, time.monotonic()) if tracks else {})}

    def tracks_of(request: Request) -> LiveTracks | None:
        """Those of the page that asks; of the server's camera where it names no page of its own."""
        token = request.query_params.get("page")
        if pages is None:
            return None
        return pages.of(token) if token is not None else camera.tracks if camera else None

    async def detect(request: Request) -> Response:
        named = "page" in request.query_params
        async with bodies.of(request, LARGEST_FRAME) as body:
            tracks = tracks_of(request) if named else None
            return JSONResponse(await run_in_threadpool(look, body, tracks))

    async def lines(request: Request) -> Response:
        async with bodies.of(request, LONGEST_BOXES) as body:
            if nested_too_deep(body):
                raise ValueError("The lines are none.")
            drawn = read_lines(body)
        if (tracks := tracks_of(request)) is None:
            return refused("Nothing is followed here: start with predict.track=true.", 404)
        tracks.count_at(drawn)
        return JSONResponse({"lines": drawn})

    async def save(request: Request) -> Response:
        async with bodies.of(request, LARGEST_FRAME) as body:
            if len(saved) >= MOST_SAVED:
                return refused(
                    f"{MOST_SAVED:,} frames were saved: start odtrain webcam again.", 429
                )
            name = await run_in_threadpool(_save, body, source, folder, turns)
            saved.append(name)
        return JSONResponse({"saved": name, "folder": str(folder)})

    routes = [
        HEALTH,
        Route("/", lambda request: page("webcam")),
        Route("/about", about),
        Route("/frame", frame),
        Route("/detect", detect, methods=["POST"]),
        Route("/save", save, methods=["POST"]),
        Route("/lines", lines, methods=["POST"]),
    ]
    handlers: Mapping[Any, Any] = {
        **REFUSALS,
        TooLargeError: answer_to(lambda error: refused("The picture is too large.", 413)),
        UnusableError: answer_to(lambda error: refused(str(error.cause), 400)),
        ValueError: answer_to(lambda error: refused(str(error), 400)),
        OdtrainError: answer_to(lambda error: refused(f"{error.args[0]}: {error.args[1]}", 500)),
        OSError: answer_to(lambda error: refused(f"{folder}: {error.strerror}.", 507)),
    }
    return Starlette(routes=routes, exception_handlers=handlers)


def _about(
    source: Source, thresholds: Thresholds, camera: Camera | None, folder: Path
) -> dict[str, Any]:
    return {
        "source": source.name,
        "camera": camera.name if camera else None,
        "folder": str(folder),
        "classes": list(source.class_names),
        "colours": css_colours(),
        "lowest": LOWEST_SCORE,
        "threshold": thresholds.common,
        "by_class": {str(number): score for number, score in thresholds.by_class.items()},
    }


def _as_json(found: Detections) -> dict[str, Any]:
    """Boxes yxyx as fractions, with scores and class ids."""
    return {
        "boxes": np.round(found.boxes.astype(float), 5).tolist(),
        "scores": np.round(found.scores.astype(float), 4).tolist(),
        "classes": found.classes.tolist(),
    }


def _with_picture(head: Mapping[str, Any], picture: bytes) -> Response:
    text = json.dumps(head).encode()
    return Response(LENGTH.pack(len(text)) + text + picture, media_type="application/octet-stream")


def _save(body: bytes, source: Source, folder: Path, turns: PixelTurns) -> str:
    """Write a frame and its VOC XML into `folder`; the picture's name.

    Args:
        body: length and JSON of the boxes that the page shows, then the picture as JPEG.
        source: whose class names the boxes have.
        folder: for labelling.
        turns: in which pictures are decoded.

    Raises:
        ValueError: it is not that.
        UnusableError: the picture cannot be decoded.
    """
    if len(body) < LENGTH.size or LENGTH.unpack_from(body)[0] > len(body) - LENGTH.size:
        raise ValueError("The request is cut off.")
    length = LENGTH.unpack_from(body)[0]
    end = LENGTH.size + length
    if length > LONGEST_BOXES or nested_too_deep(body[LENGTH.size : end]):
        raise ValueError("The boxes are none.")
    found = _found(json.loads(body[LENGTH.size : end]))
    picture = body[end:]
    if not picture.startswith(b"\xff\xd8\xff"):
        raise ValueError("The picture is no JPEG.")
    with sent_picture(picture, MEGAPIXELS, turns) as image:
        height, width = image.shape[:2]
    file = _new_file(folder)
    one = Prediction(file.resolve(), height, width, found, image_id=0)
    try:
        write_bytes(file, picture)
        write_bytes(file.with_suffix(".xml"), voc_xml(one, source.class_names))
    except OSError:  # the disk is full: nothing empty, and no picture without its boxes, is left
        file.unlink(missing_ok=True)
        raise
    return file.name


def _found(table: Any) -> Detections:
    """Detections from what a page sent.

    Raises:
        ValueError: they are none.
    """
    try:
        boxes = np.asarray(table["boxes"], np.float32).reshape(-1, 4)
        scores = np.asarray(table["scores"], np.float32).reshape(-1)
        classes = np.asarray(table["classes"], np.int64).reshape(-1)
    except (KeyError, TypeError, OverflowError):
        raise ValueError("The boxes are missing.") from None
    whole = len(boxes) == len(scores) == len(classes) <= MOST_BOXES
    if not whole or not (0 <= boxes).all() or not (boxes <= 1).all() or (classes < 1).any():
        raise ValueError("The boxes are none.")
    return Detections(boxes, scores, classes)


def _new_file(folder: Path) -> Path:
    """An empty picture file, called by the time, that was not there before."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        file = folder / f"frame-{stamp}-{int(now * 1000) % 1000:03d}.jpg"
        try:
            file.touch(exist_ok=False)
        except FileExistsError:
            time.sleep(0.002)
        else:
            return file
