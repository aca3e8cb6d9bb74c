"""Which boxes of two sets are the same object, one to one: the greedy matching of evaluation and labelling."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from odtrain.structures import IntArray


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
    partner = np.full((*least.shape, len(overlaps)), -1)
    free = np.ones((*least.shape, overlaps.shape[1]), bool)
    for pair in np.lexsort(keys).tolist():
        row, column = rows[pair], columns[pair]
        enough = overlaps[row, column] >= least
        taken = enough & free[..., column] & (partner[..., row] < 0)
        partner[..., row] = np.where(taken, column, partner[..., row])
        free[..., column] &= ~taken
    return partner
