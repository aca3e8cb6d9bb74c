"""Videos read and written: their timing, their sound, and what is wrong with them."""

import math
import threading

import av
import numpy as np
import pytest
from support.videos import RATE, make_video, picture, times

from odtrain.errors import DataError
from odtrain.media.latest_frame import Newest
from odtrain.media.video import VideoWriter, open_camera, open_video


def copy(file, target):
    with open_video(file) as source:
        writer = VideoWriter(target, source)
        for frame in source:
            writer.write(frame, frame.image)
        writer.close()
    return source, writer


def test_frames_come_in_order_with_their_time(tmp_path):
    with open_video(make_video(tmp_path / "a.mp4")) as source:
        frames = list(source)
    assert source.frames == 30
    assert source.problem is None
    assert [frame.number for frame in frames] == list(range(30))
    assert [frame.seconds for frame in frames] == pytest.approx([n / RATE for n in range(30)])
    assert np.abs(frames[7].image.astype(int) - picture(7, (96, 64))).mean() < 8


def test_a_copy_has_rate_length_and_size_of_the_original(tmp_path):
    original = make_video(tmp_path / "a.mp4")
    copy(original, tmp_path / "b.mp4")
    assert times(tmp_path / "b.mp4") == times(original)
    with av.open(str(tmp_path / "b.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.width, stream.height) == (RATE, 96, 64)


def test_uneven_spacing_is_kept(tmp_path):
    pts = [n * 50 + (400 if n > 5 else 0) for n in range(12)]
    original = make_video(tmp_path / "a.mp4", 12, pts=pts)
    copy(original, tmp_path / "b.mp4")
    assert times(tmp_path / "b.mp4")[0] == times(original)[0] == [value / 1000 for value in pts]


def test_sound_is_copied_bit_by_bit(tmp_path):
    original = make_video(tmp_path / "a.mp4", sound="aac")
    _, writer = copy(original, tmp_path / "b.mp4")
    packets = []
    for file in (original, tmp_path / "b.mp4"):
        with av.open(str(file)) as container:
            packets.append([bytes(packet) for packet in container.demux(audio=0) if packet.size])
    assert writer.dropped_audio == []
    assert len(packets[0]) > 50
    assert packets[0] == packets[1]


def test_sound_that_mp4_cannot_hold_is_named(tmp_path):
    original = make_video(tmp_path / "a.mkv", sound="pcm_s16le")
    _, writer = copy(original, tmp_path / "b.mp4")
    assert writer.dropped_audio == ["pcm_s16le"]
    assert len(times(tmp_path / "b.mp4")[0]) == 30


def test_odd_sides_get_one_pixel_more(tmp_path):
    with open_video(make_video(tmp_path / "a.mp4", 3)) as source:
        writer = VideoWriter(tmp_path / "b.mp4", source)
        for frame in source:
            writer.write(frame, frame.image[:63, :95])
        writer.close()
    with open_video(tmp_path / "b.mp4") as written:
        assert next(iter(written)).image.shape == (64, 96, 3)


def test_a_cut_tail_is_told(tmp_path):
    whole = make_video(tmp_path / "a.mkv", 60)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with open_video(cut) as source:
        count = len(list(source))
    assert 10 < count < 55
    assert source.problem
    assert source.problem.endswith(" of 3.0 s: its tail is missing or damaged.")


def test_a_file_cut_before_its_index_is_told(tmp_path):
    whole = make_video(tmp_path / "a.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(DataError) as caught:
        open_video(cut)
    assert str(caught.value) == (
        f"{cut}: is no video that can be read: Invalid data found when processing input.\n"
        "  Was it copied whole?"
    )


def test_nothing_beside_the_file_is_read(tmp_path):
    make_video(tmp_path / "secret.mp4")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(DataError, match=r"^\S+list.mp4: is no video that can be read: "):
        open_video(playlist)


def test_an_unfinished_file_is_not_in_its_place(tmp_path):
    with open_video(make_video(tmp_path / "a.mp4")) as source:
        writer = VideoWriter(tmp_path / "out" / "b.mp4", source)
        for frame in source:
            writer.write(frame, frame.image)
        assert not (tmp_path / "out" / "b.mp4").exists()
        writer.discard()
    assert list((tmp_path / "out").iterdir()) == []


# ---- cameras


def test_a_camera_gives_frames(camera):
    with open_camera(1) as source:
        frames = list(source)
    assert len(frames) == 25
    assert frames[0].image.shape == (48, 64, 3)
    assert source.live


def test_a_camera_that_is_not_there_is_told():
    with pytest.raises(DataError) as caught:
        open_camera(97)
    assert str(caught.value) == (
        "camera:97: /dev/video97 cannot be opened: No such file or directory.\n"
        "  Is it plugged in, used by another program, and yours to use? Cameras count from 0."
    )


def test_a_camera_that_is_unplugged_is_told(camera, monkeypatch):
    source = open_camera(1)
    packets = source._container.demux(source._stream)

    class Unplugged:
        def demux(self, *streams):
            for _ in range(3):
                yield next(packets)
            raise OSError(19, "No such device")

        def close(self):
            pass

    monkeypatch.setattr(source, "_container", Unplugged())
    assert len(list(source)) == 3
    assert source.problem
    assert source.problem.startswith("the camera does not answer any more after 3 frames (")
    assert source.problem.endswith(" s): No such device.")


def test_whoever_is_slow_gets_the_newest_frame(tmp_path):
    with Newest(open_video(make_video(tmp_path / "a.mp4", 20))) as newest:
        first = newest.after(-1, 5)
        threading.Event().wait(0.4)
        later = newest.after(first.number, 5)
        rest = [frame.number for frame in newest.frames()]
    assert first.number < 3
    assert later.number >= 6
    assert rest[-1] == 19
    assert newest.ended
    assert math.isclose(later.seconds, later.number / RATE)
