from __future__ import annotations

import contextlib
import csv
import gc
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from odtrain.errors import DataError
from odtrain.evaluation import matching
from odtrain.evaluation.evaluate import (
    check_evaluator,
    evaluate,
    operating_thresholds,
    quick_map,
)
from odtrain.reports.evaluation_report import write_report
from odtrain.structures import Detections, GroundTruth, UInt8Image
from odtrain.tracking.names import key_name
from tests.conftest import SHARED

Scene = tuple[list[GroundTruth], list[Detections]]

TWELVE = (
    "mAP",
    "mAP_50",
    "mAP_75",
    "mAP_small",
    "mAP_medium",
    "mAP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)
THREE = ("circle", "square", "star")


def truth(name: str, boxes: Any, classes: Any, size: tuple[int, int] = (200, 400)) -> GroundTruth:
    """Ground truth from (N, 4) yxyx pixels."""
    pixels = np.array(boxes, np.float64).reshape(-1, 4)
    fractions = (pixels / np.array([*size, *size])).astype(np.float32)
    return GroundTruth(name, *size, fractions, np.array(classes, np.int64).reshape(-1))


def found(boxes: Any, scores: Any, classes: Any, size: tuple[int, int] = (200, 400)) -> Detections:
    """Detections from (N, 4) yxyx pixels."""
    at = truth("", boxes, classes, size)
    return Detections(at.boxes, np.array(scores, np.float32).reshape(-1), at.classes)


def scene(seed: int, pictures: int = 30, classes: int = 3, decimals: int = 2) -> Scene:
    """Boxes of all sizes in whole pixels; detections near them, of a wrong class, or made up."""
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for i in range(pictures):
        size = int(rng.integers(200, 800)), int(rng.integers(200, 800))
        count = int(rng.integers(0, 9))
        corners = rng.integers(0, 100, (count, 2))
        sides = rng.integers(8, 100, (count, 2)) * rng.choice([1, 1, 3], (count, 1))
        boxes = np.minimum(np.concatenate([corners, corners + sides], axis=1), [*size, *size])
        ids = rng.integers(1, classes + 1, count)
        truths.append(truth(f"{i}.jpg", boxes, ids, size))
        near = np.repeat(boxes, 4, axis=0) + rng.normal(0, 6, (4 * count, 4))
        guesses = np.concatenate([near, rng.uniform(0, 200, (10, 4))]).reshape(-1, 2, 2)
        named = np.concatenate([np.repeat(ids, 4), rng.integers(1, classes + 1, 10)])
        other = rng.random(len(named)) < 0.2
        named[other] = rng.integers(1, classes + 1, other.sum())
        scores = np.sort(rng.random(len(named)).round(decimals))[::-1]  # two decimals: ties
        detections.append(found(np.sort(guesses, axis=1), scores, named, size))
    return truths, detections


def perturbed(truths: list[GroundTruth], seed: int) -> list[Detections]:
    """Detections near the boxes, and ten elsewhere in every picture."""
    rng = np.random.default_rng(seed)
    detections = []
    for at in truths:
        sides = np.tile(at.boxes[:, 2:] - at.boxes[:, :2], 2)
        near = at.boxes + rng.normal(0, 0.07, sides.shape) * sides
        far = rng.uniform((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), (10, 4))
        scores = np.concatenate([rng.beta(5, 2, len(near)), rng.beta(1, 5, 10)])
        classes = np.concatenate([at.classes, np.ones(10, np.int64)])
        boxes = np.concatenate([near, far]).astype(np.float32)
        detections.append(Detections(boxes, scores.astype(np.float32), classes))
    return detections


def pycocotools_twelve(truths: list[GroundTruth], detections: list[Detections]) -> list[float]:
    """COCO's reference evaluator, fed by a conversion of the test's own."""
    coco = pytest.importorskip("pycocotools.coco", reason="compares with pycocotools")
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason="compares with pycocotools")

    def rows(items: Any, whole: bool) -> list[dict[str, Any]]:
        result = []
        for i, (at, item) in enumerate(zip(truths, items, strict=True)):
            for k, (y0, x0, y1, x1) in enumerate(item.boxes.astype(np.float64).tolist()):
                x0, x1, y0, y1 = x0 * at.width, x1 * at.width, y0 * at.height, y1 * at.height
                if whole:
                    x0, x1, y0, y1 = round(x0), round(x1), round(y0), round(y1)
                row = {"image_id": i, "category_id": int(item.classes[k]), "iscrowd": 0}
                row |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                result.append(row | {"id": len(result) + 1})
        return result

    results = rows(detections, whole=False)
    scores = np.concatenate([d.scores for d in detections]).tolist()
    for row, score in zip(results, scores, strict=True):
        row["score"] = score
    ids = sorted({int(c) for t in truths for c in t.classes})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "annotations": rows(truths, whole=True),
            "categories": [{"id": class_id} for class_id in ids],
        }
        reference.createIndex()
        run = cocoeval.COCOeval(reference, reference.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(number) for number in run.stats]


