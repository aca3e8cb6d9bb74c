"""Which new pictures are worth labelling first: those that the model is unsure of, and unlike the others.

Uncertainty sampling weighted by how new a picture is, chosen one after the other so that the first hundred
do not show the same scene a hundred times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odtrain.media.phash import BITS, as_words, distances
from odtrain.structures import Detections

NOTICED = 0.1
"""Lowest score of a detection that says something about a picture."""
UNREMARKABLE = 0.05
"""Worth of a picture that the model is sure of, before its novelty: it may still be missing an object."""
UNLIKE = BITS / 2
"""Bits in which unrelated pictures differ; from there on a picture is entirely new."""


@dataclass(frozen=True)
class Worth:
    """Why a picture stands where it stands.

    Attributes:
        uncertainty: 0 to 1, how unsure the model is of what it shows.
        rarity: 0 to 1, how rare the classes are that it may show.
        novelty: 0 to 1, how unlike the known pictures and those before it.
    """

    uncertainty: float
    rarity: float
    novelty: float

    @property
    def total(self) -> float:
        """What pictures are ordered by."""
        return (UNREMARKABLE + self.uncertainty + self.rarity) * self.novelty


def uncertainty(found: Detections) -> float:
    """From 0, sure, to 1: 1 - the product of 1 - 4 p (1 - p) over the detections of score p.

    4 p (1 - p) is the variance of a coin of probability p, relative to the largest there is: 1 at 0.5.
    """
    scores = found.scores[found.scores >= NOTICED].astype(np.float64)
    return float(1 - np.prod(1 - 4 * scores * (1 - scores)))


def rarity(found: Detections, known: Mapping[int, int]) -> float:
    """Largest score of a detection times how rare its class is among the labelled boxes.

    Args:
        found: in the picture.
        known: class id -> labelled boxes; empty where nothing is known, and nothing is rare then.
    """
    if not known:
        return 0.0
    most = max(known.values()) or 1
    rare = [
        float(score) * (1 - known.get(int(number), 0) / most)
        for number, score in zip(found.classes, found.scores, strict=True)
        if score >= NOTICED
    ]
    return max(rare, default=0.0)


def order(
    found: Sequence[Detections],
    hashes: Sequence[str],
    known_hashes: Sequence[str] = (),
    known_boxes: Mapping[int, int] | None = None,
) -> list[tuple[int, Worth]]:
    """Positions of pictures, the most worthwhile first, each with why.

    Args:
        found: what the model sees in each picture, at low scores too.
        hashes: `likeness.difference_hash` of each picture.
        known_hashes: of the pictures that are labelled already.
        known_boxes: class id -> boxes that are labelled already.
    """
    if not hashes:
        return []
    fixed = [(uncertainty(each), rarity(each, known_boxes or {})) for each in found]
    value = np.array([UNREMARKABLE + unsure + rare for unsure, rare in fixed])
    words = as_words(hashes)
    novelty: NDArray[np.float64] = np.ones(len(hashes))
    for word in as_words(known_hashes) if known_hashes else ():
        novelty = np.minimum(novelty, distances(word, words) / UNLIKE)
    open_ones = np.ones(len(hashes), bool)
    ordered = []
    for _ in hashes:
        place = int(np.argmax(np.where(open_ones, value * novelty, -1)))
        ordered.append((place, Worth(*fixed[place], float(novelty[place]))))
        open_ones[place] = False
        novelty = np.minimum(novelty, distances(words[place], words) / UNLIKE)
    return ordered
