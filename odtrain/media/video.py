"""Videos and cameras, frame by frame: read upright and in order, written with the timing they came with.

Files come from strangers: only plain video containers are opened, and nothing beside the named file is
read, whatever a playlist inside it asks for.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from odtrain.errors import DataError
from odtrain.io.atomic import part_of, put
from odtrain.structures import UInt8Image
from odtrain_runtime.pictures import PIXEL_LIMIT

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .mts .m2ts .wmv .flv .3gp .ogv .mjpeg .mjpg".split()
)
"""What is taken for a video in a folder; a file named itself may be called anything."""
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,gif,apng,mjpeg,"
    "h264,hevc"
)
"""FFmpeg's names of the containers that are opened: none of them names other files."""
COPIED_AUDIO = frozenset(("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"))
"""Audio that an .mp4 holds as it is."""
CAMERAS = {
    "Linux": ("v4l2", "/dev/video{}"),
    "Darwin": ("avfoundation", "{}"),
}
"""Operating system -> FFmpeg's input device, and its name of camera N."""
MISSED_SECONDS = 0.2
"""A file that ends so much earlier than it says is broken."""
CAMERA_RATE = Fraction(30)
MILLISECONDS = Fraction(1, 1000)
VIDEO_CODEC, VIDEO_OPTIONS = "libx264", {"crf": "20", "preset": "veryfast"}
"""H.264, which every browser and player shows."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        image: (H, W, 3) RGB, upright.
        number: from 0, in the order shown.
        seconds: from the beginning of the video.
        pts: the same in units of the video's time base, as its file has it.
        duration: in the same units; 0 where the file does not say.
        taken: when a camera gave it, on the clock of `time.monotonic`.
    """

    image: UInt8Image
    number: int
    seconds: float
    pts: int
    duration: int
    taken: float = 0.0


class Video:
    """A video file or a camera, opened; iterate once over its frames, and close it.

    Attributes:
        name: as the user gave it.
        frames: how many there should be; None for a camera and where the file does not say.
        rate: frames a second, on average.
        time_base: seconds of one unit of `Frame.pts`.
        problem: what was wrong, once the frames are over; None where nothing was.
        audio: its audio streams.
        packets: their packets that were read and not written yet.
    """

    def __init__(self, name: str, container: Any, live: bool = False) -> None:
        self.name = name
        self.live = live
        self.problem: str | None = None
        self.packets: deque[Any] = deque()
        self._container = container
        self._stream = container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.audio = [] if live else list(container.streams.audio)
        self.time_base: Fraction = MILLISECONDS if live else self._stream.time_base
        self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or CAMERA_RATE
        self._start = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        self._length = None if live else self._declared_seconds()
        self.frames: int | None = None if live else self._declared_frames()
        self._count = self._damaged = 0
        self._seconds = self._end = 0.0

    def __enter__(self) -> Video:
        """The video itself."""
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file or the camera go."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames, up to the end or to where nothing more can be read: then `problem` says so."""
        begun = time.monotonic()
        first: int | None = None
        for decoded in self._decoded():
            if self.live:
                pts = round((time.monotonic() - begun) * 1000)
            else:
                pts = self._count if decoded.pts is None else decoded.pts
            first = pts if first is None else first
            self._seconds = float((pts - first) * self.time_base)
            duration = 0 if self.live else int(decoded.duration or 0)
            self._end = self._seconds + float(duration * self.time_base or 1 / self.rate)
            yield Frame(_upright(decoded), self._count, self._seconds, pts, duration)
            self._count += 1
        self.problem = self.problem or self._shortfall()

    def _decoded(self) -> Iterator[Any]:
        """Decoded frames; audio is set aside. A packet that cannot be decoded is left out."""
        try:
            for packet in self._container.demux(self._stream, *self.audio):
                if packet.stream is not self._stream:
                    if packet.dts is not None:
                        self.packets.append(packet)
                    continue
                try:
                    yield from packet.decode()
                except av.InvalidDataError:
                    self._damaged += 1
        except (av.FFmpegError, OSError) as error:
            where = f"after {self._count} frames ({self._seconds:.1f} s)"
            gone = (
                "the camera does not answer any more" if self.live else "cannot be read any further"
            )
            self.problem = f"{gone} {where}: {_reason(error)}."

    def _declared_frames(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        return max(1, round(self._length * self.rate)) if self._length else None

    def _declared_seconds(self) -> float | None:
        """How long the pictures go on, as the file says; audio may go on for longer."""
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        if tag := self._stream.metadata.get("DURATION"):  # Matroska: where they end, as hh:mm:ss.n
            hours, minutes, seconds = (float(part) for part in tag.rstrip("\0").split(":"))
            return 3600 * hours + 60 * minutes + seconds - self._start
        if self._container.duration and not self.audio:
            return float(Fraction(self._container.duration, av.time_base))
        return None

    def _shortfall(self) -> str | None:
        """What is missing of a file that ended without complaint."""
        problems = []
        if self._length and self._length - self._end > max(MISSED_SECONDS, 2 / float(self.rate)):
            problems.append(
                f"ends at {self._end:.1f} of {self._length:.1f} s: its tail is missing or damaged."
            )
        if self._damaged:
            problems.append(f"{self._damaged} damaged pieces of it were left out.")
        return " ".join(problems) or None


def open_video(file: Path, name: str | None = None) -> Video:
    """A video file, or an animated GIF or PNG.

    Raises:
        DataError: it is no video, is damaged at its beginning, or its frames are too large.
    """
    shown = name or str(file)
    try:
        container = av.open(
            f"file:{file.resolve()}",
            options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"},
        )
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            shown, f"is no video that can be read: {_reason(error)}.", "Was it copied whole?"
        ) from None
    return _checked(shown, container, live=False)


