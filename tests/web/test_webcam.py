"""The live page: what it is sent and sends, and the page itself in a browser."""

import errno
import json
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import requests
from lxml import etree
from PIL import Image
from support.accessibility import serious, wider_than_the_window
from support.browsers import browser, soon
from support.tflite_files import write_constant_model
from support.tiny_models import model
from support.videos import camera, make_video
from support.web_pages import running

from odtrain.config.compose import compose_config
from odtrain.errors import ConfigError
from odtrain.model_files.thresholds import Thresholds
from odtrain.model_source import open_source
from odtrain.predict.runner import jpeg
from odtrain.web import webcam
from odtrain.web.guard import Guard
from odtrain.web.live_tracks import PageTracks
from odtrain.web.webcam import build_app
from odtrain_runtime.callers import LOOPBACK
from odtrain_runtime.pictures import read_upright

__all__ = ["browser", "camera", "model", "write_constant_model"]


@pytest.fixture
def config(model, tmp_path):
    def config(place):
        return compose_config(
            [
                f"source={model}",
                f"predict.label_map={model.parent}/labels.txt",
                f"output={tmp_path}/saved",
                f"input={place}",
            ]
        )

    return config


@pytest.fixture
def serve(config, tmp_path):
    """Starts the page on an input; its address."""
    stack = []

    def serve(place, track=False):
        settings = config(place)
        predict = replace(settings.predict, track=track)
        source = open_source(settings.source, settings, 2)
        shown = webcam._camera(predict, settings.input, tmp_path / "saved", source, 0.5)
        pages = PageTracks(0.5) if track else None
        app = build_app(source, Thresholds(0.5), shown, tmp_path / "saved", pages)
        server = running(Guard(app, LOOPBACK))
        stack.append((server, shown))
        return f"http://127.0.0.1:{server.__enter__()}"

    yield serve
    for server, shown in stack:
        if shown is not None:
            shown.close()
        server.__exit__(None, None, None)


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "clip.mp4", 30, size=(160, 120))


def parts(content):
    """JSON and picture of an answer that holds both."""
    (length,) = struct.unpack_from(">I", content)
    return json.loads(content[4 : 4 + length]), content[4 + length :]


def with_picture(head, picture):
    text = json.dumps(head).encode()
    return struct.pack(">I", len(text)) + text + picture


def test_frames_come_one_after_the_other_with_what_is_in_them(serve, clip):
    address = serve(clip)
    numbers = []
    for _ in range(4):
        answer = requests.get(
            f"{address}/frame", {"after": numbers[-1] if numbers else 0}, timeout=9
        )
        head, picture = parts(answer.content)
        numbers.append(head["number"])
    assert numbers == sorted(set(numbers))
    assert head["classes"] == [1, 2]
    assert head["scores"] == [0.9, 0.6]
    assert head["boxes"] == [[0.25, 0.25, 0.75, 0.5], [0, 0.5, 0.5, 1]]
    assert head["model_ms"] > 0
    assert 0 <= head["age_ms"] < 5000
    assert picture[:3] == b"\xff\xd8\xff"


def test_a_video_begins_again_at_its_end(serve, clip):
    address, number = serve(make_video(clip, 4)), 0
    begun = time.monotonic()
    while number < 8:
        answer = requests.get(f"{address}/frame", {"after": number}, timeout=9)
        number = parts(answer.content)[0]["number"]
    assert time.monotonic() - begun < 30


def test_what_is_about_is_told(serve, clip, model, tmp_path):
    about = requests.get(f"{serve(clip)}/about", timeout=9).json()
    assert about.pop("colours")[:2] == ["#e69f00", "#56b4e9"]
    assert about == {
        "source": str(model),
        "camera": str(clip),
        "folder": f"{tmp_path}/saved",
        "classes": ["circle", "square"],
        "lowest": 0.05,
        "threshold": 0.5,
        "by_class": {},
        "track": False,
    }


def test_a_frame_of_the_browser_is_looked_at(serve):
    picture = jpeg(np.zeros((48, 64, 3), np.uint8), 90)
    answer = requests.post(f"{serve('browser')}/detect", picture, timeout=9).json()
    assert answer.pop("model_ms") > 0
    assert answer == {
        "boxes": [[0.25, 0.25, 0.75, 0.5], [0, 0.5, 0.5, 1]],
        "scores": [0.9, 0.6],
        "classes": [1, 2],
    }


