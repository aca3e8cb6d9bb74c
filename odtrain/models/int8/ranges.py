"""Ranges within which 8 bits tell values apart: how they follow a training, and how values are rounded in them.

The operation and the constants are those of tensorflow-model-optimization's quantizers. Those begin at -6 to 6,
and their variables can be updated neither by several devices nor in the passes of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

SETTLED = 1000.0
"""Steps that count alike in a range; and which those have that come from another training."""
DECAY = 1 - 1 / SETTLED
"""Of a range, a step, from there on."""
NARROWEST = 1e-5
"""Width of the range of a map that is 0 everywhere."""


class Range(NamedTuple):
    """From where to where values are told apart in 8 bits."""

    low: Any
    high: Any


ALL = Range(-np.inf, np.inf)


class Ranges(tf.Module):  # type: ignore[misc]
    """What training has learned beside the weights: a range for each point, by name.

    Each replica follows its share of the batches; what is saved is their mean, as of batch norm's statistics.

    Attributes:
        low: least value by point, at most 0.
        high: largest value by point, at least 0.
        seen: (points,) steps that they have followed, in their order; 0 where they mean nothing yet.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(name="ranges")
        self.low = {name: _variable(f"{name}/min") for name in names}
        self.high = {name: _variable(f"{name}/max") for name in names}
        self.seen = _variable("seen", (len(names),))

    @property
    def trained(self) -> bool:
        """Whether they hold what a network was trained with."""
        return bool((self.seen.numpy() > 0).all())

    def values(self) -> dict[str, Range]:
        """What they are now, by point."""
        return {
            point: Range(float(self.low[point].numpy()), float(self.high[point].numpy()))
            for point in self.low
        }

    def take(self, ranges: Mapping[str, Range]) -> None:
        """Give points ranges that another training has settled."""
        steps = self.seen.numpy()
        for number, point in enumerate(self.low):
            if point in ranges:
                self.low[point].assign(ranges[point].low)
                self.high[point].assign(ranges[point].high)
                steps[number] = SETTLED
        self.seen.assign(steps)

    def by_name(self) -> dict[str, tf.Variable]:
        """Every variable, as `ranges/...`."""
        found = {"ranges/seen": self.seen}
        for name in self.low:
            found |= {f"ranges/{name}/min": self.low[name], f"ranges/{name}/max": self.high[name]}
        return found


def _variable(name: str, shape: tuple[int, ...] = ()) -> tf.Variable:
    return tf.Variable(
        np.zeros(shape, np.float32),
        trainable=False,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.MEAN,
    )


class Simulated:
    """Rounds as int8 does and passes gradients on as if it did not; in training ranges follow the batch."""

    def __init__(self, ranges: Ranges, training: bool) -> None:
        self.ranges = ranges
        self.training = training
        shares = tf.maximum(1 - DECAY, 1 / (ranges.seen + 1.0))
        self.shares = dict(zip(ranges.low, tf.unstack(shares, len(ranges.low)), strict=True))

    def folding(self) -> AbstractContextManager[object]:
        """Where kernels are made of variables."""
        return nullcontext()

    def kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """(h, w, I, O), rounded by each output channel's largest weight."""
        most = tf.stop_gradient(tf.reduce_max(tf.abs(kernel), [0, 1, 2]))
        most = tf.maximum(most, NARROWEST)  # of a channel that is 0 everywhere
        return tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernel, -most, most, narrow_range=True
        )

    def bias(self, bias: tf.Tensor) -> tf.Tensor:
        """(O,) as it is: the file has it in 32 bits."""
        return bias

    def within(self, x: tf.Tensor, range_: Range) -> tf.Tensor:
        """`x` rounded within a range."""
        low, high = (tf.cast(end, tf.float32) for end in range_)
        return tf.quantization.fake_quant_with_min_max_vars(x, low, high)

    def range_at(self, point: str, x: tf.Tensor, bounds: Range) -> Range:
        """The range of a point after it has followed what goes through there; always with 0 in it."""
        ends = self.ranges.low[point], self.ranges.high[point]
        low, high = (variable + 0.0 for variable in ends)
        if self.training:
            x = tf.stop_gradient(tf.clip_by_value(x, *bounds))
            low += self.shares[point] * (tf.minimum(tf.reduce_min(x), 0.0) - low)
            high += self.shares[point] * (tf.maximum(tf.reduce_max(x), 0.0) - high)
            for variable, value in zip(ends, (low, high), strict=True):
                variable.assign(value)
        return Range(low, tf.maximum(high, low + NARROWEST))

    def done(self) -> None:
        """A batch is through."""
        if self.training:
            self.ranges.seen.assign_add(tf.ones_like(self.ranges.seen))


class Deployed(Simulated):
    """The same in constants, for the converter, which rounds kernels itself by the same rule."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges

    def folding(self) -> AbstractContextManager[object]:
        """Outside the graph that is converted."""
        return tf.init_scope()  # type: ignore[no-any-return]

    def kernel(self, kernel: tf.Tensor) -> tf.Tensor:
        """A constant."""
        return tf.constant(kernel.numpy())

    def bias(self, bias: tf.Tensor) -> tf.Tensor:
        """A constant."""
        return tf.constant(bias.numpy())

    def within(self, x: tf.Tensor, range_: Range) -> tf.Tensor:
        """`x`, whose range the converter is told."""
        return tf.quantization.fake_quant_with_min_max_args(x, *map(float, range_))

    def range_at(self, point: str, x: tf.Tensor, bounds: Range) -> Range:
        """What training has left."""
        with tf.init_scope():
            low, high = (float(ends[point]) for ends in (self.ranges.low, self.ranges.high))
        return Range(low, max(high, low + NARROWEST))

    def done(self) -> None:
        """Ranges stay as they are."""
