"""HOTA, MOTA and IDF1 of tracks whose scores are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from odtrain.evaluation.tracking import FollowedFrame, score_tracks

pytest.importorskip("trackers", reason="the extra `tracks` is not installed")


def frame(t: int, numbers: list[int], classes: list[int]) -> FollowedFrame:
    boxes = [[0.1, 0.01 * t, 0.2, 0.1 + 0.01 * t], [0.5, 0.5, 0.6, 0.6]][: len(numbers)]
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return FollowedFrame(corners, np.array(numbers, np.int64), np.array(classes, np.int64))


TRUTH = [frame(t, [7, 9], [1, 2]) for t in range(20)]
PERFECT = [(truth, frame(t, [70, 90], [1, 2])) for t, truth in enumerate(TRUTH)]
SWITCHED = [(truth, frame(t, [1, 2 if t < 10 else 3], [1, 2])) for t, truth in enumerate(TRUTH)]
"""The second object has another number from the middle on."""


def test_what_is_followed_without_a_fault_scores_one():
    scores = score_tracks([PERFECT], 100, 0)
    assert scores.values == {
        **dict.fromkeys(("HOTA", "DetA", "AssA", "MOTA", "IDF1"), 1.0),
        **dict.fromkeys(("id_switches", "false_boxes", "missed_boxes"), 0.0),
    }
    assert scores.intervals == {}


def test_a_number_that_changes_costs_association_alone():
    """AssA is the mean over 40 boxes: 20 of an object followed whole, 20 of which half go together."""
    values = score_tracks([SWITCHED], 0, 0).values
    assert values["DetA"] == 1.0
    assert values["AssA"] == pytest.approx((20 * 1 + 20 * 0.5) / 40)
    assert values["HOTA"] == pytest.approx(np.sqrt(0.75))
    assert values["MOTA"] == pytest.approx(1 - 1 / 40)
    assert values["IDF1"] == pytest.approx(30 / 40)
    assert values["id_switches"] == 1


def test_a_box_of_another_class_is_no_hit_and_one_of_any_class_is():
    wrong = [(truth, frame(t, [1, 2], [1, 1])) for t, truth in enumerate(TRUTH)]
    assert score_tracks([wrong], 0, 0).values["missed_boxes"] == 20
    any_class = [(each._replace(classes=np.zeros(2, np.int64)), found) for each, found in wrong]
    assert score_tracks([any_class], 0, 0).values["MOTA"] == 1.0


def test_nothing_found_scores_nothing():
    values = score_tracks([[(truth, frame(0, [], [])) for truth in TRUTH]], 0, 0).values
    assert (values["HOTA"], values["MOTA"], values["missed_boxes"]) == (0.0, 0.0, 40.0)


def test_the_interval_is_over_clips():
    scores = score_tracks([PERFECT, SWITCHED], 200, 0)
    low, high = scores.intervals["IDF1"]
    assert (low, high) == (pytest.approx(0.75), 1.0)
    assert scores.values["IDF1"] == pytest.approx(70 / 80)
    assert [clip["IDF1"] for clip in scores.by_clip] == [1.0, pytest.approx(0.75)]