@pytest.fixture(scope="module")
def raccoons() -> list[GroundTruth]:
    """The 40 test pictures of the raccoon data."""
    labels = SHARED / "data" / "raccoon" / "data" / "test_labels.csv"
    if not labels.is_file():
        pytest.skip(f"needs the real data beside the project: {labels} is not there")
    by_name: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(labels.read_text().splitlines()):
        by_name.setdefault(row["filename"], []).append(row)
    return [
        truth(
            name,
            [[int(row[key]) for key in ("ymin", "xmin", "ymax", "xmax")] for row in rows],
            [1] * len(rows),
            (int(rows[0]["height"]), int(rows[0]["width"])),
        )
        for name, rows in by_name.items()
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_twelve_numbers_equal_those_of_pycocotools(seed):
    truths, detections = scene(seed)
    metrics = evaluate(truths, detections, THREE, bootstrap=0, seed=0).metrics
    expected = pycocotools_twelve(truths, detections)
    assert [metrics[name] for name in TWELVE] == pytest.approx(expected, abs=1e-12)


def test_the_twelve_numbers_equal_those_of_pycocotools_on_raccoons(raccoons):
    detections = perturbed(raccoons, seed=0)
    evaluation = evaluate(raccoons, detections, ("raccoon",), bootstrap=0, seed=0)
    found_numbers = [evaluation.metrics.get(name, -1) for name in TWELVE]
    expected = pycocotools_twelve(raccoons, detections)
    assert found_numbers == pytest.approx(expected, abs=1e-12)
    assert 0.3 < evaluation.metrics["mAP"] < 0.8


def test_ap_of_a_class_is_that_of_its_boxes_alone():
    truths, detections = scene(0)
    only = [
        (
            GroundTruth(
                t.name, t.height, t.width, t.boxes[t.classes == 2], t.classes[t.classes == 2]
            ),
            Detections(*(a[d.classes == 2] for a in (d.boxes, d.scores, d.classes))),
        )
        for t, d in zip(truths, detections, strict=True)
    ]
    expected = pycocotools_twelve([t for t, _ in only], [d for _, d in only])[0]
    metrics = evaluate(truths, detections, THREE, bootstrap=0, seed=0).metrics
    assert metrics["AP/square"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("side", "sizes"),
    [
        pytest.param(31, {"mAP_small"}, id="31 x 31"),
        pytest.param(32, {"mAP_small", "mAP_medium"}, id="32 x 32"),
        pytest.param(33, {"mAP_medium"}, id="33 x 33"),
        pytest.param(96, {"mAP_medium", "mAP_large"}, id="96 x 96"),
        pytest.param(97, {"mAP_large"}, id="97 x 97"),
    ],
)
def test_the_size_of_a_box_is_that_in_pixels_of_the_original_picture(side, sizes):
    box = [[7, 11, 7 + side, 11 + side]]
    truths = [truth("a.jpg", box, [1], (613, 427))]
    metrics = evaluate(truths, [found(box, [0.9], [1], (613, 427))], ("a",), 0, 0).metrics
    assert {name for name in metrics if name in TWELVE[3:6]} == sizes


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_from_the_matches_equals_coco(seed):
    truths, detections = scene(seed, classes=5)
    evaluation = evaluate(truths, detections, "abcde", bootstrap=0, seed=0)
    every_picture_once = np.ones((1, len(truths)), np.int64)
    (fast,) = matching.mean_average_precision(evaluation.matches, every_picture_once)
    assert fast == pytest.approx(evaluation.metrics["mAP"], abs=1e-9)


def test_average_precision_of_a_resample_equals_coco_on_the_repeated_pictures():
    truths, detections = scene(1, decimals=9)  # where scores are equal, COCO's order is by chance
    evaluation = evaluate(truths, detections, THREE, bootstrap=0, seed=0)
    weights = matching.draw_resamples(len(truths), count=5, seed=3)
    fast = matching.mean_average_precision(evaluation.matches, weights)
    repeated = [np.repeat(np.arange(len(truths)), row) for row in weights]
    slow = [
        quick_map([truths[i] for i in drawn], [detections[i] for i in drawn], THREE)["mAP"]
        for drawn in repeated
    ]
    assert fast == pytest.approx(slow, abs=1e-9)


def test_the_chunks_that_fit_into_memory_change_nothing(monkeypatch):
    truths, detections = scene(1)
    matches = evaluate(truths, detections, THREE, bootstrap=0, seed=0).matches
    weights = matching.draw_resamples(len(truths), count=50, seed=3)
    whole = matching.mean_average_precision(matches, weights)
    monkeypatch.setattr(matching, "CELLS_AT_ONCE", 1000)
    assert np.array_equal(matching.mean_average_precision(matches, weights), whole)


def plain_average_precision(matches, weights):
    """As written down: the highest precision from each recall level on, of all weighted detections."""
    boxes = weights @ matches.boxes
    reported = np.cumsum(weights[:, matches.pictures], axis=1)
    result = np.full((len(weights), 10), np.nan)
    for b, t in np.argwhere(np.repeat(boxes > 0, 10).reshape(-1, 10)):
        at = np.flatnonzero(matches.hits[t])
        found = np.cumsum(weights[b, matches.pictures[at]])
        precision = found / (reported[b, at] + np.spacing(1))
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        levels = np.searchsorted(matching.RECALLS, found / boxes[b], side="right")
        result[b, t] = (np.diff(levels, prepend=0) * highest).sum() / 101
    return result


@pytest.mark.parametrize("resamples", [3, 100])  # few are summed in another order than many
def test_average_precision_is_that_of_the_plain_definition_to_the_last_digit(resamples):
    truths, detections = scene(2, pictures=40)
    weights = matching.draw_resamples(len(truths), resamples, seed=1)
    for matches in evaluate(truths, detections, THREE, bootstrap=0, seed=0).matches:
        assert np.array_equal(
            matching.average_precision(matches, weights),
            plain_average_precision(matches, weights),
            equal_nan=True,
        )


def test_an_evaluation_leaves_the_garbage_collector_as_it_was():
    usual = gc.get_threshold()
    evaluate(*scene(0), THREE, bootstrap=0, seed=0)
    assert gc.get_threshold() == usual


def test_of_two_boxes_overlapped_alike_the_later_is_taken_as_in_coco():
    square = (256, 256)  # a power of two: fractions are exact, overlaps equal
    truths = [truth("a.jpg", [[0, 0, 100, 100], [0, 20, 100, 120]], [1, 1], square)]
    boxes = [[0, 10, 100, 110], [0, 0, 100, 100]]
    detections = [found(boxes, [0.9, 0.8], [1, 1], square)]
    evaluation = evaluate(truths, detections, ("a",), bootstrap=0, seed=0)
    assert evaluation.matches[0].hits.sum(axis=1).tolist() == [2] * 7 + [1] * 3
    assert evaluation.metrics["AR_100"] == pytest.approx((2 * 7 + 3) / 20)
    assert evaluation.metrics["AR_100"] == pytest.approx(pycocotools_twelve(truths, detections)[8])


def test_more_than_a_hundred_detections_of_a_class_count_as_in_coco():
    truths, _ = scene(5, pictures=4, classes=1)
    _, detections = scene(6, pictures=4, classes=1)
    many = [
        Detections(*(np.concatenate([a] * 9) for a in (d.boxes, d.scores, d.classes)))
        for d in detections
    ]
    assert max(len(d) for d in many) > 200
    evaluation = evaluate(truths, many, ("a",), bootstrap=0, seed=0)
    (fast,) = matching.mean_average_precision(evaluation.matches, np.ones((1, 4), np.int64))
    assert evaluation.metrics["mAP"] == pytest.approx(
        pycocotools_twelve(truths, many)[0], abs=1e-12
    )
    assert fast == pytest.approx(evaluation.metrics["mAP"], abs=1e-9)


def test_the_interval_is_drawn_from_the_seed():
    truths, detections = scene(2)
    first, same, other = (
        evaluate(truths, detections, THREE, bootstrap=200, seed=seed).metrics for seed in (1, 1, 2)
    )
    assert first == same
    assert first["mAP_lo"] != other["mAP_lo"]


def test_the_interval_holds_95_percent_of_the_resamples():
    truths, detections = scene(2)
    evaluation = evaluate(truths, detections, THREE, bootstrap=1000, seed=0)
    weights = matching.draw_resamples(len(truths), 1000, seed=0)
    values = matching.mean_average_precision(evaluation.matches, weights)
    low, high = evaluation.metrics["mAP_lo"], evaluation.metrics["mAP_hi"]
    assert low < evaluation.metrics["mAP"] < high
    assert [np.mean(values < low), np.mean(values > high)] == pytest.approx([0.025, 0.025])


def test_pictures_that_are_all_alike_have_an_interval_without_width():
    truths = [truth(f"{i}.jpg", [[10, 10, 90, 90]], [1]) for i in range(10)]
    detections = [found([[10, 10, 90, 80]], [0.9], [1])] * 10
    metrics = evaluate(truths, detections, ("a",), bootstrap=50, seed=0).metrics
    assert metrics["mAP"] == pytest.approx(0.8)  # IoU 0.875: eight of the ten thresholds
    assert [metrics["mAP_lo"], metrics["mAP_hi"]] == pytest.approx([0.8, 0.8])


def test_resamples_without_any_box_are_left_out():
    background = [truth(f"{i}.jpg", [], []) for i in range(4)]
    truths = [truth("box.jpg", [[10, 10, 90, 90]], [1]), *background]
    detections = [found([[10, 10, 90, 90]], [0.9], [1]), *[found([], [], [])] * 4]
    metrics = evaluate(truths, detections, ("a",), bootstrap=200, seed=0).metrics
    assert [metrics["mAP_lo"], metrics["mAP_hi"]] == pytest.approx([1, 1])


def test_what_is_undefined_is_absent_and_says_why():
    box = [[10, 10, 190, 390]]
    evaluation = evaluate([truth("a.jpg", box, [1])], [found(box, [0.9], [1])], THREE, 1000, 0)
    assert set(evaluation.metrics) == {
        *("mAP", "mAP_50", "mAP_75", "mAP_large"),
        *("AR_1", "AR_10", "AR_100", "AR_large", "AP/circle"),
    }
    assert evaluation.missing == {
        "mAP_small": "no ground truth up to 32 x 32 pixels",
        "mAP_medium": "no ground truth from 32 x 32 to 96 x 96 pixels",
        "AR_small": "no ground truth up to 32 x 32 pixels",
        "AR_medium": "no ground truth from 32 x 32 to 96 x 96 pixels",
        "AP/square": "no ground truth of this class",
        "AP/star": "no ground truth of this class",
        "mAP_lo": "an interval needs at least 2 pictures",
        "mAP_hi": "an interval needs at least 2 pictures",
    }


def test_without_any_box_nothing_is_defined():
    truths = [truth("a.jpg", [], []), truth("b.jpg", [], [])]
    detections = [found([[1, 1, 9, 9]], [0.9], [1]), found([], [], [])]
    evaluation = evaluate(truths, detections, ("circle",), bootstrap=10, seed=0)
    assert evaluation.metrics == {}
    assert evaluation.missing["mAP"] == evaluation.missing["mAP_lo"] == "no ground truth"
    assert quick_map(truths, detections, ("circle",)) == {}


def test_without_resamples_there_is_no_interval():
    evaluation = evaluate(*scene(0), THREE, bootstrap=0, seed=0)
    assert "mAP_lo" not in evaluation.metrics
    assert evaluation.missing == {
        "mAP_lo": "no resamples asked for",
        "mAP_hi": "no resamples asked for",
    }


def test_without_detections_everything_scores_nothing():
    truths, _ = scene(0)
    evaluation = evaluate(truths, [found([], [], [])] * len(truths), THREE, bootstrap=20, seed=0)
    assert set(evaluation.metrics.values()) == {0.0}
    assert evaluation.missing == {}


def test_without_pictures_there_is_nothing_to_evaluate():
    with pytest.raises(DataError) as raised:
        evaluate([], [], THREE, bootstrap=10, seed=0)
    assert str(raised.value) == (
        "evaluation: there are no pictures to evaluate.\n"
        "  Choose a split that has pictures (evaluate.split), or give it some."
    )


def test_a_class_without_a_name_is_called_by_its_number():
    box = [[10, 10, 90, 90]]
    truths = [truth("a.jpg", box * 2, [1, 7])]
    evaluation = evaluate(truths, [found(box * 2, [0.9, 0.8], [7, 9])], ("circle",), 0, 0)
    assert evaluation.class_names == ("circle", "class 7", "class 9")
    assert evaluation.metrics["AP/class 7"] == pytest.approx(1)
    assert evaluation.missing["AP/class 9"] == "no ground truth of this class"


def test_quick_map_is_part_of_the_whole_evaluation():
    truths, detections = scene(3)
    metrics = evaluate(truths, detections, THREE, bootstrap=0, seed=0).metrics
    names = ("mAP", "mAP_50", "mAP_75", "AR_100")
    assert quick_map(truths, detections, THREE) == {name: metrics[name] for name in names}


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([90, 90, 10, 10], id="inside out"),
        pytest.param([10, 90, 90, 10], id="right of its left"),
        pytest.param([np.nan, 10, 90, 90], id="not a number"),
        pytest.param([-np.inf, -np.inf, np.inf, np.inf], id="infinite"),
    ],
)
def test_an_impossible_detection_is_a_false_positive(box):
    truths = [truth("a.jpg", [[10, 10, 90, 90]], [1])]
    detections = [found([box, [10, 10, 90, 90]], [0.9, 0.8], [1, 1])]
    evaluation = evaluate(truths, detections, ("a",), bootstrap=0, seed=0)
    assert evaluation.metrics["mAP"] == pytest.approx(0.5)
    assert evaluation.confusion.tolist() == [[1, 0], [1, 0]]


