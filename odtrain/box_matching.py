"""Which boxes of two sets are the same object, one to one: the greedy matching of evaluation and labelling."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from odtrain.structures import BoolArray, IntArray


def match_boxes(
    overlaps: NDArray[np.floating[Any]],
    least: ArrayLike = 0.5,
    *,
    order: Literal["rows", "overlaps"] = "rows",
    of_equals: Literal["first", "last"] = "first",
    rank: NDArray[np.floating[Any]] | None = None,
) -> IntArray:
    """The column that each row is matched with; no column is taken twice.

    Args:
        overlaps: (R, C) how much each box of one set overlaps each of the other; 0 where the two may not
            be matched.
        least: the overlap that a match needs, or (T,) several, each matched by itself.
        order: `rows`: each row in turn takes the free column that it overlaps most, as COCO matches
            detections, best score first. `overlaps`: the pair that overlaps most comes first.
        of_equals: the column taken where a row overlaps several alike.
        rank: (R, C) what decides in place of the overlap which pair comes first.

    Returns:
        (R,), or (T, R); -1 where a row has no match.
    """
    least = np.asarray(least)
    rows, columns = np.nonzero(overlaps >= least.min())
    first = -(overlaps if rank is None else rank)[rows, columns]
    ties = columns if of_equals == "first" else -columns
    keys = (ties, first, rows) if order == "rows" else (ties, rows, first)
    turn = np.lexsort(keys)
    rows, columns = rows[turn], columns[turn]
    enough = overlaps[rows, columns, None] >= least.reshape(-1)
    partner = match_pairs(np.zeros_like(rows), rows, columns, enough, overlaps.shape)
    return partner.T.reshape(*least.shape, len(overlaps))


def match_pairs(
    groups: IntArray, rows: IntArray, columns: IntArray, enough: BoolArray, shape: tuple[int, ...]
) -> IntArray:
    """The column that each row is matched with, of many sets of boxes side by side.

    Args:
        groups: (N,) ascending: which set each pair of boxes is of. No row or column is in two of them.
        rows: (N,) of each pair; those of a group in the order in which they choose.
        columns: (N,) of each pair.
        enough: (N, T) whether the two overlap enough, at each threshold.
        shape: how many rows and columns there are.

    Returns:
        (R, T); -1 where a row has no match.
    """
    partner = np.full((shape[0], enough.shape[1]), -1)
    free = np.ones((shape[1], enough.shape[1]), bool)
    for turn in _turns(groups):
        row, column = rows[turn], columns[turn]
        taken = enough[turn] & free[column] & (partner[row] < 0)
        partner[row] = np.where(taken, column[:, None], partner[row])
        free[column] &= ~taken
    return partner


def place_in_group(groups: IntArray) -> IntArray:
    """(N,) how many of its group stand before each, of (N,) ascending groups."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _turns(groups: IntArray) -> list[IntArray]:
    """Which pairs are the first of their group, which the second, and so on."""
    place = place_in_group(groups)
    order = np.argsort(place, kind="stable")
    return np.split(order, np.cumsum(np.bincount(place))[:-1]) if len(groups) else []
