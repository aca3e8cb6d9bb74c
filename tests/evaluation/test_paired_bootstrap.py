from __future__ import annotations

import numpy as np
import pytest

from odtrain.errors import DataError
from odtrain.evaluation.evaluate import evaluate, quick_map
from odtrain.evaluation.matching import draw_resamples
from odtrain.evaluation.paired_bootstrap import Comparison, Difference, compare_detections, in_words
from odtrain.structures import Detections, GroundTruth

NAMES = ("circle", "square")


def pictures(count: int, seed: int) -> list[GroundTruth]:
    """Pictures with one to three boxes of two classes."""
    rng = np.random.default_rng(seed)
    truths = []
    for i in range(count):
        n = int(rng.integers(1, 4))
        corner = rng.uniform(0, 0.6, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (n, 2))], axis=1)
        classes = rng.integers(1, 3, n)
        truths.append(GroundTruth(f"{i}.jpg", 100, 120, boxes.astype(np.float32), classes))
    return truths


def found(truths: list[GroundTruth], noise: float, seed: int) -> list[Detections]:
    """Each box, moved by `noise`, and two inventions a picture."""
    rng = np.random.default_rng(seed)
    detections = []
    for truth in truths:
        n = len(truth.classes)
        moved = truth.boxes + rng.normal(0, noise, (n, 4))
        invented = np.sort(rng.uniform(0, 1, (2, 2, 2)), axis=1).reshape(2, 4)
        scores = np.concatenate([rng.uniform(0.3, 1, n), rng.uniform(0, 0.6, 2)])
        order = np.argsort(-scores)
        boxes = np.concatenate([moved, invented]).astype(np.float32)[order]
        classes = np.concatenate([truth.classes, rng.integers(1, 3, 2)])[order]
        detections.append(Detections(boxes, scores.astype(np.float32)[order], classes))
    return detections


@pytest.fixture(scope="module")
def truths() -> list[GroundTruth]:
    return pictures(30, 1)


@pytest.fixture(scope="module")
def sharp(truths):
    return found(truths, 0.01, 2)


@pytest.fixture(scope="module")
def blurred(truths):
    return found(truths, 0.04, 3)


def test_both_sides_have_the_numbers_of_their_own_evaluation(truths, sharp, blurred):
    both = compare_detections(truths, sharp, blurred, NAMES, 10, 0)
    for side, detections in (("a", sharp), ("b", blurred)):
        alone = evaluate(truths, detections, NAMES, 0, 0).metrics
        for name in ("mAP", "mAP_50", "mAP_75"):
            assert getattr(both.overall[name], side) == pytest.approx(alone[name], abs=1e-9)
        for row in both.classes:
            assert getattr(row, side) == pytest.approx(alone[f"AP/{row.name}"], abs=1e-9)


def test_the_interval_is_that_of_evaluating_the_drawn_pictures_again(truths, sharp, blurred):
    """What the weights compute is what COCO's evaluation of the repeated pictures gives."""
    leads = []
    for weights in draw_resamples(len(truths), 12, 5):
        drawn = np.repeat(np.arange(len(truths)), weights)
        again = [truths[i] for i in drawn]
        scores = [
            quick_map(again, [side[i] for i in drawn], NAMES)["mAP"] for side in (sharp, blurred)
        ]
        leads.append(scores[1] - scores[0])
    row = compare_detections(truths, sharp, blurred, NAMES, 12, 5).overall["mAP"]
    assert (row.low, row.high) == pytest.approx(np.quantile(leads, [0.025, 0.975]), abs=1e-9)
    assert row.b_better == np.mean(np.array(leads) > 0)


def test_the_same_detections_do_not_differ(truths, sharp):
    row = compare_detections(truths, sharp, sharp, NAMES, 50, 0).overall["mAP"]
    assert (row.change, row.low, row.high, row.b_better) == (0, 0, 0, 0.5)
    assert not row.shown


