"""The ranges that published checkpoints bring which were trained with simulated 8-bit arithmetic.

TensorFlow 1's `contrib.quantize` leaves `SCOPE/act_quant/min` and `max` behind a convolution, `conv_quant` and
`add_quant` at a sum. Those of its kernels are of whole layers; here each channel has its own, by its weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

import numpy as np

from odtrain.models.int8.ranges import Range, Ranges
from odtrain.zoo.checkpoints import Checkpoint

BEHIND_LAYERS = ("act_quant", "conv_quant")
BEHIND_SUMS = ("add_quant", "add/add_quant", "post_activation_bypass_quant")
PREDICTORS = {"encodings": "BoxEncodingPredictor", "logits": "ClassPredictor"}
"""Points behind the predictors of all maps, each of which has ranges of its own in TensorFlow 1."""


def take_ranges(ranges: Ranges, found: Checkpoint, restored: Set[str]) -> int:
    """Give points the ranges that a checkpoint has for them; return how many it had.

    Args:
        ranges: of the network, assigned.
        found: the checkpoint, in which what is taken is noted as used.
        restored: names of the network's variables that have the checkpoint's values. Ranges of others are of
            other weights, and are left.
    """
    taken = {}
    for point in ranges.low:
        if (range_ := _range_of(point, found, restored)) is not None:
            taken[point] = range_
    ranges.take(taken)
    return len(taken)


def _range_of(point: str, found: Checkpoint, restored: Set[str]) -> Range | None:
    """All that the layers of a point reach to; None where one of them has no range, or is new."""
    ends = []
    for scope in _scopes(point, restored):
        key = next(filter(lambda key: f"{key}/min" in found.shapes, _keys(scope)), None)
        if key is None:
            return None
        for end in ("min", "max"):
            found.keys[f"ranges/{scope}/{end}"] = f"{key}/{end}"
        ends.append([found.value(f"ranges/{scope}/{end}") for end in ("min", "max")])
    if not ends:
        return None
    low, high = np.array(ends, np.float32).T
    return Range(min(low.min(), 0.0), max(high.max(), 0.0))


def _scopes(point: str, restored: Set[str]) -> Iterator[str]:
    """Slim's scopes of the layers whose outputs have the range of a point, if they are restored."""
    if point in PREDICTORS:
        part = f"/{PREDICTORS[point]}/"
        numbers = {name.partition(part)[0] for name in restored if part in name}
        yield from (f"{number}{part}".rstrip("/") for number in sorted(numbers))
        return
    scope = re.sub(r"/(activation|BatchNorm)$", "", point)
    inside = scope.removesuffix("/sum")
    if any(name.startswith(f"{inside}/") for name in restored):
        yield scope


def _keys(scope: str) -> Iterator[str]:
    """Where `contrib.quantize` may have a range; it goes by operations, some of which have a scope twice."""
    owner = scope.removesuffix("/sum")
    kinds = BEHIND_LAYERS if owner == scope else BEHIND_SUMS
    twice = re.sub(r"(?<=/)(Mobilenet\w+/)", r"\1\1", owner)
    yield from (f"{each}/{kind}" for each in dict.fromkeys((owner, twice)) for kind in kinds)