ZONE = {"all of it": [0, 0, 1, 0, 1, 1, 0, 1]}


def frames_of(address, count):
    """What is said of so many frames, one after the other."""
    heads = [{"number": 0}]
    for _ in range(count):
        given = {"after": heads[-1]["number"]}
        heads.append(parts(requests.get(f"{address}/frame", given, timeout=9).content)[0])
    return heads[1:]


def test_objects_of_the_server_s_camera_are_followed_and_counted_where_a_page_says(serve, clip):
    pytest.importorskip("trackers", reason="the extra `tracks` is not installed")
    address = serve(clip, track=True)
    assert frames_of(address, 3)[-1]["tracks"] == [1, 2]
    sent = requests.post(f"{address}/lines", json.dumps(ZONE), timeout=9)
    assert (sent.status_code, sent.json()) == (200, {"lines": ZONE})
    head = soon(lambda: (seen := frames_of(address, 1)[0])["counts"] and seen)
    assert head["counts"] == {"all of it": {"entered": 2}}
    assert head["lines"] == ZONE
    both = {**ZONE, "line": [0, 0.5, 1, 0.5]}
    requests.post(f"{address}/lines", json.dumps(both), timeout=9)
    counts = {}

    def both_counted():
        counts.update(frames_of(address, 1)[0]["counts"])
        return len(counts) == 2

    soon(both_counted)
    assert counts == {"all of it": {"entered": 2}, "line": {"in": 0, "out": 0}}


def test_each_page_s_own_camera_is_followed_by_itself(serve):
    pytest.importorskip("trackers", reason="the extra `tracks` is not installed")
    address = serve("browser", track=True)
    picture = jpeg(np.zeros((48, 64, 3), np.uint8), 90)

    def tracks(page):
        answer = requests.post(f"{address}/detect", picture, params={"page": page}, timeout=9)
        return answer.json()["tracks"]

    assert [tracks("one"), tracks("one"), tracks("two")] == [[0, 0], [1, 2], [0, 0]]
    requests.post(f"{address}/lines", json.dumps(ZONE), params={"page": "one"}, timeout=9)
    tracks("one")
    answers = [
        requests.post(f"{address}/detect", picture, params={"page": page}, timeout=9).json()
        for page in ("one", "two")
    ]
    assert [answer["counts"] for answer in answers] == [{"all of it": {"entered": 2}}, {}]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "The lines are none, or more than 20."),
        ({str(n): [0, 0, 1, 1] for n in range(21)}, "The lines are none, or more than 20."),
        ({"a": [0, 0, 1]}, "A line is no line."),
        ({"a": [0, 0]}, "A line is no line."),
        ({"a": "x"}, "A line is no line."),
        ({"a": [0, 0, 1, 1.5]}, "A line is no line."),
        ({"a": [0, 0, 1, None]}, "A line is no line."),
        ({" ": [0, 0, 1, 1]}, "A name is empty, or longer than 60 letters."),
        ({"x" * 61: [0, 0, 1, 1]}, "A name is empty, or longer than 60 letters."),
    ],
)
def test_lines_that_are_none_are_refused(serve, lines, message):
    answer = requests.post(f"{serve('browser')}/lines", json.dumps(lines), timeout=9)
    assert (answer.status_code, answer.json()["message"]) == (400, message)


def test_where_nothing_is_followed_lines_are_refused(serve, clip):
    answer = requests.post(f"{serve(clip)}/lines", json.dumps(ZONE), timeout=9)
    assert (answer.status_code, answer.json()["message"]) == (
        404,
        "Nothing is followed here: start with predict.track=true.",
    )


