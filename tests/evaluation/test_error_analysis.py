from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from odtrain.evaluation.error_analysis import MISTAKE_KINDS, count_mistakes
from odtrain.structures import Detections, GroundTruth

BOX = (0.2, 0.2, 0.6, 0.6)
AWAY = (0.7, 0.7, 0.9, 0.9)
SHIFTED = (0.2, 0.4, 0.6, 0.8)  # overlaps BOX by 1/3


def truth(boxes: Any, classes: Any) -> GroundTruth:
    return GroundTruth(
        "one.jpg", 100, 100, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)
    )


def found(*rows: tuple[Any, int, float]) -> Detections:
    boxes, classes, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
    )


def costs(truths: list[GroundTruth], detections: list[Detections]) -> dict[str, tuple[int, float]]:
    mistakes = count_mistakes(truths, detections, [1, 2], threshold=0.5)
    return {each.kind: (each.count, round(each.cost, 4)) for each in mistakes}


def only(**given: tuple[int, float]) -> dict[str, tuple[int, float]]:
    named = {name.replace("_", " "): value for name, value in given.items()}
    return {kind: named.get(kind, (0, 0.0)) for kind in MISTAKE_KINDS}


def test_what_is_found_is_no_mistake():
    assert costs([truth([BOX], [1])], [found((BOX, 1, 0.9))]) == only()


def test_a_box_that_nothing_is_on_is_missed():
    assert costs([truth([BOX], [1])], [found()]) == only(missed=(1, 1.0))


def test_another_name_in_the_right_place_is_a_wrong_class():
    truths = [truth([BOX], [1])]
    assert costs(truths, [found((BOX, 2, 0.9))]) == only(wrong_class=(1, 1.0))


def test_the_right_name_beside_its_object_is_in_the_wrong_place():
    truths = [truth([BOX], [1])]
    assert costs(truths, [found((SHIFTED, 1, 0.9))]) == only(wrong_place=(1, 1.0))


def test_another_name_beside_an_object_is_wrong_in_both():
    # Putting it right removes it, and the box is still missed: neither alone brings anything.
    truths = [truth([BOX], [1])]
    assert costs(truths, [found((SHIFTED, 2, 0.9))]) == only(
        wrong_class_and_place=(1, 0.0), missed=(1, 1.0)
    )


def test_what_is_found_twice_is_a_duplicate():
    # Above the second box's detection, it halves the precision from recall 0.5 on.
    truths = [truth([BOX, AWAY], [1, 1])]
    detections = [found((BOX, 1, 0.9), (BOX, 1, 0.8), (AWAY, 1, 0.7))]
    ap = (51 * 1 + 50 * 2 / 3) / 101
    assert costs(truths, detections) == only(duplicate=(1, round(1 - ap, 4)))


def test_a_detection_where_nothing_is_counts_as_background():
    truths = [truth([BOX], [1])]
    detections = [found((AWAY, 1, 0.9), (BOX, 1, 0.8))]
    assert costs(truths, detections) == only(background=(1, 0.5))


def test_a_picture_without_boxes_has_background_alone():
    truths = [truth([BOX], [1]), truth([], [])]
    detections = [found((BOX, 1, 0.9)), found((BOX, 1, 0.95))]
    assert costs(truths, detections)["background"] == (1, 0.5)


def test_mistakes_below_the_threshold_cost_but_are_not_counted():
    truths = [truth([BOX, AWAY], [1, 1])]
    detections = [found((BOX, 1, 0.9), (BOX, 1, 0.4), (AWAY, 1, 0.3))]
    mistakes = costs(truths, detections)
    assert mistakes["duplicate"][0] == 0
    assert mistakes["duplicate"][1] > 0
    assert mistakes["missed"] == (1, 0.0)  # above the threshold nothing is on the second box


def test_only_the_surest_of_several_detections_is_put_right():
    # The first takes the box; the second would be a duplicate then, and goes.
    truths = [truth([BOX], [1])]
    detections = [found((SHIFTED, 1, 0.9), ((0.4, 0.2, 0.8, 0.6), 1, 0.8))]
    assert costs(truths, detections) == only(wrong_place=(2, 1.0))


def test_the_most_expensive_kind_comes_first():
    truths = [truth([BOX, AWAY], [1, 2])]
    mistakes = count_mistakes(truths, [found((BOX, 1, 0.9))], [1, 2], threshold=0.5)
    assert (mistakes[0].kind, mistakes[0].cost) == ("missed", pytest.approx(0.5))
