"""Pictures, videos and cameras through a model that always sees the same two boxes."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import av
import pytest
from filelock import FileLock
from lxml import etree
from PIL import Image
from support.file_server import listening
from support.pictures import draw_picture
from support.videos import RATE, camera, make_video, times

from odtrain.cli.main import main
from odtrain.media import video
from odtrain.model_source import Source
from odtrain.predict import predict
from odtrain.predict.tracks import Tracks

__all__ = ["camera"]

NAMES = ("circle", "square")
TABLES = ("predictions.csv", "predictions.json")


@pytest.fixture
def run(capsys, model, tmp_path):
    """Runs `odtrain predict` on an input; exit status, what it said, and its complaints."""

    def run(place, *settings, output=tmp_path / "out"):
        arguments = [f"source={model}", f"input={place}", f"output={output}"]
        names = f"predict.label_map={model.parent}/labels.txt"
        status = main(["predict", *arguments, names, *settings])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def rows(folder):
    with (folder / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


class Folder(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing."""

    def log_message(self, *_):
        pass


def test_what_was_found_behind_an_address_is_written_without_its_password(run, tmp_path):
    draw_picture(tmp_path / "a.jpg", (64, 48), [])
    with listening(HTTPServer(("127.0.0.1", 0), partial(Folder, directory=tmp_path))) as address:
        host = address.removeprefix("http://")
        secret = f"http://bob:PASSWORD@{host}/a.jpg?token=TOKEN"
        status, out, err = run(secret, "predict.private=true")
    written = {name: (tmp_path / "out" / name).read_text() for name in TABLES}
    assert status == 0
    assert {row["filename"] for row in rows(tmp_path / "out")} == {
        f"http://bob:***@{host}/a.jpg?token=***"
    }
    for text in (out, err, *written.values(), *files(tmp_path / "out")):
        assert not {"PASSWORD", "TOKEN"} & set(re.findall("[A-Z]+", text))


# ---- videos


def test_a_video_is_drawn_with_its_timing_and_its_frames_are_rows(run, tmp_path):
    clip = make_video(tmp_path / "clip.mp4", 12, size=(96, 64))
    status, said, _ = run(clip)
    out = tmp_path / "out"
    assert (status, said) == (
        0,
        f"24 detections from score 0.5 in 12 frames of 1 of 1 videos: {out}\n",
    )
    assert files(out) == ["drawn/clip-mp4.mp4", "predictions.csv", "predictions.json"]
    assert times(out / "drawn/clip-mp4.mp4") == times(clip)
    found = rows(out)
    assert [row["frame"] for row in found[::2]] == [str(n) for n in range(12)]
    assert [float(row["seconds"]) for row in found[::2]] == [n / RATE for n in range(12)]
    assert list(found[5].values()) == (
        [str(clip), "96", "64", "square", "48.0", "0.0", "96.0", "32.0", "0.6000", "2", "0.100"]
    )


def test_frames_are_results_with_ids_of_their_own(run, tmp_path):
    draw_picture(tmp_path / "in/a.jpg", (64, 48), [])
    make_video(tmp_path / "in/b.mp4", 3)
    draw_picture(tmp_path / "in/c.jpg", (64, 48), [])
    run(tmp_path / "in")
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [(one["image_id"], one.get("frame")) for one in results[::2]] == [
        (1, None),
        (2, 0),
        (3, 1),
        (4, 2),
        (5, None),
    ]


def test_the_drawn_video_shows_the_boxes(run, tmp_path):
    run(make_video(tmp_path / "clip.mp4", 4, size=(192, 128)))
    with av.open(str(tmp_path / "out/drawn/clip-mp4.mp4")) as container:
        image = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    red, green, blue = image[50:80, 48].mean(axis=0)  # left edge of circle: orange
    assert red > green + 20
    assert green > blue + 60


def test_frames_for_labelling_are_taken_at_intervals(run, tmp_path):
    clip = make_video(tmp_path / "clip.mp4", 45)
    run(clip, "predict.xml=true", "predict.drawn=false")
    out = tmp_path / "out"
    assert files(out / "xml/clip") == [
        f"frame-{number:06d}.{suffix}" for number in (0, 20, 40) for suffix in ("jpg", "xml")
    ]
    root = etree.parse(out / "xml/clip/frame-000020.xml").getroot()
    assert root.findtext("filename") == "frame-000020.jpg"
    assert [item.findtext("name") for item in root.iter("object")] == list(NAMES)
    assert not (out / "drawn").exists()


