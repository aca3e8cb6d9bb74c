from __future__ import annotations

import json

import pytest
from support.front_points import DIRECTIONS, POINTS

from odtrain.sweep.pareto import front, front_json, front_table, pick, read_front


def test_nothing_on_the_front_is_beaten_in_all_respects():
    assert [one.trial for one in front(POINTS, DIRECTIONS)] == [0, 4, 1, 5]


def test_a_file_that_failed_its_proof_is_not_on_the_front_and_beats_nothing():
    assert 3 not in [one.trial for one in front(POINTS, DIRECTIONS)]


def test_one_direction_has_one_best():
    assert [one.trial for one in front(POINTS, {"size_mb": "minimize"})] == [2, 5]


@pytest.mark.parametrize(
    ("limits", "trial"),
    [
        pytest.param({}, 0, id="best"),
        pytest.param({"max_latency_ms": 1.2}, 1, id="quick enough"),
        pytest.param({"max_size_mb": 1.0, "max_latency_ms": 1.0}, 5, id="small enough"),
        pytest.param({"min_map": 0.3}, 1, id="quickest that is good enough"),
    ],
)
def test_the_pick_is_the_best_within_the_limits(limits, trial):
    assert pick(front(POINTS, DIRECTIONS), **limits).trial == trial


def test_nothing_may_be_within_the_limits():
    assert pick(POINTS, max_latency_ms=0.1) is None


def test_front_json_is_read_back():
    best = front(POINTS, DIRECTIONS)
    assert read_front(front_json(best)) == best


def test_front_json_has_the_rows_that_people_rely_on():
    (row,) = json.loads(front_json(POINTS[:1]))
    assert row == {
        "trial": 0,
        "run_id": "run0",
        "format": "tflite_fp32",
        "mAP": 0.5,
        "mAP_50": 0.5,
        "latency_ms_p50": 2.0,
        "size_mb": 3.0,
        "params": {"model.input_size": 96, "train.learning_rate": 0.0041234},
        "file": "export/model.tflite",
        "host": "",
    }


def test_the_table_says_what_was_chosen():
    assert front_table(POINTS[:1]).splitlines()[-1] == (
        "| 0 | tflite_fp32 | 0.500 | 0.500 | 2.00 ms | 3.00 MB | "
        "model.input_size=96, train.learning_rate=0.00412 |"
    )