def open_camera(number: int) -> Video:
    """A camera of this machine.

    Raises:
        DataError: it is not there, or is in use.
    """
    name = f"camera:{number}"
    if platform.system() not in CAMERAS:
        raise DataError(name, "cameras are read on Linux and macOS alone.", "Record a video there.")
    device, pattern = CAMERAS[platform.system()]
    try:
        container = av.open(pattern.format(number), format=device)
    except (av.FFmpegError, OSError, ValueError) as error:
        place = pattern.format(number) if device == "v4l2" else f"camera {number}"
        raise DataError(
            name,
            f"{place} cannot be opened: {_reason(error)}.",
            "Is it plugged in, used by another program, and yours to use? Cameras count from 0.",
        ) from None
    return _checked(name, container, live=True)


def _checked(name: str, container: Any, live: bool) -> Video:
    """The opened container as a video.

    Raises:
        DataError: it has no pictures, or too large ones.
    """
    streams = container.streams.video
    if not streams or not streams[0].codec_context:
        container.close()
        raise DataError(name, "holds no pictures that can be decoded.", "Is it a video?")
    context = streams[0].codec_context
    if context.width * context.height > PIXEL_LIMIT:
        container.close()
        limit = f"has frames of more than {PIXEL_LIMIT // 1_000_000} million pixels."
        raise DataError(name, limit, "Make it smaller.")
    return Video(name, container, live)


def _upright(decoded: Any) -> UInt8Image:
    """(H, W, 3) RGB, turned as the file's display matrix says (phones record so)."""
    image: UInt8Image = decoded.to_ndarray(format="rgb24")
    quarters = round(decoded.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


class VideoWriter:
    """An .mp4 with the timing of the video it is made from, and its audio where .mp4 can hold it.

    It is written beside its place and moved there by `close`, so that an unfinished one is never taken
    for whole.

    Attributes:
        dropped_audio: codecs of the audio streams that were left out.
    """

    def __init__(self, file: Path, video: Video) -> None:
        self.file = file
        self._part = part_of(file)
        self._video = video
        self._output = av.open(
            str(self._part), "w", format="mp4", options={"movflags": "faststart"}
        )
        self._stream: Any = None
        self._audio: dict[int, Any] = {}
        self.dropped_audio: list[str] = []

    def write(self, frame: Frame, image: UInt8Image) -> None:
        """Append `image` in place of the picture of `frame`; all have the size of the first."""
        if self._stream is None:
            self._begin(image)
        picture = av.VideoFrame.from_ndarray(self._fitted(image), format="rgb24")
        picture.pts, picture.time_base = frame.pts, self._video.time_base
        if frame.duration:
            picture.duration = frame.duration
        self._output.mux(self._stream.encode(picture))
        self._copy_audio()

    def close(self) -> None:
        """Finish the file and move it to its place; without any frame there is none."""
        if self._stream is None:
            return self.discard()
        try:
            self._output.mux(self._stream.encode(None))
            self._copy_audio()
            self._output.close()
            put(self._part, self.file)
        finally:
            self._part.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self._output.close()
        self._part.unlink(missing_ok=True)

    def _begin(self, image: UInt8Image) -> None:
        height, width = image.shape[:2]
        self._stream = self._output.add_stream(
            VIDEO_CODEC, rate=self._video.rate, options=VIDEO_OPTIONS
        )
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._video.time_base
        for stream in self._video.audio:
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            if codec in COPIED_AUDIO:
                self._audio[stream.index] = self._output.add_stream_from_template(stream)
            else:
                self.dropped_audio.append(codec)

    def _fitted(self, image: UInt8Image) -> UInt8Image:
        """H.264 takes even sides: an odd one gets its last row or column twice."""
        down, right = self._stream.height - image.shape[0], self._stream.width - image.shape[1]
        if (down, right) == (0, 0):
            return image
        if not (0 <= down <= 1 and 0 <= right <= 1):  # a stream that changes its size
            clipped = image[: self._stream.height, : self._stream.width]
            canvas = np.zeros((self._stream.height, self._stream.width, 3), np.uint8)
            canvas[: clipped.shape[0], : clipped.shape[1]] = clipped
            return canvas
        return np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")

    def _copy_audio(self) -> None:
        while self._video.packets:
            packet = self._video.packets.popleft()
            stream = self._audio.get(packet.stream.index)
            if stream is not None:
                packet.stream = stream
                self._output.mux(packet)


def _reason(error: Exception) -> str:
    """The system's or FFmpeg's words, without the number and the file that Python adds."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).rstrip(".")