def test_a_score_that_is_no_number_comes_last():
    truths = [truth("a.jpg", [[10, 10, 90, 90]], [1])]
    detections = [found([[100, 100, 190, 190], [10, 10, 90, 90]], [np.nan, 0.8], [1, 1])]
    assert evaluate(truths, detections, ("a",), 0, 0).metrics["mAP"] == pytest.approx(1)


def test_the_evaluators_say_nothing(capfd):
    evaluate(*scene(0), THREE, bootstrap=10, seed=0)
    check_evaluator(scene(0)[0], THREE)
    assert capfd.readouterr() == ("", "")


def test_ground_truth_as_detections_passes_the_check(raccoons):
    check_evaluator([*raccoons, truth("background.jpg", [], [])], ("raccoon",))


def test_crowded_boxes_pass_the_check():
    boxes = [[10, 10 + k, 60, 60 + k] for k in range(100)]
    check_evaluator([truth("a.jpg", boxes, [1] * 100)], ("a",))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        pytest.param(
            truth("a.jpg", [], []),
            "ground truth: none of the 1 pictures holds a box, so that nothing can be scored.\n"
            "  Label the pictures, or put labelled ones into this split.",
            id="no boxes",
        ),
        pytest.param(
            truth("a.jpg", [[1, 1, 50, 50], [30, 40, 80, 40]], [1, 1]),
            "a.jpg: box 2, circle at x 40.00, y 30.00, is 0.00 x 50.00 pixels,"
            " which cannot be matched.\n  Redraw the box, or delete it.",
            id="no area",
        ),
        pytest.param(
            truth("a.jpg", [[1, 1, 50, 50]], [4]),
            "a.jpg: class id 4 has no name; the label map names ids 1 to 3.\n"
            "  Add the class to the label map, or prepare the dataset again.",
            id="unnamed class",
        ),
        pytest.param(
            truth("a.jpg", [[1, 1, 50, 50]], [0]),
            "a.jpg: class id 0 has no name; the label map names ids 1 to 3.\n"
            "  Add the class to the label map, or prepare the dataset again.",
            id="background as a class",
        ),
        pytest.param(
            truth("a.jpg", [[1, k, 50, k + 50] for k in range(101)], [2] * 101),
            "a.jpg: holds 101 boxes of square, but COCO counts at most 100 detections of a class"
            " in a picture.\n  Cut the picture into tiles.",
            id="more boxes than COCO counts",
        ),
    ],
)
def test_ground_truth_that_cannot_score_one_is_an_error(at, message):
    with pytest.raises(DataError) as raised:
        check_evaluator([at], THREE)
    assert str(raised.value) == message


