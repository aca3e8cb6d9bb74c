from __future__ import annotations

import json

import pytest
from PIL import Image

from odtrain.sweep_front import (
    Finished,
    Point,
    draw_front,
    front,
    front_json,
    hopeless,
    page,
    pick,
    read_front,
    table,
)

DIRECTIONS = {"mAP": "maximize", "latency_ms_p50": "minimize"}


def point(trial, score, latency, size=1.0, failed=None, name="tflite_fp32"):
    metrics = {"mAP": score, "mAP_50": score, "latency_ms_p50": latency, "size_mb": size}
    params = {"model.input_size": 96, "train.learning_rate": 0.0041234}
    return Point(trial, f"run{trial}", name, params, metrics, "export/model.tflite", failed)


POINTS = [
    point(0, 0.5, 2.0, size=3.0),
    point(1, 0.4, 1.0, size=2.0),
    point(2, 0.4, 1.5),
    point(3, 0.6, 2.0, failed="loses too much"),
    point(4, 0.5, 2.0, size=3.0, name="tflite_int8"),
    point(5, 0.2, 0.5, size=1.0),
]


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


FINISHED = [
    Finished(((0.5, 0.3), (1.0, 0.5)), best=0.5, latency_ms=2.0),
    Finished(((0.5, 0.1), (1.0, 0.2)), best=0.2, latency_ms=1.0),
]


@pytest.mark.parametrize(
    ("share", "score", "latency", "expected"),
    [
        pytest.param(
            0.5,
            0.2,
            2.5,
            "at most 0.420 mAP to be expected, and a network of 2.0 ms has 0.500 already",
            id="slower and too far behind",
        ),
        pytest.param(0.5, 0.3, 2.5, None, id="may still catch up"),
        pytest.param(0.5, 0.2, 1.5, None, id="quicker than the better one"),
        pytest.param(
            1.0,
            0.1,
            1.0,
            "at most 0.120 mAP to be expected, and a network of 1.0 ms has 0.200 already",
            id="at the end nothing is to be gained",
        ),
    ],
)
def test_a_training_is_hopeless_where_even_the_best_end_is_beaten(share, score, latency, expected):
    assert hopeless(share, score, latency, FINISHED, margin=0.02) == expected


def test_the_first_training_has_nothing_to_beat():
    assert hopeless(0.5, 0.0, 9.0, [], margin=0.02) is None


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
    }


def test_the_table_says_what_was_chosen():
    assert table(POINTS[:1]).splitlines()[-1] == (
        "| 0 | tflite_fp32 | 0.500 | 0.500 | 2.00 ms | 3.00 MB | "
        "model.input_size=96, train.learning_rate=0.00412 |"
    )


def test_the_plot_is_a_picture(tmp_path):
    draw_front(POINTS, front(POINTS, DIRECTIONS), tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size == (880, 550)


def test_the_page_needs_no_network_and_takes_nothing_for_markup():
    others = [{"trial": "7", "state": "failed", "reason": "</script><b>", "chosen": ""}]
    text = page("Sweep <a>", POINTS, front(POINTS, DIRECTIONS), others)
    assert "Sweep &lt;a&gt;" in text
    assert text.count("</script>") == 1
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