def test_a_saved_frame_is_a_picture_and_its_xml(serve, tmp_path):
    image = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
    head = {"boxes": [[0.25, 0.25, 0.75, 0.5]], "scores": [0.9], "classes": [2]}
    body = with_picture(head, jpeg(image, 90))
    address = serve("browser")
    names = [requests.post(f"{address}/save", body, timeout=9).json()["saved"] for _ in range(2)]
    file = tmp_path / "saved" / names[0]
    root = etree.parse(file.with_suffix(".xml")).getroot()
    assert len(set(names)) == 2
    assert file.read_bytes() == jpeg(image, 90)
    assert root.findtext("path") == str(file)
    assert [tag.text for tag in root.find("object")] == [
        "square",
        "Unspecified",
        "0",
        "0",
        root.findtext("object/bndbox"),
    ]
    assert [side.text for side in root.find("object/bndbox")] == ["16", "12", "32", "36"]
    assert root.get("verified") is None


GOOD = {"boxes": [], "scores": [], "classes": []}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        pytest.param("detect", b"no picture", 400, "is not a picture", id="no picture"),
        pytest.param("save", b"ab", 400, "The request is cut off.", id="too short"),
        pytest.param("save", b"\xff\xff\xff\xff{}", 400, "The request is cut off.", id="length"),
        pytest.param("save", with_picture({}, b""), 400, "The boxes are missing.", id="no boxes"),
        pytest.param("save", with_picture([1], b""), 400, "The boxes are missing.", id="a list"),
        pytest.param(
            "save",
            struct.pack(">I", 100_000) + b"[" * 100_000,
            400,
            "The boxes are none.",
            id="nested without end",
        ),
        pytest.param(
            "save",
            with_picture({**GOOD, "more": "x" * 2**20}, b""),
            400,
            "The boxes are none.",
            id="too long",
        ),
        pytest.param(
            "save",
            with_picture({**GOOD, "scores": [1]}, b""),
            400,
            "The boxes are none.",
            id="not as many",
        ),
        pytest.param(
            "save",
            with_picture({"boxes": [[0, 0, 9, 9]], "scores": [1], "classes": [1]}, b""),
            400,
            "The boxes are none.",
            id="outside",
        ),
        pytest.param(
            "save", with_picture(GOOD, b"<svg/>"), 400, "The picture is no JPEG.", id="no JPEG"
        ),
        pytest.param(
            "save",
            with_picture(GOOD, b"\xff\xd8\xff\xe0 cut off"),
            400,
            "cannot be decoded",
            id="damaged",
        ),
    ],
)
def test_rubbish_is_refused_and_nothing_is_written(serve, tmp_path, path, body, status, message):
    answer = requests.post(f"{serve('browser')}/{path}", body, timeout=9)
    assert answer.status_code == status
    assert message in answer.json()["message"]
    assert not list(tmp_path.glob("saved/*"))


def test_a_picture_of_too_many_bytes_is_refused(serve, monkeypatch):
    monkeypatch.setattr(webcam, "LARGEST_FRAME", 1000)
    answer = requests.post(f"{serve('browser')}/detect", b"x" * 1001, timeout=9)
    assert (answer.status_code, answer.json()["message"]) == (413, "The picture is too large.")


def test_a_disk_that_is_full_is_told(serve, tmp_path):
    (tmp_path / "saved").write_text("in the way")
    body = with_picture(GOOD, jpeg(np.zeros((8, 8, 3), np.uint8), 90))
    answer = requests.post(f"{serve('browser')}/save", body, timeout=9)
    assert (answer.status_code, answer.json()["message"]) == (
        507,
        f"{tmp_path}/saved: File exists.",
    )


@pytest.mark.parametrize("suffix", [".jpg", ".xml"])
def test_a_disk_that_fills_up_is_left_with_nothing_of_the_frame(
    serve, tmp_path, monkeypatch, suffix
):
    def write(file, content):
        if file.suffix == suffix:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write_bytes(content)

    monkeypatch.setattr(webcam, "write_bytes", write)
    body = with_picture(GOOD, jpeg(np.zeros((8, 8, 3), np.uint8), 90))
    answer = requests.post(f"{serve('browser')}/save", body, timeout=9)
    assert (answer.status_code, answer.json()["message"]) == (
        507,
        f"{tmp_path}/saved: No space left on device.",
    )
    assert not list(tmp_path.glob("saved/*"))


