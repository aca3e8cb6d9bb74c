"""Tracks that were labelled in videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from odtrain.errors import DataError
from odtrain.labels.tracks import TrackBox, read_tracks

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<track id="4" label="cat" source="manual">
  <box frame="0" outside="0" occluded="0" xtl="1.5" ytl="2" xbr="11.5" ybr="12"></box>
  <box frame="1" outside="1" occluded="0" xtl="1.5" ytl="2" xbr="11.5" ybr="12"></box>
</track>
<track id="5" label="dog"><box frame="1" outside="0" occluded="1" xtl="0" ytl="0" xbr="4" ybr="5"/></track>
</annotations>
"""


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_mot_text_counts_frames_from_one_and_leaves_out_what_is_not_to_judge_by(tmp_path):
    text = "1,7,10,20,30,40,1,2,0.5\n\n1,8,0,0,5,5,0,1,1\n2,7,11,20,30,40\n"
    assert read_tracks(written(tmp_path, "gt.txt", text), ("a", "b")) == [
        TrackBox(0, 7, 2, 10, 20, 40, 60),
        TrackBox(1, 7, 0, 11, 20, 41, 60),
    ]


def test_cvat_s_tracks_are_read_but_where_they_are_outside(tmp_path):
    assert read_tracks(written(tmp_path, "a.xml", CVAT), ("cat", "dog")) == [
        TrackBox(0, 4, 1, 1.5, 2, 11.5, 12),
        TrackBox(1, 5, 2, 0, 0, 4, 5),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "gt.txt",
            "1,7,10,20\n",
            ":1: is no line of MOT text.\n"
            "  Give frame (from 1), track, left, top, width, height, and, if known, 0 or 1 and a class id.",
        ),
        (
            "gt.txt",
            "0,7,10,20,3,3\n",
            ":1: is no line of MOT text.\n"
            "  Give frame (from 1), track, left, top, width, height, and, if known, 0 or 1 and a class id.",
        ),
        (
            "gt.txt",
            "1,7,1,2,3,4,1,9\n",
            ":1: has the class 9; the model knows 2.\n  Give the model's class ids, from 1, or -1.",
        ),
        (
            "gt.txt",
            "1,7,1,2,3,4\n1,7,5,5,5,5\n",
            ": track 7 is twice in frame 1 (from 1).\n  Give each object of a frame a number of its own.",
        ),
        ("gt.txt", "\n", ": names no object.\n  Give the labels of the video."),
        (
            "a.xml",
            CVAT.replace("dog", "cow"),
            ": has the class cow; the model knows cat, dog.\n"
            "  Evaluate a model with the classes of the labels.",
        ),
        (
            "a.xml",
            CVAT.replace('xtl="0" ', ""),
            ": box of track 5 lacks a frame or a side.\n  Export it again from CVAT, or delete it.",
        ),
        (
            "a.xml",
            "<annotations",
            ": is not XML: line 1, column 13: a tag lacks its >.\n"
            "  Export it again from CVAT, or delete it.",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_told_of(tmp_path, name, text, said):
    file = written(tmp_path, name, text)
    with pytest.raises(DataError) as refused:
        read_tracks(file, ("cat", "dog"))
    assert str(refused.value) == f"{file}{said}"
