"""What a served model saw and found is kept beside the serving."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odtrain_runtime.errors import OdtrainError
from odtrain_runtime.seen import usage_log
from odtrain_runtime.seen.looks import difference_hash, glance, looks_of
from odtrain_runtime.seen.usage_log import LogSettings, UsageLog, log_of_environment
from odtrain_runtime.structures import Detections

FOUND = Detections(
    np.array([[0.1, 0.1, 0.6, 0.5], [0.5, 0.5, 0.9, 0.9]], np.float32),
    np.array([0.9, 0.05], np.float32),
    np.array([1, 2], np.int64),
)


def picture(value: int = 100, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def textured(size: tuple[int, int] = (300, 300)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)


def lines_of(folder: Path) -> list[dict]:
    """Of all logs, without their first lines."""
    files = sorted(folder.glob("log-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()[1:]]


def test_a_line_says_how_a_picture_looks_and_what_is_in_it(tmp_path):
    log = UsageLog(LogSettings(tmp_path), "model.tflite", ["cat", "dog"])
    log.add(picture(), FOUND)
    log.close()
    (line,) = lines_of(tmp_path)
    assert time.time() - 60 < line.pop("time") <= time.time()
    assert line == {
        "height": 40, "width": 60, "brightness": 100.0, "contrast": 0.0, "sharpness": 0.0,
        "layout": [100] * 48, "likeness": "0" * 64, "scores": [0.9], "classes": [1], "areas": [0.2],
    }  # fmt: skip


def test_the_first_line_says_which_model_it_was(tmp_path):
    UsageLog(LogSettings(tmp_path), "model.tflite", ["cat", "dog"], "4711").close()
    (file,) = tmp_path.glob("log-*.jsonl")
    head = {"version": 1, "model": "model.tflite", "run": "4711", "classes": ["cat", "dog"]}
    assert json.loads(file.read_text()) == head


def test_pictures_are_kept_where_asked_for_as_pixels_alone(tmp_path):
    log = UsageLog(LogSettings(tmp_path, pictures=1.0), "m", ["cat"])
    log.add(picture(), FOUND)
    log.close()
    (line,) = lines_of(tmp_path)
    with Image.open(tmp_path / "pictures" / line["picture"]) as kept:
        assert kept.size == (60, 40)
        assert not kept.getexif()


def test_no_picture_is_kept_unasked(tmp_path):
    log = UsageLog(LogSettings(tmp_path), "m", ["cat"])
    log.add(picture(), FOUND)
    log.close()
    assert not (tmp_path / "pictures").exists()


def test_what_a_full_queue_cannot_take_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(usage_log, "WAITING", 1)
    log = UsageLog(LogSettings(tmp_path), "m", ["cat"])
    for _ in range(50):
        log.add(textured(), FOUND)
    while log._queue.qsize():
        time.sleep(0.01)
    log.add(picture(), FOUND)
    log.close()
    lines = lines_of(tmp_path)
    assert len(lines) + sum(line.get("lost_before", 0) for line in lines) == 51
    assert len(lines) < 51


def test_the_oldest_goes_where_there_is_more_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(usage_log, "FILE_BYTES", 1000)
    monkeypatch.setattr(usage_log, "SECONDS", 0.0)
    old = tmp_path / "log-20200101T000000-1-1.jsonl"
    old.write_bytes(b"x" * 30_000)
    log = UsageLog(LogSettings(tmp_path, max_megabytes=0.02), "m", ["cat"])
    for number in range(60):
        log.add(picture(number), FOUND)
        while log._queue.qsize():
            time.sleep(0.001)
    log.close()
    files = list(tmp_path.glob("log-*.jsonl"))
    assert old not in files
    assert sum(file.stat().st_size for file in files) <= 20_000
    assert lines_of(tmp_path)[-1]["brightness"] == 59.0


def test_files_of_other_servers_count_for_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(usage_log, "SECONDS", 0.0)
    log = UsageLog(LogSettings(tmp_path, max_megabytes=0.02), "m", ["cat"])
    (tmp_path / "pictures").mkdir()
    for number in range(40):
        (tmp_path / f"pictures/another-{number}.jpg").write_bytes(b"x" * 1000)
        (tmp_path / f"pictures/killed-{number}.part").write_bytes(b"x" * 1000)
        log.add(picture(number), FOUND)
        while log._queue.qsize():
            time.sleep(0.001)
    log.close()
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.*")) <= 30_000


def test_a_picture_that_no_jpeg_can_hold_is_logged_without_it(tmp_path):
    log = UsageLog(LogSettings(tmp_path, pictures=1.0), "m", ["cat"])
    log.add(picture(size=(1, 66_000)), FOUND)
    log.close()
    (line,) = lines_of(tmp_path)
    assert (line["width"], line.get("picture")) == (66_000, None)


def test_any_error_ends_logging_with_one_line_and_the_server_can_end(tmp_path, monkeypatch, capfd):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(usage_log, "seen_as_json", fails)
    log = UsageLog(LogSettings(tmp_path), "m", ["cat"])
    for _ in range(30):
        log.add(picture(), FOUND)
    log._thread.join(10)
    log.close()
    said = f"{tmp_path}: logging ended: MemoryError. Serving goes on.\n"
    assert capfd.readouterr().err == said


def test_a_server_ends_though_the_disk_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(usage_log, "LONGEST_CLOSE", 0.05)
    hangs = threading.Event()
    monkeypatch.setattr(usage_log, "seen_as_json", lambda *_: hangs.wait(30) and {})
    log = UsageLog(LogSettings(tmp_path), "m", ["cat"])
    for _ in range(30):
        log.add(picture(), FOUND)
    begun = time.monotonic()
    log.close()
    assert time.monotonic() - begun < 5
    hangs.set()
    log._thread.join(10)


def test_on_a_disk_that_is_full_from_the_start_nothing_is_logged_and_that_is_said(
    tmp_path, monkeypatch, capfd
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UsageLog, "_write", full)
    log = UsageLog(LogSettings(tmp_path), "m", ["cat"])
    log.add(picture(), FOUND)
    log.close()
    said = f"{tmp_path}: logging ended: No space left on device. Serving goes on.\n"
    assert capfd.readouterr().err == said


def test_on_a_full_disk_logging_ends_with_one_line_and_leaves_no_half_one(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(usage_log, "SECONDS", 0.0)
    log = UsageLog(LogSettings(tmp_path), "m", ["cat"])
    stream = log._stream

    class Full:
        """Takes ten bytes and no more, as a disk on its last block."""

        name, tell, truncate, close = stream.name, stream.tell, stream.truncate, stream.close
        seek = stream.seek

        def write(self, data):
            if len(data) < 11:
                raise OSError(errno.ENOSPC, "No space left on device")
            return stream.write(data[:10])

    log._stream = Full()
    for _ in range(3):
        log.add(picture(), FOUND)
    log._thread.join(10)
    log.add(picture(), FOUND)
    log.close()
    said = f"{tmp_path}: logging ended: No space left on device. Serving goes on.\n"
    assert capfd.readouterr().err == said
    (file,) = tmp_path.glob("log-*.jsonl")
    assert len(file.read_text().splitlines()) == 1


KILLED = """
import sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_usage_log import FOUND, picture
from odtrain_runtime.seen.usage_log import LogSettings, UsageLog
log = UsageLog(LogSettings(Path({folder!r})), "m", ["cat"])
for number in range(1000):
    log.add(picture(number % 256), FOUND)
    print(time.time(), flush=True)
    time.sleep(0.05)
