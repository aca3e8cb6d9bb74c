"""Logs of a served model, read back as numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from odtrain.errors import DataError
from odtrain.monitoring.usage import KINDS, read_usage
from odtrain_runtime.seen.usage_log import seen_as_json
from odtrain_runtime.structures import Detections

HEAD = {"version": 1, "model": "m", "classes": ["cat", "dog"]}


def row(number: int, scores=(0.9,), classes=(1,), side: float = 0.2) -> dict:
    """A picture of its own noise, with square objects."""
    image = np.random.default_rng(number).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    boxes = np.array([[0, 0, side, side]] * len(scores), np.float32).reshape(-1, 4)
    found = Detections(boxes, np.array(scores, np.float32), np.array(classes, np.int64))
    return {"time": float(number), "height": 64, "width": 64, **seen_as_json(image, found)}


def write(folder: Path, rows, name: str = "log-1.jsonl", head=HEAD) -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(each) + "\n" for each in [head, *rows])
    (folder / name).write_text(text)
    return folder


def test_logs_of_several_files_are_joined_in_the_order_of_time(tmp_path):
    write(tmp_path, [row(3), row(5)], "log-b.jsonl")
    write(tmp_path, [row(4)], "log-a.jsonl")
    usage = read_usage(tmp_path)
    assert [each["time"] for each in usage.rows] == [3, 4, 5]
    assert (usage.model, usage.class_names) == ("m", ("cat", "dog"))


def test_a_scene_that_stands_still_is_one_picture(tmp_path):
    usage = read_usage(write(tmp_path, [row(1), {**row(1), "time": 2.0}, row(3)]))
    assert ([each["time"] for each in usage.rows], usage.thinned) == ([1, 3], 1)


def test_a_line_that_broke_off_is_passed_over_and_counted(tmp_path):
    write(tmp_path, [row(1), row(2)])
    with (tmp_path / "log-1.jsonl").open("a") as file:
        file.write('{"time": 3, "bright')
    usage = read_usage(tmp_path)
    assert (len(usage.rows), usage.broken) == (2, 1)


def test_each_kind_of_number_is_a_row_a_picture(tmp_path):
    rows = [row(1, (0.9, 0.8), (1, 2)), row(2, (), ()), row(3, (0.2,), (1,))]
    usage = read_usage(write(tmp_path, rows))
    numbers = {kind: usage.numbers(kind) for kind in KINDS}
    assert {kind: len(each) for kind, each in numbers.items()} == {
        **dict.fromkeys(KINDS, 3), "sizes": 1,
    }  # fmt: skip
    assert numbers["objects"].tolist() == [[2], [0], [0]]
    assert numbers["classes"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert numbers["scores"].reshape(-1) == pytest.approx([0.9, 0, 0.2], abs=1e-3)
    assert numbers["sizes"][0, 0] == pytest.approx(np.log2(0.2), abs=1e-3)


def test_pictures_that_are_still_there_are_known_by_their_place(tmp_path):
    write(tmp_path, [row(1), {**row(2), "picture": "a.jpg"}, {**row(3), "picture": "gone.jpg"}])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.jpg").touch()
    assert read_usage(tmp_path).kept == {1: tmp_path / "pictures/a.jpg"}


@pytest.mark.parametrize(
    "change",
    [
        {"time": "now"},
        {"brightness": float("nan")},
        {"layout": [1, 2]},
        {"likeness": "zz"},
        {"likeness": "00"},
        {"scores": [0.5, 0.5]},
        {"classes": ["cat"]},
        {"areas": None},
        {"contrast": 10**400},
    ],
)
def test_a_line_that_says_something_else_is_passed_over_and_counted(tmp_path, change):
    usage = read_usage(write(tmp_path, [row(1), {**row(2), **change}, row(3)]))
    assert ([each["time"] for each in usage.rows], usage.broken) == ([1, 3], 1)


def test_files_that_are_no_logs_are_counted_by_their_lines(tmp_path):
    write(tmp_path, [row(1)])
    (tmp_path / "log-2.jsonl").write_bytes(b"\xff\xfe\n" + b"[" * 100_000 + b"\n3\n")
    (tmp_path / "log-3.jsonl").touch()
    usage = read_usage(tmp_path)
    assert (len(usage.rows), usage.broken) == (1, 3)


def test_a_log_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "log-1.jsonl").mkdir()
    with pytest.raises(DataError) as told:
        read_usage(tmp_path)
    assert str(told.value) == (
        f"{tmp_path}/log-1.jsonl: cannot be read: Is a directory.\n"
        "  Move it elsewhere, or let it be read."
    )


def test_where_several_models_served_the_logs_of_the_one_asked_for_are_taken(tmp_path):
    write(tmp_path, [row(1)], "log-1.jsonl", {**HEAD, "run": "a"})
    write(tmp_path, [row(2)], "log-2.jsonl", {**HEAD, "run": "b", "classes": ["bird"]})
    write(tmp_path, [row(3)], "log-3.jsonl", {**HEAD, "run": "a"})
    usage = read_usage(tmp_path, "a")
    assert ([each["time"] for each in usage.rows], usage.runs) == ([1, 3], ("a",))


def test_a_folder_without_a_log_is_told(tmp_path):
    with pytest.raises(DataError) as told:
        read_usage(tmp_path)
    assert str(told.value) == (
        f"{tmp_path}: holds no log.\n  Name a folder that odtrain serve serve.log=DIR has written."
    )


def test_an_empty_log_is_told(tmp_path):
    with pytest.raises(DataError, match="holds logs in which no picture is\\.\n"):
        read_usage(write(tmp_path, []))


def test_a_log_of_nothing_but_rubbish_is_told(tmp_path):
    (tmp_path / "log-1.jsonl").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"no picture is\. 2 lines cannot be read\."):
        read_usage(tmp_path)


def test_logs_of_models_of_other_classes_are_not_joined(tmp_path):
    write(tmp_path, [row(1)])
    write(tmp_path, [row(2)], "log-2.jsonl", {**HEAD, "classes": ["bird"]})
    with pytest.raises(DataError, match="has logs of models of different classes: bird; cat, dog"):
        read_usage(tmp_path)