def confused() -> Scene:
    """One circle found twice, one square taken for a star, one square missed; background found."""
    truths = [
        truth("good.jpg", [[10, 10, 60, 60]], [1]),
        truth("bad.jpg", [[10, 10, 60, 60], [100, 100, 160, 160]], [2, 2]),
        truth("empty.jpg", [], []),
    ]
    detections = [
        found([[10, 10, 60, 60], [12, 10, 60, 60], [10, 10, 60, 60]], [0.9, 0.8, 0.1], [1, 1, 2]),
        found([[10, 12, 60, 60], [0, 300, 50, 350]], [0.7, 0.6], [3, 1]),
        found([[10, 10, 60, 60]], [0.4], [3]),
    ]
    return truths, detections


def test_confusion_matrix_has_rows_there_and_columns_found():
    evaluation = evaluate(*confused(), THREE, bootstrap=0, seed=0)
    assert evaluation.confusion.tolist() == [
        [1, 0, 0, 0],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [2, 0, 0, 0],
    ]


def test_the_right_class_is_paired_before_a_wrong_one_with_a_higher_score():
    box = [[10, 10, 60, 60]]
    detections = [found(box * 2, [0.9, 0.8], [2, 1])]
    evaluation = evaluate([truth("a.jpg", box, [1])], detections, ("a", "b"), 0, 0)
    assert evaluation.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_each_picture_says_what_was_found_missed_and_false():
    images = evaluate(*confused(), THREE, bootstrap=0, seed=0).images
    assert [(i.name, i.found, i.missed, i.false_positives) for i in images] == [
        ("good.jpg", 1, 0, 1),
        ("bad.jpg", 0, 2, 2),
        ("empty.jpg", 0, 0, 0),
    ]
    assert [i.f1 for i in images] == pytest.approx([2 / 3, 0, 1])