"""


def test_a_server_that_is_killed_loses_the_last_second_at_most(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as server:
        sent = [float(server.stdout.readline()) for _ in range(60)]
        server.send_signal(signal.SIGKILL)
    kept = [line["time"] for line in lines_of(tmp_path)]
    late = [moment for moment in sent if moment < sent[-1] - 1]
    assert late
    assert len(kept) >= len(late)


def test_variables_ask_for_a_log_where_there_are_no_settings(tmp_path):
    variables = {"ODTRAIN_SERVE_LOG": str(tmp_path), "ODTRAIN_SERVE_LOG_PICTURES": "1"}
    log = log_of_environment("m", ["cat"], "4711", variables)
    log.add(picture(), FOUND)
    log.close()
    assert "picture" in lines_of(tmp_path)[0]
    assert log_of_environment("m", ["cat"], "4711", {}) is None


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("PICTURES", "half", "from 0 to 1"),
        ("PICTURES", "nan", "from 0 to 1"),
        ("MEGABYTES", "0", "at least 1"),
    ],
)
def test_a_variable_that_is_no_such_number_is_told(tmp_path, name, value, what):
    variable = f"ODTRAIN_SERVE_LOG_{name}"
    with pytest.raises(OdtrainError) as told:
        log_of_environment(
            "m", ["cat"], "4711", {"ODTRAIN_SERVE_LOG": str(tmp_path), variable: value}
        )
    assert str(told.value) == f"{variable}={value}: is no number {what}.\n  Correct the variable."


# ---- how a picture looks


def test_a_blurred_picture_is_less_sharp():
    sharp = textured()
    small = Image.fromarray(sharp).resize((60, 60)).resize((300, 300))
    assert looks_of(np.asarray(small)).sharpness < looks_of(sharp).sharpness / 4


def test_a_glance_at_a_large_picture_is_small_and_of_a_small_one_all():
    assert glance(picture(size=(3000, 4000))).shape == (500, 667, 3)
    assert glance(picture()).shape == (40, 60, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (2, 3)])
def test_pictures_of_odd_sizes_have_looks_too(size):
    assert looks_of(picture(size=size)).brightness == 100.0


def test_the_layout_says_where_which_colour_is():
    image = picture(0, (40, 40))
    image[:10, :10] = (200, 10, 30)
    assert looks_of(image).layout[:3] == (200, 10, 30)
    assert looks_of(image).layout[3:] == (0,) * 45


def test_the_hash_of_a_copy_that_is_scaled_is_nearly_the_same():
    image = Image.fromarray(textured()).resize((64, 64)).resize((600, 600))
    bits = int(difference_hash(image), 16) ^ int(difference_hash(image.resize((200, 200))), 16)
    assert bits.bit_count() < 26
