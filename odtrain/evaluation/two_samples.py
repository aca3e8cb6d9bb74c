"""Whether two samples are of one population: permutation tests of the energy distance.

The energy distance of Szekely and Rizzo (2013, Energy statistics: a class of statistics based on distances) is
0 for one population alone, for numbers and vectors alike. Its chance is found by exchanging members at random.
Holm's correction (1979, A simple sequentially rejective multiple test procedure) keeps the chance of any false
alarm among several tests at the level of one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
PERMUTATIONS = 999
"""The smallest chance that can be told is 1 of 1,000."""
AT_ONCE = 100
"""Permutations, or members of a large sample, held in memory at a time."""


def chance_of_one_population(a: Values, b: Values, seed: int) -> float:
    """p: how often members exchanged at random lie at least as far apart, 1 where a sample is empty.

    Args:
        a: (N, D) one sample, D numbers in units that may be compared.
        b: (M, D) the other.
        seed: of the permutations.
    """
    if not len(a) or not len(b):
        return 1.0
    both = np.concatenate([a, b])
    apart = _distances(both, both)
    first = np.zeros(len(apart))
    first[: len(a)] = 1
    seen = _energy(apart, first[None])[0]
    rng = np.random.default_rng(seed)
    beyond = 0
    for start in range(0, PERMUTATIONS, AT_ONCE):
        count = min(AT_ONCE, PERMUTATIONS - start)
        drawn = rng.permuted(np.repeat(first[None], count, axis=0), axis=1)
        beyond += int((_energy(apart, drawn) >= seen - 1e-12).sum())
    return (1 + beyond) / (1 + PERMUTATIONS)


def corrected(chances: Mapping[str, float]) -> dict[str, float]:
    """Each chance after Holm's correction, in the order given."""
    ordered = sorted(chances, key=chances.__getitem__)
    raised: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * chances[name]))
        raised[name] = largest
    return {name: raised[name] for name in chances}


def unlikeness(sample: Values, reference: Values) -> Values:
    """(N,) how far each of (N, D) lies from (M, D) on average."""
    parts = np.array_split(sample, len(sample) // AT_ONCE + 1)
    mean: Values = np.concatenate([_distances(part, reference).mean(axis=1) for part in parts])
    return mean


def _distances(a: Values, b: Values) -> Values:
    """(N, M) between (N, D) and (M, D)."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    apart: Values = np.sqrt(np.maximum(squares - 2 * (a @ b.T), 0))
    return apart


def _energy(apart: Values, first: Values) -> Values:
    """(P,) 2 E|X - Y| - E|X - X'| - E|Y - Y'| of (P, N) choices of the first sample."""
    second = 1 - first
    n, m = first.sum(axis=1), second.sum(axis=1)
    toward = first @ apart
    across = (toward * second).sum(axis=1)
    within_first = (toward * first).sum(axis=1)
    within_second = ((apart.sum(axis=0) - toward) * second).sum(axis=1)
    energy: Values = 2 * across / (n * m) - within_first / n**2 - within_second / m**2
    return energy