def test_the_threshold_decides_what_the_confusion_matrix_counts():
    evaluation = evaluate(*confused(), THREE, bootstrap=0, seed=0, threshold=0.05)
    assert evaluation.confusion[-1].tolist() == [2, 1, 1, 0]


def test_best_f1_is_at_the_score_after_which_more_is_lost_than_won():
    boxes = [[10, 10, 60, 60], [10, 100, 60, 150], [100, 10, 150, 60], [100, 300, 150, 350]]
    nothing = [[150, 200, 190, 240]]
    scores = [0.9, 0.8, 0.8, 0.6, 0.5, 0.4]
    detections = [found(boxes[:2] + nothing + boxes[2:3] + nothing * 2, scores, [1] * 6)]
    (row,) = evaluate([truth("a.jpg", boxes, [1] * 4)], detections, ("a",), 0, 0).per_class
    assert (row.images, row.boxes) == (1, 4)
    assert row.threshold == pytest.approx(0.6)
    assert (row.precision, row.recall) == (0.75, 0.75)


def test_best_f1_does_not_stand_between_detections_of_equal_score():
    boxes = [[10, 10, 60, 60]]
    detections = [found([*boxes, [100, 100, 150, 150]], [0.8, 0.8], [1, 1])]
    (row,) = evaluate([truth("a.jpg", boxes, [1])], detections, ("a",), 0, 0).per_class
    assert (row.precision, row.recall) == (0.5, 1)


