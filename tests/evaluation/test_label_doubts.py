"""Which labels a detector doubts, kind by kind."""

from __future__ import annotations

import numpy as np
import pytest

from odtrain.evaluation.label_doubts import Doubt, label_doubts
from odtrain.structures import Detections, GroundTruth

Box = tuple[float, float, float, float]
HERE: Box = (0.2, 0.2, 0.4, 0.4)
ASIDE: Box = (0.2, 0.3, 0.4, 0.5)
"""Overlaps HERE by an IoU of 1/3."""
THERE: Box = (0.6, 0.6, 0.8, 0.8)


def doubts(labels: list[tuple[Box, int]], found: list[tuple[Box, int, float]]) -> list[Doubt]:
    """Of one picture: boxes with classes, and detections with scores too."""
    truth = GroundTruth(
        "a.jpg", 100, 100,
        np.array([box for box, _ in labels], np.float32).reshape(-1, 4),
        np.array([number for _, number in labels], np.int64),
    )  # fmt: skip
    seen = Detections(
        np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in found], np.float32),
        np.array([number for _, number, _ in found], np.int64),
    )
    return label_doubts([truth], [seen])


def told(found: list[Doubt]) -> list[tuple[str, int | None, int, float]]:
    return [(each.kind, each.label, each.found, round(each.doubt, 3)) for each in found]


def test_labels_that_are_seen_as_they_are_have_no_doubt_to_speak_of():
    found = doubts([(HERE, 1), (THERE, 2)], [(HERE, 1, 0.9), (THERE, 2, 0.8)])
    assert told(found) == [("badly placed", 0, 0, 0.0), ("badly placed", 1, 1, 0.0)]


def test_a_detection_without_a_label_is_an_overlooked_object():
    found = doubts([(HERE, 1)], [(HERE, 1, 0.9), (THERE, 1, 0.8)])
    assert told(found)[0] == ("overlooked", None, 1, 0.8)


def test_an_object_is_overlooked_once_however_often_it_is_found():
    again = (0.6, 0.6, 0.8, 0.79)
    found = doubts([], [(THERE, 1, 0.8), (again, 1, 0.7), (again, 2, 0.6)])
    assert told(found) == [("overlooked", None, 0, 0.8)]


def test_what_overlaps_a_label_of_another_class_is_not_overlooked():
    kinds = {each.kind for each in doubts([(HERE, 1)], [(HERE, 2, 0.9)])}
    assert kinds == {"wrong class"}


def test_a_box_is_doubted_by_what_it_does_not_share_with_its_objects_detection():
    found = doubts([(HERE, 1)], [(ASIDE, 1, 0.9)])
    assert told(found) == [("badly placed", 0, 0, 0.632)]  # the root of 0.9, x (1 - 1/3)


def test_a_detection_speaks_for_one_label():
    neighbour: Box = (0.2, 0.32, 0.4, 0.52)
    found = doubts([(HERE, 1), (neighbour, 1)], [(ASIDE, 1, 0.9), (HERE, 1, 0.5)])
    assert {(label, seen) for _, label, seen, _ in told(found)} == {(0, 1), (1, 0)}


def test_a_label_that_nothing_is_seen_of_is_not_doubted():
    assert doubts([(HERE, 1)], []) == []


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [(0.1, 0.9, [("wrong class", 0, 1, 0.8)]), (0.9, 0.1, []), (0.5, 0.5, [])],
)
def test_a_class_is_doubted_by_how_much_surer_another_is(own, other, expected):
    found = doubts([(HERE, 1)], [(HERE, 1, own), (HERE, 2, other)])
    assert [each for each in told(found) if each[0] == "wrong class"] == expected


def test_another_class_beside_it_is_no_wrong_class():
    found = doubts([(HERE, 1)], [(ASIDE, 2, 0.9)])
    assert "wrong class" not in {each.kind for each in found}


def test_the_strongest_doubt_comes_first():
    found = doubts([(HERE, 1)], [(ASIDE, 1, 0.9), (THERE, 1, 0.95)])
    assert [each.kind for each in found] == ["overlooked", "badly placed"]
