"""Which sizes a network's input has in a training of several: `train.multi_scale`."""

from __future__ import annotations

from math import lcm

from odtrain.config.schema import ModelConfig, rules
from odtrain.errors import ConfigError

STRIDE = 32
"""Pixels of a cell of the coarsest map of every backbone here: sizes differ in multiples of it."""
MOST_EACH = 2
"""Sizes below `model.input_size`, and above: each is a graph of its own."""
SMALLEST = 32


def input_sizes(model: ModelConfig, span: float) -> list[tuple[int, int]]:
    """(height, width) in pixels: `model.size`, and behind it those around it, up to `span` of it away.

    The longer side differs in steps, the other goes along as nearly as steps allow. There is `model.size` alone
    where not even one step fits.
    """
    longer = max(model.size)
    step = size_step(model)
    most = int(span * longer / step + 1e-9)
    counts = sorted({-(-most * part // MOST_EACH) for part in range(1, MOST_EACH + 1)} - {0})

    def moved(count: int) -> tuple[int, int]:
        height, width = (
            max(SMALLEST, side + step * round(count * side / longer)) for side in model.size
        )
        return height, width

    return [model.size, *(moved(way * count) for count in counts for way in (-1, 1))]


def check_sizes(model: ModelConfig, span: float) -> None:
    """That a training of several sizes has another one than `model.size`.

    Raises:
        ConfigError: it has not.
    """
    if not span or len(input_sizes(model, span)) > 1:
        return
    longer, step = max(model.size), size_step(model)
    least = -(-100 * step // longer) / 100
    if least > rules("train.multi_scale")["at_most"]:
        remedy = f"Give model.input_size={2 * step} or more, or leave train.multi_scale out."
    else:
        remedy = f"Give train.multi_scale={least:g} or more."
    raise ConfigError(
        f"train.multi_scale={span:g}",
        f"{model.name} changes its input in steps of {step} pixels: none is that near to {longer}.",
        remedy,
    )


def size_step(model: ModelConfig) -> int:
    """By how many pixels the input's sides may differ."""
    return lcm(STRIDE, model.input_multiple)
