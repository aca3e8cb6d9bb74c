"""From which step on a training computes as the int8 file will."""

from __future__ import annotations

import math

from odtrain.config.schema import TrainConfig


def quantized_from(config: TrainConfig) -> float:
    """The steps behind this one are quantised: the first logged one from `train.quantize_from` on.

    Infinity for none. Checkpoints and validations come at logged steps too: none falls between two ways of
    computing.
    """
    if config.quantize_from is None:
        return math.inf
    return -(-config.quantize_from // config.log_every) * config.log_every
