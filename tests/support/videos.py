"""Videos made for tests."""

from fractions import Fraction

import av
import numpy as np
import pytest

from odtrain.media import video

RATE = 20


def picture(number, size):
    """A bright square that moves to the right with the frame's number."""
    image = np.full((size[1], size[0], 3), 40, np.uint8)
    left = 2 * number % (size[0] - 16)
    image[8:24, left : left + 16] = (250, 60, 60)
    return image


def make_video(file, frames=30, size=(96, 64), sound=None, codec="libx264", pts=None):
    """A video of `picture`s, with a tone if the name of an audio codec is given."""
    with av.open(str(file), "w") as output:
        stream = output.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        audio = output.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts = pts[number] if pts else number * 1000 // RATE
            frame.time_base = Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            wave = np.sin(np.arange(48000 * frames // RATE) / 20, dtype=np.float32)[None]
            for start in range(0, wave.shape[1], 960):
                block = av.AudioFrame.from_ndarray(wave[:, start : start + 960], "fltp", "mono")
                block.sample_rate, block.pts = 48000, start
                block.time_base = Fraction(1, 48000)
                output.mux(audio.encode(block))
            output.mux(audio.encode(None))
    return file


def times(file):
    """Seconds of every frame, and of the whole."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        length = float(stream.duration * stream.time_base)
        return [round(frame.time, 3) for frame in container.decode(stream)], round(length, 3)


@pytest.fixture
def camera(monkeypatch):
    """Cameras that are FFmpeg's test pictures, 25 a second for N seconds."""
    monkeypatch.setattr(video.platform, "system", lambda: "Linux")
    pattern = "testsrc=size=64x48:rate=25:duration={},realtime"
    monkeypatch.setitem(video.CAMERAS, "Linux", ("lavfi", pattern))
