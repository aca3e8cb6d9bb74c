"""Class names that move a terminal's cursor or end a line, from a label map to all that shows them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.pictures import label_picture
from support.tiny_models import model

from odtrain.cli.main import main
from odtrain_runtime.plain import UNSEEN_IN_LINES

__all__ = ["model"]

pytestmark = pytest.mark.slow

LISTS = {
    "labels.txt": ("cir\x1b[31mcle\nsquare\n", "cir\x1b[31mcle"),
    "map.pbtxt": (
        r"item { id: 1 name: 'cir\033[31m\ncle' } item { id: 2 name: 'square' }",
        "cir\x1b[31m cle",
    ),
}
"""What each file holds, and how its first class is called."""


@pytest.fixture(params=LISTS)
def given(request, new, model):
    """Settings that name classes so, and the first of them."""
    text, name = LISTS[request.param]
    Path(request.param).write_text(text)
    for seed in range(4):
        label_picture(Path(f"pics/{seed}.jpg"), (64, 48), [("square", 32, 0, 63, 24)], seed=seed)
    return [f"source={model}", f"predict.label_map={request.param}"], name


def is_plain(text: str) -> bool:
    return not UNSEEN_IN_LINES.search(text.replace("\r", ""))


def test_predicting_shows_them_and_does_nothing_that_they_say(given, capfd):
    settings, name = given
    assert main(["predict", *settings, "input=pics/0.jpg", "output=out"]) == 0
    written = Path("out/predictions.csv").read_text()
    assert "\\x1b[31m" in written
    said = capfd.readouterr()
    for text in (said.out, said.err, written, Path("out/predictions.json").read_text()):
        assert is_plain(text)
    rows = list(csv.reader(written.splitlines()))
    assert [row[3] for row in rows[1:]] == ["'\\" + name.replace("\x1b", "\\x1b"), "square"]


def test_evaluating_shows_them_and_does_nothing_that_they_say(given, capfd):
    settings, name = given
    data = ["data.images=pics", "data.name=pics", "data.label_map=classes.pbtxt"]
    text = LISTS["map.pbtxt"][0]
    Path("classes.pbtxt").write_text(text if " " in name else text.replace(r"\n", ""))
    assert main(["evaluate", *settings, *data, "evaluate.bootstrap=0"]) == 0
    (run,) = Path("outputs/Default").iterdir()
    assert main(["report", run.name, "--to", "report.html"]) == 0
    said = capfd.readouterr()
    files = [run / "eval/per_class.csv", run / "run.log", Path("report.html")]
    for text in (said.out, said.err, *(file.read_text() for file in files)):
        assert is_plain(text)
    assert name.replace("\x1b", "\\x1b") in files[2].read_text()
