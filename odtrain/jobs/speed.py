"""What a training computes with, decided and told before its first step, so that a slow run explains itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from odtrain.config.schema import Config, replaced
from odtrain.errors import ConfigError
from odtrain.jobs.context import RunContext
from odtrain.models.build import DENSE, INVERTED
from odtrain.system.progress import doing
from odtrain.training.bound import PASSES, gflop_of_training, time_matrix_product
from odtrain.training.precision import Kind, fastest, steps_here, this_place
from odtrain.zoo.costs import cost_of

logger = logging.getLogger(__name__)

PRECISION = "train.precision"
WORTH_A_WARNING = 1.1
"""How many times as long a step takes in the precision that was asked for."""


def with_precision(config: Config) -> Config:
    """The configuration with `train.precision=auto` decided for this machine, once and for all.

    Raises:
        ConfigError: bf16 is asked for, and cannot be computed here.
    """
    if config.train.precision == "auto":
        return replaced(config, {PRECISION: decided([config])})
    if config.train.precision == "bf16":
        _check_bf16(config)
    return config


def decided(configs: list[Config]) -> str:
    """The fastest precision for networks that are to have the same; said with the reason.

    One that is slow in bf16 decides for all: it loses more than the others gain.
    """
    measured = [steps_here(kind) for kind in narrowest(map(kind_of, configs))]
    steps = max(measured, key=lambda each: each.factor)
    precision = fastest(this_place(), steps)
    logger.info(f"{PRECISION}=auto is {precision} here: {steps}.")
    return precision


def kind_of(config: Config) -> Kind:
    """The kind of network of which the configured one is."""
    model = config.model
    kinds = {"dense": DENSE, "inverted": INVERTED}
    blocks = (name for name, members in kinds.items() if model.architecture in members)
    return Kind(next(blocks, "separable"), min(1.0, model.depth_multiplier))


def narrowest(kinds: Iterable[Kind]) -> list[Kind]:
    """Of each blocks that there are, the kind in which bf16 gains the least."""
    return list({kind.blocks: kind for kind in sorted(kinds, reverse=True)}.values())


def _check_bf16(config: Config) -> None:
    place, steps = this_place(), steps_here(kind_of(config))
    how = f"{place.name}, {place.instructions}"
    if steps.bf16 is None:
        raise ConfigError(
            f"{PRECISION}=bf16",
            f"TensorFlow cannot compute it on this processor ({how}).",
            f"Give {PRECISION}=auto, or fp32; a run begun in bf16 goes on where it can be computed.",
        )
    if place.bf16 and steps.factor < WORTH_A_WARNING:
        return
    why = "saves memory alone" if place.bf16 else "is emulated"
    logger.warning(
        f"{PRECISION}=bf16 {why} on this processor ({how}), and takes {steps.factor:.1f} times as long "
        f"as fp32: {steps}."
    )


@doing("Measuring how fast this machine computes")
def record_speed(context: RunContext, network: Any) -> float:
    """Say and log what the run computes with.

    Returns:
        The pictures a second that the product of two fp32 matrices allows the network in training.
    """
    place, product = this_place(), time_matrix_product()
    precision = context.config.train.precision
    # Where layers hide their convolutions the graph shows them; that all are trained is assumed then.
    gflop = gflop_of_training(network) or 2e-9 * PASSES * cost_of(network).macs
    bound = product.gflops / gflop
    logger.info(
        f"Computing in {precision} on {place}. The product of two fp32 matrices reaches "
        f"{product.gflops:.0f} GFLOP/s, which bounds this training at {bound:.1f} images/s."
    )
    context.tracker.set_tags(
        {
            "odtrain.processor": place.name,
            "odtrain.instructions": place.instructions,
            "odtrain.precision": precision,
            "odtrain.onednn": "on" if place.onednn else "off",
            "odtrain.threads": place.threads,
            "odtrain.fp32_gflops": f"{product.gflops:.1f}",
        }
    )
    return bound
