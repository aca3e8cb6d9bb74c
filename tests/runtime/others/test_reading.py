"""source.yaml: what it may say, and what is said of it where it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others.reading import CHECKS, Reading, read_settings

DESCRIBED = "docs/other_models.md describes the keys of source.yaml."


def written(folder: Path, text: str) -> Path:
    (folder / "source.yaml").write_text(text, encoding="utf-8")
    return folder


def test_without_the_file_nothing_is_said(tmp_path):
    assert read_settings(tmp_path) == {}


def test_values_are_of_their_keys_types(tmp_path):
    text = "head: yolo\nclasses: {0: cat, 1: dog}\nsize: 320\nmean: [1, 2, 3]\nfill: 0\n"
    assert read_settings(written(tmp_path, text)) == {
        "head": "yolo",
        "classes": ("cat", "dog"),
        "num_classes": 2,
        "size": (320, 320),
        "mean": (1.0, 2.0, 3.0),
        "fill": (0, 0, 0),
    }


def test_anchors_stand_in_a_file_beside_it(tmp_path):
    (tmp_path / "anchors.csv").write_text("0,0,0.5,0.5\n0.5 0.5 1 1\n")
    settings = read_settings(written(tmp_path, "anchors: anchors.csv"))
    assert settings == {"anchors": ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0))}


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("head: yolo9", "head: yolo9 is not one of detections, yolo, yolov5, yolox, ", DESCRIBED),
        ("heads: yolo", "has no key heads.", f"Keys are: {', '.join(sorted(CHECKS))}."),
        ("- yolo", "is no table of keys and values.", DESCRIBED),
        ("head: [", "cannot be read: while parsing a flow node", DESCRIBED),
        ("fill: 300", "fill: 300 is not from 0 to 255.", DESCRIBED),
        ("fill: 1.5", "fill: 1.5 is no whole number.", DESCRIBED),
        ("mean: [1, 2]", "mean: 2 values; there are 3.", DESCRIBED),
        ("mean: .inf", "mean: inf is not from -1e+06 to 1e+06.", DESCRIBED),
        ("classes: {1: cat}", "classes: the numbers of classes begin at 0 and have no", DESCRIBED),
        ("classes: cat", "classes: is no list of class names.", DESCRIBED),
        ("background: maybe", "background: maybe is neither true nor false.", DESCRIBED),
        ("anchors: ../a.csv", "anchors: there is no ../a.csv beside it.", DESCRIBED),
        ("anchors: [[1, 2]]", "anchors: an anchor has four numbers: ymin, xmin, ymax", DESCRIBED),
        ("size: {}", "size: float() argument must be a string or a real number", DESCRIBED),
        ("!!python/object:os.x {}", "cannot be read: could not determine a constructor", DESCRIBED),
    ],
)
def test_what_is_not_so_is_told_with_the_key(tmp_path, text, problem, remedy):
    with pytest.raises(ModelFileError) as error:
        read_settings(written(tmp_path, text))
    shown = str(error.value)
    assert shown.startswith(f"{tmp_path / 'source.yaml'}: {problem}")
    assert shown.endswith(f"\n  {remedy}")


def test_a_reading_comes_back_from_json_as_it_went():
    how = Reading("ssd", ("cat",), 1, (300, 300), anchors=((0.0, 0.1, 0.2, 0.3),), scale=1 / 127.5)
    assert Reading.from_json(how.as_json()) == how
