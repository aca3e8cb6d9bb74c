"""`python -m odtrain_runtime predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from support.tiny_models import model

from odtrain_runtime import __version__
from odtrain_runtime.__main__ import main

__all__ = ["model"]


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "a picture.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(file)
    return file


def test_each_picture_is_a_line_of_json(model, picture, capsys):
    assert main(["predict", str(model), str(picture), str(picture)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.pop("model_ms") >= 0 for line in lines] == [True, True]
    assert lines == 2 * [
        {
            "picture": str(picture),
            "height": 40,
            "width": 60,
            "boxes": [[0.25, 0.25, 0.75, 0.5], [0.0, 0.5, 0.5, 1.0]],
            "scores": [0.9, 0.6],
            "classes": [1, 2],
            "class_names": ["circle", "square"],
        }
    ]


def test_what_scores_less_than_the_threshold_is_not_told(model, picture, capsys):
    assert main(["predict", str(model), str(picture), "--threshold", "0.8"]) == 0
    assert json.loads(capsys.readouterr().out)["class_names"] == ["circle"]


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_looked_at(
    model, picture, tmp_path, capsys
):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    assert main(["predict", str(model), str(broken), str(picture)]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["picture"] == str(picture)
    assert printed.err == f"{broken}: is empty.\n  Give an undamaged copy of the picture.\n"


def test_a_file_that_is_no_model_is_told_without_a_traceback(picture, capsys):
    assert main(["predict", "nowhere.tflite", str(picture)]) == 1
    assert capsys.readouterr().err == "nowhere.tflite: there is no such file.\n  Check the path.\n"


def test_it_tells_its_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"