def grey(index: int) -> UInt8Image:
    return np.full((200, 400, 3), 60 * (index + 1), np.uint8)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    evaluation = evaluate(*confused(), THREE, bootstrap=100, seed=0)
    write_report(evaluation, grey, *confused(), tmp_path / "eval", drawn=2)
    return tmp_path / "eval"


def test_a_report_holds_tables_charts_and_pictures(report):
    files = sorted(file.relative_to(report).as_posix() for file in report.rglob("*.*"))
    assert files == [
        "confusion_matrix.png",
        "drawn/001_good.jpg",
        "drawn/002_empty.jpg",
        "metrics.json",
        "per_class.csv",
        "pictures/000000.jpg",
        "pictures/000001.jpg",
        "pictures/000002.jpg",
        "pr_curves.png",
        "worst.csv",
        "worst/001_bad.jpg",
        "worst/002_good.jpg",
    ]


def test_the_report_names_evaluator_and_what_is_missing(report):
    content = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    evaluation = evaluate(*confused(), THREE, bootstrap=100, seed=0)
    assert content == {
        "evaluator": {"name": "faster-coco-eval", "version": version("faster-coco-eval")},
        "images": 3,
        "boxes": 3,
        "bootstrap": 100,
        "score_threshold": 0.5,
        "metrics": evaluation.metrics,
        "missing": evaluation.missing,
    }
    assert content["missing"]["AP/star"] == "no ground truth of this class"


