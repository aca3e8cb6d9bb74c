"""Where scores of trainings on parts of the data lead."""

from __future__ import annotations

import numpy as np
import pytest

from odtrain.evaluation.learning_curve import extrapolated, learning_curves
from odtrain.structures import Detections, GroundTruth

BOX = np.array([[0.2, 0.2, 0.6, 0.6]], np.float32)


@pytest.mark.parametrize("slope", [0.2, 0.5, 1.0])
def test_a_power_law_is_gone_on_with(slope):
    sizes = (50, 100, 200)
    scores = np.array([[1 - 2 * n**-slope] for n in sizes])
    assert extrapolated(sizes, scores)[0] == pytest.approx(1 - 2 * 400**-slope)


def test_scores_that_fall_by_chance_promise_no_loss():
    assert extrapolated((50, 100), np.array([[0.5], [0.4]]))[0] == pytest.approx(0.4)


def test_a_perfect_score_stays_one():
    assert extrapolated((50, 100), np.array([[0.9], [1.0]]))[0] == pytest.approx(1.0)


def picture(number: int, class_id: int) -> GroundTruth:
    return GroundTruth(f"{number}.jpg", 100, 100, BOX, np.array([class_id], np.int64))


def seen(class_id: int, hit: bool) -> Detections:
    box = BOX if hit else BOX + 0.4
    return Detections(box, np.array([0.9], np.float32), np.array([class_id], np.int64))


@pytest.fixture
def curves():
    """Of 12 pictures, 6 a class: cats are found in half, then all, dogs in a third, then a half."""
    truths = [picture(i, 1 + i % 2) for i in range(12)]
    shares = {10: {1: 3, 2: 2}, 20: {1: 6, 2: 3}}
    found = {
        size: [seen(1 + i % 2, i // 2 < hits[1 + i % 2]) for i in range(12)]
        for size, hits in shares.items()
    }
    return learning_curves(truths, found, ["cat", "dog", "horse"], bootstrap=200, seed=0)


def test_map_comes_first_and_then_the_class_that_gains_most(curves):
    assert [each.name for each in curves] == ["mAP", "dog", "cat"]
    assert curves[1].gain > curves[2].gain == pytest.approx(0, abs=1e-3)


def test_a_class_that_no_test_picture_shows_has_no_curve(curves):
    assert "horse" not in [each.name for each in curves]


def test_scores_and_pictures_are_those_of_the_trainings(curves):
    overall = curves[0]
    assert overall.pictures == (10, 20)
    mean = [(a + b) / 2 for a, b in zip(curves[1].scores, curves[2].scores, strict=True)]
    assert overall.scores == pytest.approx(mean)


def test_the_interval_holds_what_is_expected(curves):
    overall = curves[0]
    assert overall.low < overall.gain < overall.high


def test_without_resamples_there_is_no_interval():
    truths, found = [picture(0, 1)], {n: [seen(1, True)] for n in (10, 20)}
    (overall, _) = learning_curves(truths, found, ["cat"], bootstrap=0, seed=0)
    assert (overall.low, overall.high) == (None, None)
