"""Which pictures look alike: a difference hash of 256 bits, and all pairs and groups near each other.

Two copies of a picture keep nearly all bits when one is scaled, compressed anew or slightly brightened;
different pictures differ in about half of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime.seen.looks import HASH_SIDE
from odtrain_runtime.seen.looks import difference_hash as difference_hash

BITS = HASH_SIDE * HASH_SIDE
NEAR = 26
"""Pictures that differ in at most so many bits count as near duplicates. Of the 200 raccoon photographs
eight pairs do, by at most 14 bits, and all are copies; the next pair differs in 82."""
WORDS = BITS // 64
PAIRS_AT_ONCE = 2**20

Words = NDArray[np.uint64]


def as_words(hashes: Sequence[str]) -> Words:
    """(N, WORDS) of N hashes, for `distances`."""
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64)
    return packed.reshape(-1, WORDS)


def distances(word: Words, words: Words) -> NDArray[np.int64]:
    """(N,) in how many bits a hash (WORDS,) differs from each of N hashes (N, WORDS)."""
    differ: NDArray[np.int64] = np.bitwise_count(words ^ word).sum(axis=1, dtype=np.int64)
    return differ


def near_pairs(hashes: Sequence[str], most: int = NEAR) -> Iterator[tuple[int, int, int]]:
    """Every pair i < j of hashes that differ in at most `most` bits, and in how many, in order."""
    words = as_words(hashes)
    for i, others, bits in _near_rows(words, most):
        yield from ((i, int(j), int(n)) for j, n in zip(others, bits, strict=True))


def near_groups(hashes: Sequence[str], most: int = NEAR) -> list[list[int]]:
    """Positions of hashes that hang together by pairs that differ in at most `most` bits.

    A is with C where both are near B, as frames of one scene are. Takes memory in proportion to the
    number of hashes, and some seconds for 50,000 different ones.

    Returns:
        Groups of two or more, each in ascending order, ordered by their first members.
    """
    words, which = np.unique(as_words(hashes), axis=0, return_inverse=True)
    group = np.arange(len(words))
    for i, others, _ in _near_rows(words, most):
        joined = np.unique(group[np.append(others, i)])
        if len(joined) > 1:
            group[np.isin(group, joined)] = joined[0]
    members: dict[int, list[int]] = {}
    for position, number in enumerate(group[which.reshape(-1)].tolist()):
        members.setdefault(number, []).append(position)
    return [positions for positions in members.values() if len(positions) > 1]


def _near_rows(
    words: Words, most: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """For each row with any: it, the later rows that differ in at most `most` bits, in how many.

    Half of the bits rule out nearly every pair, so that the other half is seldom looked at.
    """
    columns = [np.ascontiguousarray(column) for column in words.T]
    half = WORDS // 2
    count = len(words)
    start = 0
    while start < count:
        end = min(count, start + max(1, PAIRS_AT_ONCE // (count - start)))
        bits = _differing([column[start:end] for column in columns[:half]], columns[:half], start)
        rows, others = np.nonzero(bits <= most)
        later = others > rows
        rows, others = rows[later] + start, others[later] + start
        differ = np.bitwise_count(words[rows] ^ words[others]).sum(axis=1, dtype=np.int64)
        near = differ <= most
        yield from _by_row(rows[near], others[near], differ[near])
        start = end


def _differing(some: list[Words], columns: list[Words], start: int) -> NDArray[np.uint8]:
    """(S, N - start): bits in which S hashes differ from those from `start` on, over some words."""
    total: NDArray[np.uint8] = np.bitwise_count(some[0][:, None] ^ columns[0][start:])
    for mine, column in zip(some[1:], columns[1:], strict=True):
        total += np.bitwise_count(mine[:, None] ^ column[start:])
    return total


def _by_row(
    rows: NDArray[np.int64], others: NDArray[np.int64], bits: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs that are ordered by row, a row at a time."""
    first, begins = np.unique(rows, return_index=True)
    ends = [*begins[1:], len(rows)] if len(rows) else []
    for row, begin, end in zip(first.tolist(), begins, ends, strict=True):
        yield row, others[begin:end], bits[begin:end]
