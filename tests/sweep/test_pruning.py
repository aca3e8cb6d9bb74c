"""The rule of early stopping."""

from __future__ import annotations

import pytest

from odtrain.sweep.pruning import Finished, Rule, hopeless

LARGEST = Rule(gain=1.0, margin=0.02, noise=0.0)
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
    assert hopeless(share, score, latency, FINISHED, LARGEST) == expected


def test_the_first_training_has_nothing_to_beat():
    assert hopeless(0.5, 0.0, 9.0, [], LARGEST) is None


def test_a_smaller_gain_may_be_granted():
    # The gains from half the steps on are 0.2 and 0.1.
    assert hopeless(0.5, 0.29, 2.5, FINISHED, LARGEST) is None
    assert hopeless(0.5, 0.29, 2.5, FINISHED, Rule(gain=0.5, margin=0.02, noise=0.0)) == (
        "at most 0.460 mAP to be expected, and a network of 2.0 ms has 0.500 already"
    )


def test_a_file_that_is_slower_by_less_than_the_noise_counts_as_no_slower():
    assert hopeless(0.5, 0.2, 1.95, FINISHED, LARGEST) is None
    assert hopeless(0.5, 0.2, 1.95, FINISHED, Rule(1.0, 0.02, noise=0.05)) is not None


def test_only_gains_of_trainings_that_were_about_as_good_are_granted():
    # Eight that stayed near 0.1, and one that rose from 0.01 to 0.6, as this one will not.
    low = [Finished(((0.5, 0.1), (1.0, 0.12)), best=0.12, latency_ms=1.0)] * 8
    late = Finished(((0.5, 0.01), (1.0, 0.6)), best=0.6, latency_ms=1.0)
    exact = Rule(gain=1.0, margin=0.0, noise=0.0)
    assert hopeless(0.5, 0.1, 1.0, [*low, late], exact) == (
        "at most 0.120 mAP to be expected, and a network of 1.0 ms has 0.600 already"
    )
    assert hopeless(0.5, 0.02, 1.0, [late] * 9, exact) is None
