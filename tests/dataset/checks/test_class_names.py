"""Names of classes that look like slips."""

from __future__ import annotations

from pathlib import Path

import pytest

from odtrain.dataset.checks.class_names import edits, name_findings, slips
from odtrain.labels.annotations import LabelledImage, LabelledObject


def images(**boxes: int) -> list[LabelledImage]:
    """One picture for each box of each class; `_` in a name stands for a blank."""
    box = (0.1, 0.2, 0.5, 0.6)
    return [
        LabelledImage(
            Path(f"{name}{i}.jpg"),
            Path(f"{name}{i}.xml"),
            100,
            100,
            (LabelledObject(name.replace("_", " "), box, False, False),),
        )
        for name, number in boxes.items()
        for i in range(number)
    ]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        pytest.param({"raccoon": 20, "racoon": 2}, {"racoon": ("OD113", "raccoon")}, id="left out"),
        pytest.param(
            {"raccoon": 10, "raccoons": 1}, {"raccoons": ("OD113", "raccoon")}, id="added"
        ),
        pytest.param(
            {"receipt": 10, "reciept": 1}, {"reciept": ("OD113", "receipt")}, id="swapped"
        ),
        pytest.param(
            {"fire_extinguisher": 20, "fire_extingisher": 2},
            {"fire extingisher": ("OD113", "fire extinguisher")},
            id="long",
        ),
        pytest.param({"raccoon": 9, "racoon": 1}, {}, id="not frequent enough"),
        pytest.param({"raccoon": 90, "racoon": 3}, {}, id="not rare enough"),
        pytest.param({"cat": 90, "car": 1}, {}, id="short"),
        pytest.param({"ripe": 50, "unripe": 1}, {}, id="two letters of six"),
        pytest.param({"floor_1": 90, "floor_2": 1, "floor_11": 1}, {}, id="numbers"),
        pytest.param({"Raccoon": 2, "raccoon": 3}, {"Raccoon": ("OD114", "raccoon")}, id="case"),
        pytest.param(
            {"trafficlight": 1, "traffic_light": 3, "Traffic-Light": 2},
            {
                "trafficlight": ("OD114", "traffic light"),
                "Traffic-Light": ("OD114", "traffic light"),
            },
            id="blanks and punctuation",
        ),
        pytest.param({"A": 20, "a": 2}, {}, id="letters as signs"),
    ],
)
def test_a_name_that_looks_like_a_slip_is_known(boxes, expected):
    assert slips(images(**boxes), ()) == expected


def test_names_of_the_label_map_are_meant_as_they_are():
    pictures = images(raccoon=20, racoon=1, Raccoon=30)
    assert slips(pictures, ("raccoon", "racoon")) == {"Raccoon": ("OD114", "raccoon")}


def test_each_box_of_the_name_is_told():
    (first, second) = name_findings(images(raccoon=20, racoon=2), ())
    assert (first.code, first.file, first.box, first.picture, first.cause) == (
        "OD113",
        "racoon0.xml",
        "racoon 20,10,60,50",
        "racoon0.jpg",
        'class "racoon" looks like a misspelling of "raccoon".',
    )
    assert second.file == "racoon1.xml"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("same", "same", 0)],
)
def test_edits_are_counted_with_swaps_as_one(one, other, expected):
    assert edits(one, other) == edits(other, one) == expected
