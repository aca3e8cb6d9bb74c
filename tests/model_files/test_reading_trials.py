"""Several ways to read a model, tried on labelled pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.onnx_files import SIDE, write_two_boxes

from odtrain.model_files.reading_trials import best_reading
from odtrain.structures import GroundTruth
from odtrain_runtime.model_files import open_model
from odtrain_runtime.others.recognise import recognise

RED = np.zeros((SIDE, SIDE, 3), np.uint8) + np.array([200, 20, 20], np.uint8)
RIGHT, WRONG = (16, 16, 24, 24), (48, 48, 16, 16)
BOX = np.array([[4, 4, 28, 28]], np.float32) / SIDE


def truths(box: np.ndarray, count: int) -> list[GroundTruth]:
    one = GroundTruth("red.jpg", SIDE, SIDE, box, np.ones(1, np.int64))
    return [replace(one, name=f"{i}.jpg") for i in range(count)]


def test_the_way_that_finds_most_is_taken(tmp_path):
    file = write_two_boxes(tmp_path / "model.onnx", WRONG, RIGHT)  # sure of it where blue is
    readings = recognise(open_model(file, 1), {}, ("raccoon",)).readings
    best = best_reading(file, readings, [RED] * 8, truths(BOX, 8), ("raccoon",), False)
    assert (best.reading.head, best.reading.colours) == ("yolo", "bgr")
    assert best.map_50 == pytest.approx(1)


def test_where_no_way_finds_anything_none_is_taken(tmp_path):
    file = write_two_boxes(tmp_path / "model.onnx", WRONG, RIGHT)
    readings = recognise(open_model(file, 1), {}, ("raccoon",)).readings
    elsewhere = np.array([[0.9, 0.9, 1, 1]], np.float32)
    assert best_reading(file, readings, [RED] * 4, truths(elsewhere, 4), ("a",), False) is None