def test_no_more_frames_are_saved_than_a_server_may(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(webcam, "MOST_SAVED", 1)
    body = with_picture(GOOD, jpeg(np.zeros((8, 8, 3), np.uint8), 90))
    address = serve("browser")
    assert requests.post(f"{address}/save", body, timeout=9).status_code == 200
    answer = requests.post(f"{address}/save", body, timeout=9)
    assert (answer.status_code, answer.json()["message"]) == (
        429,
        "1 frames were saved: start odtrain webcam again.",
    )
    assert len(list(tmp_path.glob("saved/*.jpg"))) == 1


def test_a_camera_that_is_not_there_is_told_and_tried_again(serve, monkeypatch, capsys, camera):
    monkeypatch.setattr(webcam, "RETRY_SECONDS", 0.1)
    place = ("v4l2", "/dev/video{}")
    monkeypatch.setitem(webcam.open_camera.__globals__["CAMERAS"], "Linux", place)
    address = serve("camera:97")
    answer = requests.get(f"{address}/frame", timeout=9)
    assert answer.status_code == 503
    assert answer.json()["message"] == (
        "camera:97: /dev/video97 cannot be opened: No such file or directory."
    )
    assert "camera:97: /dev/video97 cannot be opened" in capsys.readouterr().err
    monkeypatch.setitem(
        webcam.open_camera.__globals__["CAMERAS"],
        "Linux",
        ("lavfi", "testsrc=size=64x48:rate=25:duration={},realtime"),
    )
    time.sleep(0.2)
    assert requests.get(f"{address}/frame", timeout=9).status_code == 200


def test_a_camera_that_is_unplugged_is_told(serve, camera, monkeypatch):
    address, number = serve("camera:1"), 0
    while (answer := requests.get(f"{address}/frame", {"after": number}, timeout=9)).ok:
        number = parts(answer.content)[0]["number"]
    assert answer.json()["message"] == "camera:1: gives no frames any more."


def test_a_camera_is_let_go_when_nobody_looks(serve, clip, monkeypatch, capsys):
    monkeypatch.setattr(webcam, "PATIENCE_SECONDS", 0.3)
    address = serve(clip)
    assert requests.get(f"{address}/frame", timeout=9).ok
    time.sleep(1.2)
    assert capsys.readouterr().err == (
        f"nobody looks any more: {clip} was let go. The page opens it again.\n"
    )
    assert requests.get(f"{address}/frame", timeout=9).ok


def test_what_is_no_camera_is_told(config, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError) as caught:
        webcam.webcam(config(tmp_path / "a.png"))
    assert str(caught.value) == (
        f"input={tmp_path}/a.png: is no camera and no video.\n  Give camera:0, a video, or browser."
    )


@pytest.mark.slow
def test_the_command_says_where_and_ends_with_ctrl_c(model, clip, tmp_path):
    command = ["webcam", f"source={model}", f"input={clip}", "webcam.port=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "odtrain", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    saved, where = process.stdout.readline(), process.stdout.readline()
    address = where.split()[2]
    assert saved == f"frames are saved to {tmp_path}/to_label\n"
    assert where == f"webcam page: {address}  (Ctrl-C ends it)\n"
    page = requests.get(address, timeout=20)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert requests.get(f"{address}frame", timeout=20).ok
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    process.stdout.close()


# ---- in a browser


def text_of(page, name):
    return page.execute_script("return document.getElementById(arguments[0]).textContent", name)


BOX_PIXEL = """
const view = document.getElementById('view');
return [...view.getContext('2d').getImageData(view.width / 4, view.height / 2, 1, 1).data];
"""
"""Colour of the left edge of circle's box."""


def is_orange(page):
    red, green, blue, _ = page.execute_script(BOX_PIXEL)
    return red > 200 and 60 < green < 170 and blue < 120


@pytest.mark.slow
def test_the_page_shows_filters_freezes_and_saves(serve, browser, tmp_path):
    page = browser()
    page.get(serve(make_video(tmp_path / "clip.mp4", 20, size=(640, 480))))
    soon(lambda: text_of(page, "rate") not in ("–", ""))
    assert text_of(page, "model").endswith(" ms")
    assert text_of(page, "latency").endswith(" ms")
    page.find_element("id", "freeze").click()
    assert text_of(page, "freeze").startswith("Go on")
    assert is_orange(page)
    circle, _ = page.find_elements("css selector", "#classes input[type=checkbox]")
    circle.click()
    assert not is_orange(page)
    circle.click()
    slide = "const s = arguments[0]; s.value = 0.7; s.dispatchEvent(new Event('input'));"
    page.execute_script(slide, page.find_element("id", "threshold"))
    assert is_orange(page)
    page.find_element("id", "save").click()
    said = soon(lambda: text_of(page, "saved"))
    (picture,) = tmp_path.glob("saved/*.jpg")
    assert said == f"{picture.name} and its boxes (1) are in {tmp_path}/saved"
    assert read_upright(picture).shape == (480, 640, 3)
    names = [name.text for name in etree.parse(picture.with_suffix(".xml")).iter("name")]
    assert names == ["circle"]
    assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_lines_and_zones_are_drawn_by_hand_counted_and_taken_away(serve, browser, tmp_path):
    pytest.importorskip("trackers", reason="the extra `tracks` is not installed")
    actions = pytest.importorskip("selenium.webdriver").ActionChains
    page = browser("--window-size=1400,1000")
    page.get(serve(make_video(tmp_path / "clip.mp4", 20, size=(640, 480)), track=True))
    soon(lambda: text_of(page, "rate") not in ("–", ""))
    view = page.find_element("id", "view")

    def click(x, y):
        """At a place of the canvas, in parts of its height from its middle."""
        side = view.size["height"]
        actions(page).move_to_element_with_offset(
            view, int(x * side), int(y * side)
        ).click().perform()

    page.find_element("id", "zone").click()
    for x, y in ((-0.6, -0.45), (0.6, -0.45), (0.6, 0.45), (-0.6, 0.45)):
        click(x, y)
    page.find_element("id", "place").send_keys("everywhere")
    page.find_element("id", "zone").click()
    soon(lambda: "everywhereentered 2" in text_of(page, "counts"))
    page.find_element("id", "line").click()
    click(-0.5, 0.3)
    click(0.5, 0.3)
    soon(lambda: "line 100" in text_of(page, "counts"))
    assert page.find_element("id", "chart").is_displayed()
    assert "everywhere: entered" in text_of(page, "legend")
    assert serious(page) == []
    assert wider_than_the_window(page) == []
    page.save_screenshot(str(tmp_path / "counted.png"))
    page.find_element("css selector", "button[aria-label='Take everywhere away']").click()
    soon(lambda: "everywhere" not in text_of(page, "counts"))
    assert "line 1" in text_of(page, "counts")
    assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_the_page_shows_the_camera_of_the_browser(serve, browser, tmp_path):
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    page = browser(*fake)
    page.get(serve("browser"))
    soon(lambda: text_of(page, "rate") not in ("–", ""))
    assert is_orange(page)
    page.find_element("id", "save").click()
    soon(lambda: text_of(page, "saved"))
    (picture,) = tmp_path.glob("saved/*.jpg")
    assert [item.text for item in etree.parse(picture.with_suffix(".xml")).iter("name")] == [
        "circle",
        "square",
    ]
    assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_a_page_that_is_closed_in_the_middle_stops_nothing(serve, browser, clip):
    address = serve(clip)
    page = browser()
    page.get(address)
    soon(lambda: text_of(page, "rate") not in ("–", ""))
    page.quit()
    assert requests.get(f"{address}/frame", timeout=9).ok


@pytest.mark.slow
def test_everyone_can_use_the_page_and_a_refused_camera_is_told(serve, browser):
    page = browser("--deny-permission-prompts")
    page.get(serve("browser"))
    soon(lambda: page.find_element("id", "again").is_displayed())
    assert text_of(page, "said").startswith("The browser's camera cannot be used: ")
    assert text_of(page, "said").endswith(" Is it plugged in, free, and allowed to this page?")
    assert serious(page) == []
    assert wider_than_the_window(page) == []
    assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_everyone_can_use_the_page_while_the_camera_runs(serve, browser, tmp_path):
    page = browser()
    page.get(serve(make_video(tmp_path / "clip.mp4", 20, size=(640, 480))))
    soon(lambda: text_of(page, "rate") not in ("–", ""))
    page.find_element("id", "freeze").send_keys(" ")
    assert serious(page) == []
    assert wider_than_the_window(page) == []