def test_an_animated_gif_is_a_video(run, tmp_path):
    frames = [Image.new("RGB", (64, 48), (60 * i, 0, 0)) for i in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=200)
    status, said, _ = run(tmp_path / "a.gif")
    assert status == 0
    assert "in 4 frames of 1 of 1 videos" in said
    assert times(tmp_path / "out/drawn/a-gif.mp4")[0] == [0, 0.2, 0.4, 0.6]


def test_other_animated_pictures_are_told_of(run, tmp_path):
    frames = [Image.new("RGB", (64, 48), (60 * i, 0, 0)) for i in range(4)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    _, said, err = run(tmp_path / "a.webp")
    assert "in 1 of 1 pictures" in said
    assert f"{tmp_path}/a.webp: holds 4 pictures; the first one is looked at.\n" in err


def test_a_video_with_a_broken_tail_is_done_up_to_there(run, tmp_path):
    whole = make_video(tmp_path / "a.mkv", 60)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    status, _, err = run(cut)
    out = tmp_path / "out"
    assert status == 0
    assert " of 3.0 s: its tail is missing or damaged. What could be read is written." in err
    assert len(times(out / "drawn/cut-mkv.mp4")[0]) == len(rows(out)) / 2 > 10


def test_a_video_that_cannot_be_opened_is_left_out(run, tmp_path):
    draw_picture(tmp_path / "in/a.jpg", (64, 48), [])
    (tmp_path / "in/b.mp4").write_bytes(b"no video at all" * 50)
    status, said, err = run(tmp_path / "in")
    assert status == 0
    assert "in 1 of 1 pictures and 0 frames of 0 of 1 videos" in said
    assert f"{tmp_path}/in/b.mp4: is no video that can be read: Invalid data found" in err


def test_a_hundred_megapixels_are_refused_and_the_rest_is_done(run, tmp_path):
    draw_picture(tmp_path / "in/a.jpg", (64, 48), [])
    Image.new("1", (10_000, 10_000)).save(tmp_path / "in/b.png")
    status, said, err = run(tmp_path / "in")
    assert status == 0
    assert "in 1 of 2 pictures" in said
    assert (
        f"error OD019 {tmp_path}/in/b.png: has more than 89 million pixels. "
        "Scale it down; detectors see far fewer pixels." in err
    )


def test_sound_that_is_left_out_is_told(run, tmp_path):
    clip = make_video(tmp_path / "clip.mkv", sound="pcm_s16le")
    _, _, err = run(clip)
    assert f"{clip}: its sound (pcm_s16le) is left out: .mp4 cannot hold it as it is.\n" in err


# ---- which detections


def test_thresholds_by_class(run, tmp_path):
    draw_picture(tmp_path / "a.jpg", (64, 48), [])
    _, said, _ = run(tmp_path / "a.jpg", "predict.threshold={circle:0.95,default:0.3}")
    assert said.startswith("1 detections from score 0.3 (by class) in 1 of 1 pictures")
    assert [row["class"] for row in rows(tmp_path / "out")] == ["square"]


# ---- stopped and gone on


@pytest.fixture
def counted(monkeypatch):
    """How many pictures the model was given."""
    given = []
    detect_all = Source.detect_all

    def counting(self, images):
        given.extend(images)
        return detect_all(self, images)

    monkeypatch.setattr(Source, "detect_all", counting)
    return given


@pytest.fixture
def stop_after(monkeypatch):
    """Lets Ctrl-C be pressed once so many pictures were noted."""

    def stop_after(number):
        add = predict.Journal.add
        left = iter(range(number))

        def adding(self, *arguments):
            add(self, *arguments)
            if next(left, None) is None:
                monkeypatch.setattr(predict.Journal, "add", add)
                raise KeyboardInterrupt

        monkeypatch.setattr(predict.Journal, "add", adding)

    return stop_after


def test_a_folder_goes_on_where_it_stopped(run, tmp_path, counted, stop_after):
    for number in range(12):
        draw_picture(tmp_path / f"in/{number:02d}.jpg", (64, 48), [], seed=number)
    out = tmp_path / "out"
    stop_after(6)
    status, said, err = run(tmp_path / "in")
    assert (status, said) == (130, "")
    assert f"14 detections from score 0.5 in 7 of 12 pictures: {out}\n" in err
    assert "  It is not all: the same command goes on from there.\n" in err
    assert len(rows(out)) == 14
    counted.clear()
    status, said, err = run(tmp_path / "in")
    assert said == f"24 detections from score 0.5 in 12 of 12 pictures: {out}\n"
    assert "going on: 7 pictures and frames were done before.\n" in err
    assert 5 <= len(counted) < 12
    assert not (out / predict.JOURNAL).exists()
    assert run(tmp_path / "in", output=tmp_path / "again")[0] == 0
    for name in ("predictions.csv", "predictions.json"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_video_goes_on_without_looking_twice(run, tmp_path, counted, stop_after):
    clip = make_video(tmp_path / "clip.mp4", 40)
    stop_after(25)
    assert run(clip)[0] == 130
    assert 20 < len(times(tmp_path / "out/drawn/clip-mp4.mp4")[0]) < 30
    counted.clear()
    assert run(clip)[0] == 0
    assert len(counted) == 40 - 26
    assert times(tmp_path / "out/drawn/clip-mp4.mp4") == times(clip)
    assert len(rows(tmp_path / "out")) == 80


def test_other_settings_begin_anew(run, tmp_path, counted, stop_after):
    for number in range(4):
        draw_picture(tmp_path / f"in/{number}.jpg", (64, 48), [])
    stop_after(2)
    run(tmp_path / "in")
    counted.clear()
    _, said, _ = run(tmp_path / "in", "predict.threshold=0.7")
    assert said.startswith("4 detections from score 0.7 in 4 of 4 pictures")
    assert len(counted) == 4


def test_a_picture_that_changed_is_looked_at_again(run, tmp_path, counted, stop_after):
    for number in range(4):
        draw_picture(tmp_path / f"in/{number}.jpg", (64, 48), [])
    stop_after(2)
    run(tmp_path / "in")
    draw_picture(tmp_path / "in/0.jpg", (128, 96), [])
    counted.clear()
    run(tmp_path / "in")
    assert (96, 128, 3) in [image.shape for image in counted]
    assert rows(tmp_path / "out")[0]["width"] == "128"


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_found(run, model, tmp_path):
    clip = make_video(tmp_path / "clip.mp4", 400, size=(320, 240))
    out = tmp_path / "out"
    names = f"predict.label_map={tmp_path}/labels.txt"
    command = ["predict", f"source={model}", f"input={clip}", f"output={out}", names]
    process = subprocess.Popen(
        [sys.executable, "-m", "odtrain", *command], stderr=subprocess.DEVNULL
    )
    journal = out / predict.JOURNAL
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 50:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = journal.read_bytes().count(b"\n") - 1
    assert 50 <= found < 400
    with journal.open("ab") as stream:
        stream.write(b'{"name": "cut off by the ki')
    status, _, err = run(clip)
    assert status == 0
    assert f"going on: {found} pictures and frames were done before.\n" in err
    assert len(rows(out)) == 800
    assert files(out) == ["drawn/clip-mp4.mp4", "predictions.csv", "predictions.json"]


def test_two_at_once_do_not_mix(run, tmp_path):
    draw_picture(tmp_path / "a.jpg", (64, 48), [])
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / predict.LOCK):
        status, _, err = run(tmp_path / "a.jpg")
    assert status == 1
    assert err.endswith(
        f"output={tmp_path}/out: another prediction writes there.\n  Choose another: output=DIR.\n"
    )


def test_a_full_disk_is_told_and_what_was_found_is_kept(run, tmp_path, small_disk):
    for number in range(30):
        draw_picture(tmp_path / f"in/{number:02d}.jpg", (320, 240), [], seed=number)
    status, _, err = run(tmp_path / "in", output=small_disk / "out")
    assert status == 1
    assert "cannot be written: No space left on device.\n  Free space there, or" in err
    assert (small_disk / "out" / predict.JOURNAL).stat().st_size > 500
    assert not list(small_disk.rglob("*.part"))


# ---- cameras


def test_a_camera_is_recorded_until_its_time_is_over(run, tmp_path, camera):
    status, said, err = run("camera:9", "predict.max_seconds=0.5")
    out = tmp_path / "out"
    (drawn,) = (out / "drawn").iterdir()
    frames = {row["frame"] for row in rows(out)}
    assert status == 0
    assert "camera:9: Ctrl-C ends it.\n" in err
    assert len(times(drawn)[0]) == len(frames) > 3
    assert f" in {len(frames)} frames of 1 of 1 videos: {out}\n" in said


def test_ctrl_c_ends_a_camera_and_all_is_written(run, tmp_path, camera, stop_after):
    stop_after(5)
    status, said, _ = run("camera:9")
    assert status == 0
    assert "in 6 frames of 1 of 1 videos" in said
    assert len(rows(tmp_path / "out")) == 12


def test_an_unplugged_camera_is_an_error_and_what_it_saw_is_written(
    run, tmp_path, camera, monkeypatch
):
    decoded = video.Video._decoded

    def unplugged(self):
        for number, frame in enumerate(decoded(self)):
            if number == 8:
                self.problem = "the camera does not answer any more."
                return
            yield frame

    monkeypatch.setattr(video.Video, "_decoded", unplugged)
    status, said, err = run("camera:9")
    assert status == 1
    assert err.endswith(
        "camera:9: the camera does not answer any more.\n"
        f"  What was seen until then is in {tmp_path}/out.\n"
    )
    assert said.endswith(f" frames of 1 of 1 videos: {tmp_path}/out\n")
    assert rows(tmp_path / "out")


def test_a_camera_that_is_not_there_leaves_nothing(run, tmp_path):
    status, _, err = run("camera:97")
    assert status == 1
    assert "camera:97: /dev/video97 cannot be opened: No such file or directory." in err
    assert files(tmp_path / "out") == []


def test_a_tracked_video_has_numbers_in_tables_and_counts_beside_them(run, tmp_path):
    pytest.importorskip("trackers", reason="the extra `tracks` is not installed")
    film = make_video(tmp_path / "film.mp4", frames=4)
    settings = ("predict.track=true", "predict.lines={zone:[0,0,96,0,96,64,0,64]}")
    status, said, complaints = run(film, *settings)
    assert (status, said.splitlines()[-1].partition(": ")[0]) == (
        0,
        "8 detections from score 0.5 in 4 frames of 1 of 1 videos; 2 tracks, zone entered 2",
    ), complaints
    folder = tmp_path / "out"
    assert [row["track"] for row in rows(folder)] == ["", "", *["1", "2"] * 3]
    tracks = [each.get("track_id") for each in json.loads((folder / TABLES[1]).read_text())]
    assert tracks == [None, None, *[1, 2] * 3]
    assert files(folder) == [
        "counts.csv",
        "counts.png",
        "drawn/film-mp4.mp4",
        *TABLES,
        "tracks/film.txt",
    ]


def test_lines_are_drawn_into_the_video_with_what_was_counted_and_tracking_is_done_once(
    run, tmp_path, monkeypatch
):
    pytest.importorskip("trackers", reason="the extra `tracks` is not installed")
    tracked = []
    update = Tracks.update
    monkeypatch.setattr(Tracks, "update", lambda *given: tracked.append(given[3]) or update(*given))
    film = make_video(tmp_path / "film.mp4", frames=4, size=(320, 240))
    run(film, "predict.track=true", "predict.lines={door:[4,200,300,200]}")
    with av.open(str(tmp_path / "out/drawn/film-mp4.mp4")) as drawn:
        pixels = next(drawn.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    line = pixels[198:203, 160:300].mean(axis=(1, 2)).max()
    assert line > 140  # white, with dark edges, on a ground of 40
    assert (pixels[230, 160:300] < 60).all()
    assert tracked == [0, 1, 2, 3]


def test_the_rate_of_a_video_is_told(run, tmp_path):
    film = make_video(tmp_path / "film.mp4", frames=3)
    _, _, complaints = run(film)
    assert re.search(rf"^{film}: 3 frames, [0-9.]+ a second\.$", complaints, re.MULTILINE)


def test_frames_of_a_camera_that_nobody_could_look_at_are_told_of(
    run, tmp_path, monkeypatch, camera
):
    newest = predict.Newest.frames
    monkeypatch.setattr(
        predict.Newest, "frames", lambda *given: (f for f in newest(*given) if f.number % 2)
    )
    _, _, complaints = run("camera:1")
    counted = re.search(r"camera:1: (\d+) frames, (\d+) lost in between, ", complaints)
    assert counted is not None, complaints
    assert int(counted[2]) >= int(counted[1]) > 1


def test_without_the_package_for_tracks_the_extra_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    film = make_video(tmp_path / "film.mp4", frames=2)
    status, _, complaints = run(film, "predict.track=true")
    assert status != 0
    assert complaints.endswith(
        "predict.track=true: the package trackers is not installed.\n"
        "  Install it: pip install 'odtrain[tracks]'\n"
    )
