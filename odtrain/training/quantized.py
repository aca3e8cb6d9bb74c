"""From which step on a training computes as the int8 file will."""

from __future__ import annotations

import math

from odtrain.config.schema import Config, TrainConfig
from odtrain.errors import ConfigError
from odtrain.models.retinanet import EXPERIMENTS


def check_quantizable(config: Config) -> None:
    """See that steps of the network can be quantised, where they are to be.

    Raises:
        ConfigError: they cannot.
    """
    if config.train.quantize_from is not None and config.model.architecture in EXPERIMENTS:
        raise ConfigError(
            f"train.quantize_from={config.train.quantize_from}",
            f"{config.model.name} has Model Garden's own layers, whose int8 arithmetic is not simulated.",
            "Leave it out, or choose an SSD or an EfficientDet-Lite.",
        )


def quantized_from(config: TrainConfig) -> float:
    """The steps behind this one are quantised: the first logged one from `train.quantize_from` on.

    Infinity for none. Checkpoints and validations come at logged steps too: none falls between two ways of
    computing.
    """
    if config.quantize_from is None:
        return math.inf
    return -(-config.quantize_from // config.log_every) * config.log_every
