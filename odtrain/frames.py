"""Frames of video files, one after the other. Files are strangers', and only containers are opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from odtrain.boxes import UInt8Image
from odtrain.pictures import PIXEL_LIMIT

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .3gp .ts .mts .m2ts".split()
)
CONTAINERS: tuple[tuple[int, tuple[bytes, ...]], ...] = (
    (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),  # ISO 14496-12, QuickTime
    (0, (b"\x1a\x45\xdf\xa3",)),  # EBML: Matroska, WebM
    (8, (b"AVI ",)),  # after RIFF and a size
    (0, (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")),  # MPEG program or elementary stream
    (0, (b"\x30\x26\xb2\x75",)),  # ASF: WMV
    (0, (b"G",)),  # MPEG transport stream: a packet every 188 bytes
    (4, (b"G",)),  # the same with time codes, as camcorders write it
)
"""At which byte of a file one of which words tells a container of pictures."""


class VideoError(Exception):
    """A video cannot be read; says why, in a few words."""


def video_frames(file: Path, every: int) -> Iterator[tuple[int, UInt8Image]]:
    """Number, from 0 on, and (H, W, 3) RGB of each `every`-th frame, turned as the video says.

    A file that breaks off ends at its last whole frame.

    Raises:
        VideoError: it is not a video, its frames are too large, or none can be decoded.
    """
    # Playlists, which FFmpeg tells by their text, could name other files and hosts: no such text
    # begins like a container.
    _refuse_text(file)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said by us
    import cv2

    video = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise VideoError("is damaged, or in a codec that is not read")
        width, height = (
            video.get(n) for n in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > PIXEL_LIMIT:
            raise VideoError(f"has more than {PIXEL_LIMIT // 1_000_000} million pixels a frame")
        number = 0
        while video.grab():
            if number % every == 0:
                decoded, bgr = video.retrieve()
                if decoded:
                    yield number, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            number += 1
        if number == 0:
            raise VideoError("holds no frame that can be decoded")
    finally:
        video.release()


def _refuse_text(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise VideoError(f"cannot be read: {error.strerror}") from None
    if not any(head.startswith(words, start) for start, words in CONTAINERS):
        raise VideoError("is not a video, or its beginning is damaged")
