"""Greedy matching held equal to its plain definition, box by box."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from odtrain.box_matching import match_boxes, match_pairs

OVERLAPS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6),
    elements=st.sampled_from([0, 0.3, 0.5, 0.55, 0.75, 0.9, 1]),  # many are equal
)


def row_by_row(overlaps, least, of_equals):
    """As pycocotools matches: a later box of equal overlap is taken, unless the first is asked for."""
    partner, free = [], set(range(overlaps.shape[1]))
    for row in overlaps.tolist():
        best = -1
        for column in sorted(free, reverse=of_equals == "last"):
            if row[column] >= least and (best < 0 or row[column] > row[best]):
                best = column
        free -= {best}
        partner.append(best)
    return partner


def pair_by_pair(overlaps, least):
    partner = [-1] * len(overlaps)
    pairs = [(-overlaps[i, j], i, j) for i, j in np.ndindex(overlaps.shape)]
    for overlap, i, j in sorted(pairs):
        if -overlap >= least and partner[i] < 0 and j not in partner:
            partner[i] = j
    return partner


@given(overlaps=OVERLAPS)
@pytest.mark.parametrize("of_equals", ["first", "last"])
def test_each_row_in_turn_takes_the_free_column_that_it_overlaps_most(of_equals, overlaps):
    matched = match_boxes(overlaps, 0.5, of_equals=of_equals)
    assert matched.tolist() == row_by_row(overlaps, 0.5, of_equals)


@given(overlaps=OVERLAPS)
def test_the_pair_that_overlaps_most_comes_first(overlaps):
    matched = match_boxes(overlaps, 0.5, order="overlaps")
    assert matched.tolist() == pair_by_pair(overlaps, 0.5)


@given(overlaps=OVERLAPS)
def test_several_thresholds_are_matched_each_by_itself(overlaps):
    thresholds = np.array([0.5, 0.55, 0.8])
    alone = [match_boxes(overlaps, least).tolist() for least in thresholds]
    assert match_boxes(overlaps, thresholds).tolist() == alone


def test_of_two_overlaps_the_rank_decides():
    overlaps, rank = np.array([[0.9, 0.8]]), np.array([[0.1, 0.2]])
    assert match_boxes(overlaps, 0.5, order="overlaps", rank=rank).tolist() == [1]


@given(sets=st.lists(OVERLAPS, min_size=1, max_size=4))
def test_sets_side_by_side_are_matched_each_by_itself(sets):
    pairs, row, column, alone = [], 0, 0, []
    for group, overlaps in enumerate(sets):
        for i, j in sorted(np.ndindex(overlaps.shape), key=lambda at: (at[0], -overlaps[at])):
            pairs.append((group, row + i, column + j, overlaps[i, j] >= 0.5))
        partner = match_boxes(overlaps, 0.5)
        alone += np.where(partner < 0, -1, partner + column).tolist()
        row, column = row + overlaps.shape[0], column + overlaps.shape[1]
    groups, rows, columns, enough = np.array(pairs, np.int64).reshape(-1, 4).T
    together = match_pairs(groups, rows, columns, enough.astype(bool)[:, None], (row, column))
    assert together[:, 0].tolist() == alone