def test_the_report_says_under_which_key_a_class_is_logged_that_mlflow_takes_no_other_way(tmp_path):
    evaluation = evaluate(*confused(), ("circle", "cup (blue)", "star"), bootstrap=0, seed=0)
    write_report(evaluation, grey, *confused(), tmp_path, drawn=0)
    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    key = content["renamed"]["AP/cup (blue)"]
    assert content["renamed"] == {"AP/cup (blue)": key}
    assert key == key_name("eval/AP/cup (blue)")


def test_the_report_has_a_row_for_each_class(report):
    assert (report / "per_class.csv").read_text(encoding="utf-8").splitlines() == [
        "class,AP,AP_50,images,boxes,best_f1_threshold,precision,recall",
        "circle,1.0000,1.0000,1,1,0.9000,1.0000,1.0000",
        "square,0.0000,0.0000,1,2,,,",
        "star,,,0,0,,,",
    ]


def test_the_report_lists_the_worst_pictures_first(report):
    assert (report / "worst.csv").read_text(encoding="utf-8").splitlines() == [
        "file,f1,found,missed,false_positives",
        "bad.jpg,0.0000,0,2,2",
        "good.jpg,0.6667,1,0,1",
        "empty.jpg,1.0000,0,0,0",
    ]


def test_of_equally_bad_pictures_that_with_more_mistakes_comes_first(tmp_path):
    boxes = [[10, 10, 60, 60], [100, 100, 160, 160]]
    truths = [truth("one.jpg", boxes[:1], [1]), truth("two.jpg", boxes, [1, 1])]
    detections = [found([], [], [])] * 2
    evaluation = evaluate(truths, detections, THREE, bootstrap=0, seed=0)
    write_report(evaluation, grey, truths, detections, tmp_path, drawn=1)
    assert [file.name for file in (tmp_path / "worst").iterdir()] == ["001_two.jpg"]


