"""Whether two samples are of one population."""

from __future__ import annotations

import numpy as np
import pytest

from odtrain.evaluation.two_samples import chance_of_one_population, corrected, unlikeness


def drawn(count: int, mean: float = 0.0, spread: float = 1.0, of: int = 1, seed: int = 0):
    return np.random.default_rng(seed).normal(mean, spread, (count, of))


def test_a_shift_is_seen():
    assert chance_of_one_population(drawn(60), drawn(60, 1.0, seed=1), 0) == 0.001


def test_a_wider_spread_of_the_same_mean_is_seen():
    assert chance_of_one_population(drawn(80), drawn(80, spread=3, seed=1), 0) < 0.01


def test_vectors_are_compared_as_wholes():
    """Either coordinate alone is spread alike; together one sample lies along the other diagonal."""
    a, noise = drawn(100), drawn(100, spread=0.2, seed=2)
    same, crossed = np.hstack([a, a + noise]), np.hstack([a, noise - a])
    assert chance_of_one_population(same, crossed, 0) < 0.01


def test_one_population_gives_every_chance_alike():
    chances = [
        chance_of_one_population(drawn(30, seed=n), drawn(30, seed=1000 + n), n) for n in range(60)
    ]
    assert 0.3 < np.mean(chances) < 0.7
    assert sum(chance <= 0.05 for chance in chances) <= 7  # 98.5 % of the time, of 60 at 5 %


def test_an_empty_sample_shows_nothing():
    assert chance_of_one_population(drawn(0), drawn(5), 0) == 1.0


@pytest.mark.parametrize(
    ("chances", "expected"),
    [
        ({"a": 0.01, "b": 0.04, "c": 0.03}, {"a": 0.03, "b": 0.06, "c": 0.06}),
        ({"a": 0.5, "b": 0.9}, {"a": 1.0, "b": 1.0}),
        ({"a": 0.02}, {"a": 0.02}),
    ],
)
def test_chances_are_raised_as_holm_says(chances, expected):
    assert corrected(chances) == pytest.approx(expected)


def test_what_lies_far_from_the_reference_is_unlike_it():
    far = unlikeness(np.array([[0.0], [10.0]]), drawn(50))
    assert far[1] > 5 > far[0]


def test_a_large_sample_is_looked_at_in_parts():
    sample, reference = drawn(250, of=3), drawn(7, of=3, seed=1)
    one_by_one = [np.linalg.norm(each - reference, axis=1).mean() for each in sample]
    assert unlikeness(sample, reference) == pytest.approx(one_by_one)
