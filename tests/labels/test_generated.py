"""Generated label files, broken in one place, of every format."""

from __future__ import annotations

import pytest
from support import generated_labels
from support.generated_labels import FORMATS, Item, boxes, run

from odtrain.labels.formats import recognise

PICTURES = [
    [Item("cat", (1, 2, 30, 40)), Item("dog", (5, 6, 7, 8))],
    [],
    [Item("cat", (0, 0, 9, 9))],
]


def test_every_format_is_generated():
    assert {*FORMATS} == {*recognise.FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_generated_is_valid_and_read_whole(tmp_path, name):
    written = FORMATS[name].write(PICTURES)
    data = generated_labels._whole(written, ("none", 0.0, 1, b""))
    found = list(boxes(name, data, tmp_path))
    of_one = name in ("voc", "yolo", "labelme")
    times = 2 if name == "cvat" else 1  # as pictures and as frames
    assert len(found) == (2 if of_one else 3 * times)


@pytest.mark.parametrize("name", FORMATS)
def test_no_generated_file_harms_or_gives_a_box_that_is_not_in_it(tmp_path, name):
    run(name, 8, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_no_generated_file_of_500_harms_or_gives_a_box_that_is_not_in_it(tmp_path, name):
    run(name, 500, tmp_path)


def test_a_box_that_is_not_in_the_file_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "odtrain.labels.formats.csv_table.number", lambda text: float(text) + 0.5 if text else None
    )
    with pytest.raises(AssertionError):
        run("csv", 25, tmp_path)