def test_pictures_without_mistakes_are_the_best_with_the_most_objects_first(tmp_path):
    boxes = [[10, 10, 60, 60], [100, 100, 160, 160]]
    truths = [truth("one.jpg", boxes[:1], [1]), truth("two.jpg", boxes, [1, 1])]
    detections = [found(boxes[:1], [0.9], [1]), found(boxes, [0.9, 0.8], [1, 1])]
    evaluation = evaluate(truths, detections, THREE, bootstrap=0, seed=0)
    write_report(evaluation, grey, truths, detections, tmp_path, drawn=2)
    best = sorted(file.name for file in (tmp_path / "best").iterdir())
    assert best == ["001_two.jpg", "002_one.jpg"]


def test_the_operating_point_is_the_lowest_threshold_that_is_precise_enough():
    boxes = [[10, 10, 60, 60], [100, 100, 160, 160], [10, 100, 60, 160]]
    wrong = [300, 10, 350, 60]
    detections = [found([boxes[0], boxes[1], wrong, boxes[2]], [0.9, 0.8, 0.7, 0.6], [1] * 4)]
    evaluation = evaluate([truth("a.jpg", boxes, [1] * 3)], detections, ("a",), 0, 0)
    (matches,) = evaluation.matches
    assert matching.at_precision(matches, 0.7) == (pytest.approx(0.6), 0.75, 1.0)
    assert matching.at_precision(matches, 0.9) == (pytest.approx(0.8), 1.0, pytest.approx(2 / 3))


def test_there_is_no_operating_point_where_none_is_precise_enough():
    detections = [found([[300, 10, 350, 60], [10, 10, 60, 60]], [0.9, 0.8], [1, 1])]
    truths = [truth("a.jpg", [[10, 10, 60, 60]], [1])]
    (matches,) = evaluate(truths, detections, ("a",), 0, 0).matches
    assert matching.at_precision(matches, 0.9) is None


def test_operating_thresholds_are_by_class_and_absent_where_nothing_is_precise_enough():
    boxes = [[10, 10, 60, 60], [100, 100, 160, 160]]
    detections = [found([*boxes, [300, 10, 350, 60]], [0.9, 0.8, 0.95], [1, 1, 2])]
    truths = [truth("a.jpg", [*boxes, [10, 100, 60, 160]], [1, 1, 2])]
    names = ("circle", "square", "star")
    assert operating_thresholds(truths, detections, names, 0.9) == {"circle": 0.8}


def test_small_pictures_are_enlarged_in_the_report(report):
    with Image.open(report / "drawn" / "001_good.jpg") as sheet:
        assert sheet.width > 2 * 960
        assert sheet.height > 480


@pytest.mark.parametrize("classes", [1, 6, 40])
def test_charts_of_any_number_of_classes_are_drawn(tmp_path, classes):
    names = [r"$\frac{$", "_alarm", "엘리베이터", "a name " * 20, "", "größer"]
    names += [f"button {k}" for k in range(classes)]
    truths, detections = scene(0, classes=classes)
    evaluation = evaluate(truths, detections, names[:classes], bootstrap=0, seed=0)
    write_report(evaluation, grey, truths, detections, tmp_path, drawn=0)
    for chart in ("pr_curves.png", "confusion_matrix.png"):
        with Image.open(tmp_path / chart) as image:
            assert min(image.size) > 300
    assert not (tmp_path / "drawn").exists()


def test_charts_are_drawn_where_nothing_is_defined(tmp_path):
    truths = [truth("a.jpg", [], [])]
    evaluation = evaluate(truths, [found([], [], [])], THREE, bootstrap=0, seed=0)
    write_report(evaluation, grey, truths, [found([], [], [])], tmp_path, drawn=1)
    assert (tmp_path / "pr_curves.png").is_file()
    assert not (tmp_path / "worst").exists()


def test_a_picture_with_a_long_name_or_in_a_folder_is_drawn(tmp_path):
    truths = [truth("train/" + "너" * 83 + ".jpg", [[1, 1, 50, 50]], [1])]
    detections = [found([], [], [])]
    evaluation = evaluate(truths, detections, THREE, bootstrap=0, seed=0)
    write_report(evaluation, grey, truths, detections, tmp_path, drawn=1)
    (file,) = (tmp_path / "drawn").iterdir()
    assert file.name == "001_" + "너" * 66 + ".jpg"
