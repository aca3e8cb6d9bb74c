"""Where a picture was taken, and with whose camera, stays in the picture: nothing that is made tells it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from PIL import Image
from support.commands import TrainedRun
from support.pictures import CAMERA, COMMENT, SHAPES

from odtrain.cli.main import main

TOLD = (CAMERA.encode(), COMMENT.encode())
EMBEDDED = re.compile(rb"data:image/\w+;base64,([A-Za-z0-9+/=]+)")


def telling(folder: Path) -> list[str]:
    """The files below a folder, and pictures in its pages, that have anything of what EXIF said."""
    return [
        str(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and _tells(file.read_bytes())
    ]


def _tells(data: bytes) -> bool:
    parts = [data, *(base64.b64decode(each) for each in EMBEDDED.findall(data))]
    return any(word in part for word in TOLD for part in parts) or any(
        part[:3] == b"\xff\xd8\xff" and b"Exif\0\0" in part for part in parts
    )


def test_the_pictures_that_are_trained_on_have_it(shapes):
    with Image.open(shapes / SHAPES[1]) as image:
        assert image.getexif()[0x0110] == CAMERA
    assert len(telling(shapes)) == 16


@pytest.mark.slow
def test_no_file_of_a_run_and_nothing_that_was_logged_tells_it(trained: TrainedRun):
    made = [each for each in trained.folder.iterdir() if each.name != "datasets"]
    assert {"outputs", "mlartifacts"} <= {each.name for each in made}
    assert [file for each in made if each.is_dir() for file in telling(each)] == []


@pytest.mark.slow
def test_no_drawn_picture_and_no_page_tells_it(shapes, trained: TrainedRun, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.folder)
    model, here = trained.run / "export/model.tflite", tmp_path
    assert main(["predict", f"source={model}", f"input={shapes}", f"output={here}/drawn"]) == 0
    assert len(list((here / "drawn/drawn").iterdir())) == 20
    to = [f"tracking.uri={trained.uri}", "--to", f"{here}/report.html"]
    assert main(["report", trained.run.name, *to]) == 0
    data = [f"data.images={shapes}", "data.name=shapes"]
    assert main(["check", *data, "--html", f"{here}/findings.html"]) == 0
    assert telling(tmp_path) == []
