"""`odtrain drift`: a log beside what the run was judged on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from support.pictures import SHAPES

from odtrain.cli.main import main
from odtrain.monitoring import drift as drifting
from odtrain_runtime.seen.usage_log import LogSettings, UsageLog
from odtrain_runtime.structures import Detections

NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@pytest.fixture
def run(trained, tmp_path, monkeypatch) -> str:
    """Id of a run in a copy of its folder, where commands are given; few pictures are enough."""
    shutil.copytree(trained.folder, tmp_path / "again")
    monkeypatch.chdir(tmp_path / "again")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(drifting, "FEWEST", 2)
    return trained.run.name


def logged(
    folder: Path, shapes: Path, change=lambda image: image, names=("circle", "square"), run=""
):
    """A log of all shapes, changed, with the pictures."""
    log = UsageLog(LogSettings(folder, pictures=1.0), "model.tflite", names, run)
    for name in SHAPES:
        with Image.open(shapes / name) as image:
            changed = change(image.convert("RGB"))
        log.add(np.asarray(changed), NOTHING)
        while log._queue.qsize():
            pass
    log.close()
    return folder


def dark(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.2)


def ask(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main(["drift", *map(str, arguments)])
    return status, *capsys.readouterr()


@pytest.mark.slow
def test_darker_pictures_are_told_with_status_three_and_listed_for_labelling(
    capsys, run, shapes, tmp_path
):
    folder = logged(tmp_path / "log", shapes, dark)
    status, out, err = ask(capsys, folder, "--against", run)
    assert status == 3, err
    assert out.startswith("What the model sees has changed (20 pictures against ")
    assert "the light (" in out.splitlines()[0]
    (made,) = (one for one in Path("outputs/Default").iterdir() if (one / "drift").is_dir())
    listed = (made / "drift/pictures.txt").read_text().splitlines()
    assert len(listed) == 20
    assert all(Path(each).is_file() for each in listed)
    assert out.splitlines()[-1] == (
        f"  label what differs   odtrain prelabel source={run} "
        f"input={made.relative_to(Path.cwd()) if made.is_absolute() else made}/drift/pictures.txt"
    )
    content = json.loads((made / "drift/drift.json").read_text())
    assert {one["kind"] for one in content["moved"]} == set(drifting.KINDS)
    assert (made / "drift/drift.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_log_of_another_run_is_told_and_the_reference_is_what_the_run_was_judged_on(
    capsys, run, shapes, tmp_path, monkeypatch
):
    monkeypatch.setattr(drifting, "names_in_run", lambda run, split, runs: list(SHAPES)[:3])
    folder = logged(tmp_path / "log", shapes, run="0123456789abcdef")
    _, out, err = ask(capsys, folder, "--against", run)
    lines = out.splitlines()
    assert f"(20 pictures against 3 validation pictures of run {run})" in lines[0], err
    assert lines[1] == (
        "The log is of another model, of run 0123456789abcdef: what is found may differ by that alone."
    )


@pytest.mark.slow
def test_a_log_of_other_classes_is_refused(capsys, run, shapes, tmp_path):
    folder = logged(tmp_path / "log", shapes, names=("cat",))
    status, _, err = ask(capsys, folder, "--against", run)
    assert (status, err.splitlines()[-2:]) == (
        1,
        [
            f"{folder}: was logged of a model of cat; {run} knows circle, square.",
            "  Name the run or model that served: --against RUN.",
        ],
    )


@pytest.mark.slow
def test_too_few_pictures_are_told(capsys, run, shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(drifting, "FEWEST", 30)
    folder = logged(tmp_path / "log", shapes)
    status, _, err = ask(capsys, folder, "--against", run)
    assert (status, err.splitlines()[-2:]) == (
        1,
        [
            f"{folder}: has 20 different pictures; with fewer than 30 nothing is shown.",
            "  Let it serve longer, or name a run with more pictures.",
        ],
    )


def test_without_a_run_to_compare_with_it_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "log"
    UsageLog(LogSettings(folder), "m", ["cat"]).close()
    file = next(folder.glob("log-*"))
    row = {"time": 1, "brightness": 1, "contrast": 1, "sharpness": 1, "layout": [0] * 48}
    row |= {"likeness": "0" * 64, "scores": [], "classes": [], "areas": []}
    file.write_text(file.read_text() + json.dumps(row) + "\n")
    status, _, err = ask(capsys, folder)
    assert (status, err) == (
        1, "--against: is not given.\n  Name the run or the model that served.\n"
    )  # fmt: skip