def test_changing_sides_changes_signs_alone(truths, sharp, blurred):
    there = compare_detections(truths, sharp, blurred, NAMES, 200, 0).overall["mAP"]
    back = compare_detections(truths, blurred, sharp, NAMES, 200, 0).overall["mAP"]
    assert there.shown and there.high < 0
    assert (back.change, back.low, back.high) == pytest.approx(
        (-there.change, -there.high, -there.low)
    )


def test_pairing_shows_what_two_separate_intervals_do_not(truths):
    """Half of the pictures are hard for both sides: between pictures there is more than between sides."""
    hard = [i % 2 == 0 for i in range(len(truths))]
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    a, b = (
        [empty if h else f for h, f in zip(hard, found(truths, noise, 4), strict=True)]
        for noise in (0.02, 0.01)
    )
    apart = [evaluate(truths, side, NAMES, 300, 0).metrics for side in (a, b)]
    assert apart[0]["mAP_hi"] > apart[1]["mAP_lo"]
    assert compare_detections(truths, a, b, NAMES, 300, 0).overall["mAP"].shown


def test_a_class_without_boxes_has_no_difference(truths, sharp, blurred):
    third = compare_detections(truths, sharp, blurred, (*NAMES, "star"), 20, 0).classes[2]
    assert third == Difference("star", None, None, None, None, None, 0)


def test_one_picture_gives_no_interval(truths, sharp, blurred):
    one = compare_detections(truths[:1], sharp[:1], blurred[:1], NAMES, 100, 0)
    assert one.overall["mAP"].low is None
    assert one.bootstrap == 0


def test_no_picture_is_an_error():
    with pytest.raises(DataError):
        compare_detections([], [], [], NAMES, 100, 0)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((0.5, 0.531, -0.02, 0.084), "B better by 3.1 mAP [-2.0, 8.4]: not shown on 40 pictures"),
        ((0.5, 0.55, 0.012, 0.084), "B better by 5.0 mAP [1.2, 8.4]: shown on 40 pictures"),
        ((0.55, 0.5, -0.084, -0.012), "A better by 5.0 mAP [1.2, 8.4]: shown on 40 pictures"),
        ((0.55, 0.5, -0.084, 0.02), "A better by 5.0 mAP [-2.0, 8.4]: not shown on 40 pictures"),
        ((0.5, 0.5, 0.0, 0.0), "no difference in mAP [0.0, 0.0]: not shown on 40 pictures"),
        ((0.5, 0.6, None, None), "B better by 10.0 mAP; 40 pictures give no interval"),
        ((None, None, None, None), "mAP is undefined: there is no box to find"),
    ],
)
def test_the_answer_in_words(row, words):
    assert in_words(Difference("mAP", *row, 0.5, 40), 40) == words


def test_metrics_are_named_for_mlflow():
    rows = {"mAP": Difference("mAP", 0.5, 0.75, 0.125, 0.375, 1.0, 3)}
    classes = (Difference("circle", None, None, None, None, None, 0),)
    assert Comparison(3, 10, rows, classes).metrics() == {
        "compare/mAP": 0.25,
        "compare/mAP_lo": 0.125,
        "compare/mAP_hi": 0.375,
    }


def test_a_class_that_is_called_like_the_end_of_an_interval_has_a_key_of_its_own():
    classes = tuple(
        Difference(name, 0.1, 0.1 + gain, gain - 0.05, gain + 0.05, 1.0, 3)
        for name, gain in (("light", 0.2), ("light_lo", 0.4))
    )
    values = Comparison(3, 10, {}, classes).metrics()
    assert {key: round(value, 3) for key, value in values.items()} == {
        "compare/AP/light": 0.2,
        "compare/AP/light_lo_": 0.15,
        "compare/AP/light_hi": 0.25,
        "compare/AP/light_lo": 0.4,
        "compare/AP/light_lo_lo": 0.35,
        "compare/AP/light_lo_hi": 0.45,
    }
