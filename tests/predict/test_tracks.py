"""Objects of a drawn video followed, and counted at lines and zones."""

from __future__ import annotations

import numpy as np
import pytest

from odtrain.config.compose import section
from odtrain.config.schema import PredictConfig
from odtrain.errors import ConfigError, DataError
from odtrain.predict.tracks import Tracks, mot_rows
from odtrain.predict.tracks_files import Tracked, write_tracks
from odtrain.structures import Detections

pytest.importorskip("trackers", reason="the extra `tracks` is not installed")

SIZE = (480, 640)
LINES = {"door": [320, 0, 320, 480], "floor": [0, 300, 640, 300, 640, 480, 0, 480]}
HIDDEN = range(20, 28)


def truth(t: int) -> dict[str, tuple[int, int]]:
    """Where the top left corners are of 40 x 40 objects: two cross, one is hidden for a while, one leaves."""
    places = {"right": (20 + 6 * t, 100), "left": (580 - 6 * t, 130), "falls": (300, 20 + 5 * t)}
    places["leaves"] = (500, 300 + 8 * t)
    hidden = {"falls"} if t in HIDDEN else set()
    inside = {name: (x, y) for name, (x, y) in places.items() if y <= 440 and 0 <= x <= 600}
    return {name: place for name, place in inside.items() if name not in hidden}


def seen(t: int) -> Detections:
    rows = [
        (y / 480, x / 640, (y + 40) / 480, (x + 40) / 640, 0.9, 2 if name == "leaves" else 1)
        for name, (x, y) in truth(t).items()
    ]
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def follow(tracks: Tracks, frames: int = 80) -> dict[str, set[int]]:
    """The numbers that each object had, 0 apart."""
    had: dict[str, set[int]] = {}
    for t in range(frames):
        _, numbers = tracks.update(seen(t), SIZE, t, t / 20)
        for name, number in zip(truth(t), numbers.tolist(), strict=True):
            had.setdefault(name, set()).update({number} - {0})
    return had


def test_crossing_hidden_and_leaving_objects_keep_their_numbers():
    had = follow(Tracks("video", 0.5, {}))
    assert {name: len(numbers) for name, numbers in had.items()} == dict.fromkeys(had, 1)
    assert len(set().union(*had.values())) == 4


def test_lines_and_zones_count_each_object_once():
    tracks = Tracks("video", 0.5, LINES)
    had = {name: next(iter(numbers)) for name, numbers in follow(tracks).items()}
    counted = {(event.place, event.way, event.track) for event in tracks.events}
    assert counted == {
        ("door", "in", had["right"]),
        ("door", "out", had["left"]),
        ("floor", "entered", had["falls"]),
        ("floor", "entered", had["leaves"]),
    }
    assert len(tracks.events) == 4


def test_a_box_below_the_threshold_goes_on_with_a_track_and_begins_none():
    tracks = Tracks("video", 0.5, {})
    for t in range(6):
        tracks.update(seen(t), SIZE, t, t / 20)
    weak = seen(6)
    weak = Detections(weak.boxes, np.full_like(weak.scores, 0.3), weak.classes)
    shown, numbers = tracks.update(weak, SIZE, 6, 0.3)
    assert sorted(numbers.tolist()) == [1, 2, 3, 4]
    fresh, none = Tracks("other", 0.5, {}).update(weak, SIZE, 0, 0.0)
    assert (len(fresh), len(none)) == (0, 0)
    assert len(shown) == 4


def test_a_video_of_one_frame_has_boxes_and_no_tracks():
    shown, numbers = Tracks("video", 0.5, LINES).update(seen(0), SIZE, 0, 0.0)
    assert (len(shown), numbers.tolist()) == (4, [0, 0, 0, 0])


def test_frames_of_another_size_and_times_that_stand_still_do_no_harm():
    tracks = Tracks("video", 0.5, LINES)
    for t in range(20):
        _, numbers = tracks.update(seen(t), (480, 640) if t < 10 else (240, 320), t, 0.0)
    assert sorted(numbers.tolist()) == [1, 2, 3]  # the fourth has left


def test_a_line_that_leaves_the_frame_is_refused():
    with pytest.raises(DataError) as refused:
        Tracks("video.mp4", 0.5, {"door": [0, 0, 900, 0]}).update(seen(0), SIZE, 0, 0.0)
    assert str(refused.value) == (
        "video.mp4: its frames are 640 x 480; predict.lines door has a point at 900, 0.\n"
        "  Give pixels of the frame, x before y."
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"lines": {"door": [1, 2, 3]}, "track": True},
            "predict.lines: door=[1, 2, 3]: no line and no zone.\n"
            "  Give {NAME: [x,y,x,y]} in pixels for a line, with three corners or more for a zone.",
        ),
        (
            {"lines": {"door": [1, 2, 3, 4]}},
            "predict.lines: counts tracks alone.\n  Set predict.track=true too.",
        ),
    ],
)
def test_lines_that_cannot_be_are_refused(values, said):
    with pytest.raises(ConfigError) as refused:
        section(PredictConfig, **values)
    assert str(refused.value) == said


def test_tracks_and_counts_are_written(tmp_path):
    tracks, tracked = Tracks("a/video.mp4", 0.5, LINES), Tracked()
    for t in range(80):
        shown, numbers = tracks.update(seen(t), SIZE, t, t / 20)
        tracked.note("a/video.mp4", tracks, mot_rows(shown, numbers, SIZE, t))
    write_tracks(tracked, ("ball", "box"), tmp_path)
    assert str(tracked) == "4 tracks, door in 1, door out 1, floor entered 2"
    lines = (tmp_path / "tracks/video.txt").read_text().splitlines()
    assert lines[0] == "2,1,26.00,100.00,40.00,40.00,0.9000,1,-1"
    table = (tmp_path / "counts.csv").read_text().splitlines()
    assert table[0] == "filename,place,way,class,track,frame,seconds"
    assert table[1] == "a/video.mp4,floor,entered,box,4,1,0.050"
    assert (tmp_path / "counts.png").read_bytes().startswith(b"\x89PNG")
