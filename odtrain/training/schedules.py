"""Learning rate over the steps of a training, built of Model Garden's and Keras' schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tf_keras
from official.modeling.optimization.lr_schedule import LinearWarmup
from tf_keras.optimizers import schedules

from odtrain.config.schema import TrainConfig

Schedule: TypeAlias = schedules.LearningRateSchedule

MOST_WARMUP = 5
"""Warm-up takes at most one in so many steps, however short the training."""


class Constant(Schedule):  # type: ignore[misc]
    """The same learning rate at every step, in the form that warm-up wraps."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate

    def __call__(self, step: object) -> object:
        """The learning rate at `step`."""
        return tf_keras.backend.constant(self.learning_rate, "float32")

    def get_config(self) -> dict[str, float]:
        """What Keras saves of it."""
        return {"learning_rate": self.learning_rate}


def _step(config: TrainConfig, decay_steps: int) -> Schedule:
    return schedules.ExponentialDecay(
        config.learning_rate, decay_steps, config.decay_factor, staircase=True
    )


def _exponential(config: TrainConfig, decay_steps: int) -> Schedule:
    return schedules.ExponentialDecay(config.learning_rate, decay_steps, config.decay_factor)


def _manual(config: TrainConfig, _: int) -> Schedule:
    scale = config.steps / (config.schedule_steps or config.steps)
    steps = [round(step * scale) for step in config.manual_steps]
    # A rate holds from its step on; Keras keeps the one before up to and with a boundary.
    return schedules.PiecewiseConstantDecay(
        [step - 1 for step in steps], [config.learning_rate, *config.manual_rates]
    )


SCHEDULES: dict[str, Callable[[TrainConfig, int], Schedule]] = {
    "constant": lambda config, _: Constant(config.learning_rate),
    "step": _step,
    "exponential": _exponential,
    "manual": _manual,
    "cosine": lambda config, decay_steps: schedules.CosineDecay(config.learning_rate, decay_steps),
}


def learning_rate(config: TrainConfig) -> Schedule:
    """The schedule of `config`, its warm-up and decay scaled from `schedule_steps` to `steps`."""
    scale = config.steps / (config.schedule_steps or config.steps)
    warmup = min(round(config.warmup_steps * scale), config.steps // MOST_WARMUP)
    decay = max(1, round((config.decay_steps or config.schedule_steps or config.steps) * scale))
    if config.schedule == "cosine_after_warmup":
        return _cosine_after_warmup(config, warmup, decay)
    schedule = SCHEDULES[config.schedule](config, decay)
    if not warmup:
        return schedule
    return LinearWarmup(
        schedule, warmup_steps=warmup, warmup_learning_rate=config.warmup_learning_rate
    )


def _cosine_after_warmup(config: TrainConfig, warmup: int, end: int) -> Schedule:
    """The reference's `cosine_decay_with_warmup`: half a cosine over the steps behind the warm-up."""
    rest = max(1, end - warmup)
    if not warmup:
        return schedules.CosineDecay(config.learning_rate, rest)
    return schedules.CosineDecay(
        config.warmup_learning_rate, rest, warmup_target=config.learning_rate, warmup_steps=warmup
    )
