"""Which numbers flow between the operators of a network, and the ranges that 256 levels are laid over.

A range is chosen in one of three ways: all that occurred, all but a hundredth of a per cent, or where rounding
and cutting off together cost the least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odtrain.export.int8.graph import Graph, readable
from odtrain.structures import FloatArray

HALF = 2048
"""Bins of a histogram on each side of zero."""
LOOKED_AT = 1 << 16
"""Numbers of a tensor and picture that a histogram takes, evenly chosen; largest and smallest are of all."""
KEPT_SHARE = 0.9999
"""Of the numbers that `most` keeps, half of the rest being cut off at each end."""
SHRUNK = np.geomspace(1.0, 0.2, 33)
"""Parts of the whole range that `least_error` tries."""
LEVELS = 255
"""Steps between the levels of a byte."""
Range = tuple[float, float]
Float64Array = NDArray[np.float64]


@dataclass
class Spread:
    """The numbers of one tensor.

    Attributes:
        low: the smallest, 0 at most: zero must be a level.
        high: the largest, 0 at least.
        reach: the histogram goes from -reach to reach.
        counts: (2 * HALF,) numbers in each bin.
        squares: (C,) sums of squares, by the last axis.
        seen: numbers in each channel.
    """

    low: float = 0.0
    high: float = 0.0
    reach: float = 0.0
    counts: Float64Array | None = None
    squares: Float64Array | None = None
    seen: int = 0

    def add(self, values: FloatArray) -> None:
        """Take the numbers of one picture."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        channels = values.reshape(-1, values.shape[-1] if values.ndim else 1)
        power = np.einsum("ij,ij->j", channels, channels, dtype=np.float64)
        self.squares = power if self.squares is None else self.squares + power
        self.seen += len(channels)
        self._widen(max(-low, high))
        assert self.counts is not None
        flat = values.reshape(-1)[:: max(1, values.size // LOOKED_AT)]
        place = ((flat / self.reach + 1) * HALF).astype(np.int64)
        self.counts += np.bincount(place.clip(0, 2 * HALF - 1), minlength=2 * HALF)

    def _widen(self, reach: float) -> None:
        """Let the histogram reach so far; two bins become one each time that it is doubled."""
        if self.counts is None:
            self.counts, self.reach = np.zeros(2 * HALF), reach or 1.0
        while self.reach < reach:
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(HALF // 2), joined, np.zeros(HALF // 2)])
            self.reach *= 2

    @property
    def centres(self) -> Float64Array:
        """(2 * HALF,) middle of each bin."""
        return (np.arange(2 * HALF, dtype=np.float64) + 0.5 - HALF) * (self.reach / HALF)

    def lost_channels(self) -> float:
        """The share of channels in which the levels of the whole range are no finer than the numbers.

        Levels that lie `step` apart are off by step**2 / 12 in the mean; a channel is lost where that is more
        than a tenth of its mean square. Channels without any numbers but zero are none.
        """
        if self.squares is None or not self.high > self.low:
            return 0.0
        power = self.squares / self.seen
        noise = ((self.high - self.low) / LEVELS) ** 2 / 12
        there = power > power.max() * 1e-12
        return float((power[there] < 10 * noise).mean()) if there.any() else 0.0


def whole(spread: Spread) -> Range:
    """All that occurred."""
    return spread.low, spread.high


def most(spread: Spread) -> Range:
    """All but the outermost of the numbers."""
    assert spread.counts is not None
    share = np.cumsum(spread.counts) / spread.counts.sum()
    edge = (1 - KEPT_SHARE) / 2
    width = spread.reach / HALF
    low = spread.centres[np.searchsorted(share, edge)] - width / 2
    high = spread.centres[np.searchsorted(share, 1 - edge).clip(0, 2 * HALF - 1)] + width / 2
    return _within(spread, float(low), float(high))


def least_error(spread: Spread) -> Range:
    """The part of the range in which the numbers, rounded and cut off, lie nearest to what they were."""
    assert spread.counts is not None
    filled = spread.counts > 0
    values, counts = spread.centres[filled], spread.counts[filled]

    def error(part: float) -> float:
        low, high = part * spread.low, part * spread.high
        step = (high - low) / LEVELS
        if not step > 0:
            return np.inf
        kept = np.rint((values.clip(low, high) - low) / step) * step + low
        return float(((values - kept) ** 2 * counts).sum())

    part = min(SHRUNK, key=error)
    return _within(spread, part * spread.low, part * spread.high)


def _within(spread: Spread, low: float, high: float) -> Range:
    """No wider than what occurred, with zero in it, and not without width where there was some."""
    low, high = max(spread.low, min(low, 0.0)), min(spread.high, max(high, 0.0))
    return (low, high) if high > low else (spread.low, spread.high)


CHOICES: dict[str, Callable[[Spread], Range]] = {
    "whole": whole,
    "most": most,
    "least_error": least_error,
}
"""How a range is chosen, by name."""


def spreads(network: bytes, pictures: Iterable[FloatArray]) -> dict[str, Spread]:
    """What every operator of a float32 network gives, by its name, and the picture.

    Args:
        network: a .tflite in float32.
        pictures: (1, H, W, 3) normalised ones.
    """
    interpreter = readable(network)
    graph = Graph.read(network)
    (image,) = interpreter.get_input_details()
    kinds = {each["index"]: each for each in interpreter.get_tensor_details()}
    places = [each for each in (graph.image, *graph.nodes) if kinds[each]["dtype"] == np.float32]
    found = {kinds[place]["name"]: Spread() for place in places}
    for picture in pictures:
        interpreter.set_tensor(image["index"], picture)
        interpreter.invoke()
        for place in places:
            if (values := interpreter.get_tensor(place)).size:
                found[kinds[place]["name"]].add(values)
    # A picture's bytes are brought to -1 to 1, whatever occurred in these.
    found[image["name"]].low, found[image["name"]].high = -1.0, 1.0
    return {name: spread for name, spread in found.items() if spread.counts is not None}
