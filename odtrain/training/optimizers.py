"""The optimizers a training can choose: one operation a variable, whatever the formula.

Keras builds its own of a dozen operations a variable, which takes seconds to trace and time in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from odtrain.config.schema import TrainConfig
from odtrain.errors import choose


class Custom:
    """What every optimizer here adds to tf_keras' own: clipping by variable, and averages that warm up.

    Attributes:
        clip_each: norm that each variable's gradient is scaled down to before the global one; None for none.
        ema_warmup: whether the average of weights keeps no more of its old value than
            (1 + step) / (10 + step), as `tf.train.ExponentialMovingAverage` with a step.
    """

    clip_each: float | None = None
    ema_warmup = False

    def _clip_gradients(self, grads: Any) -> Any:
        if self.clip_each:
            grads = [tf.clip_by_norm(gradient, self.clip_each) for gradient in grads]
        return super()._clip_gradients(grads)  # type: ignore[misc]

    def _update_model_variables_moving_average(self, var_list: Any) -> None:
        decay = self.ema_momentum  # type: ignore[has-type]
        if self.ema_warmup:
            step = tf.cast(self.iterations, tf.float32)  # type: ignore[attr-defined]
            self.ema_momentum = tf.minimum(decay, (1 + step) / (10 + step))
        super()._update_model_variables_moving_average(var_list)  # type: ignore[misc]
        self.ema_momentum = decay


class TF1RMSprop(Custom, tf_keras.optimizers.Optimizer):  # type: ignore[misc]
    """RMSProp as TensorFlow 1 computed it, with which the published models were trained.

    It differs from Keras' in two ways: the mean square starts at one, so that the first steps are
    small, and `epsilon` is added under the root. Momentum is taken of the scaled gradient:

        mean_square <- rho * mean_square + (1 - rho) * gradient^2
        momentum_   <- momentum * momentum_ + learning_rate * gradient / sqrt(mean_square + epsilon)
        variable    <- variable - momentum_
    """

    def __init__(
        self,
        learning_rate: float | tf_keras.optimizers.schedules.LearningRateSchedule = 0.004,
        rho: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1.0,
        name: str = "TF1RMSprop",
        **options: Any,
    ) -> None:
        """Make an optimizer without slots; `build` makes them.

        `rho` is the mean square's decay per step; `options` are tf_keras' own, such as
        `global_clipnorm`.
        """
        super().__init__(name=name, **({"jit_compile": False} | options))
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, var_list: list[tf.Variable]) -> None:
        """Make both slots of every variable, and its average if one is kept, once."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._mean_squares = [
            self.add_variable_from_reference(
                variable, "mean_square", initial_value=tf.ones(variable.shape, variable.dtype)
            )
            for variable in var_list
        ]
        self._momenta = [
            self.add_variable_from_reference(variable, "momentum") for variable in var_list
        ]
        self._slots_of = {self._var_key(variable): i for i, variable in enumerate(var_list)}
        self._built = True  # else the averages of the class above are made anew at the first step

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Take one step of one variable."""
        slot = self._slots_of[self._var_key(variable)]
        mean_square, momentum = self._mean_squares[slot], self._momenta[slot]
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=mean_square.handle,
            mom=momentum.handle,
            lr=tf.cast(self.learning_rate, variable.dtype),
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient),
        )

    def get_config(self) -> dict[str, Any]:
        """What `from_config` makes the same optimizer of, without its slots."""
        return {
            **super().get_config(),
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


class FusedAdam(Custom, tf_keras.optimizers.Adam):  # type: ignore[misc]
    """tf_keras' Adam, with its slots and formula (Kingma and Ba 2015, before section 2.1)."""

    def apply_gradients(self, grads_and_vars: Any, *args: Any, **options: Any) -> tf.Tensor:
        """Take one step of all variables."""
        step = tf.cast(self.iterations + 1, tf.float32)
        self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        return super().apply_gradients(grads_and_vars, *args, **options)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Take one step of one variable."""
        slot = self._index_dict[self._var_key(variable)]
        power_1, power_2 = self._powers
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[slot].handle,
            v=self._velocities[slot].handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=self.learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(gradient),
        )


class FusedMomentum(Custom, tf_keras.optimizers.SGD):  # type: ignore[misc]
    """tf_keras' SGD with momentum, with its slots and formula."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Take one step of one variable."""
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._index_dict[self._var_key(variable)]].handle,
            lr=self.learning_rate,
            grad=tf.convert_to_tensor(gradient),
            momentum=self.momentum,
        )


def build_optimizer(
    config: TrainConfig, learning_rate: tf_keras.optimizers.schedules.LearningRateSchedule
) -> tf_keras.optimizers.Optimizer:
    """The optimizer that `config` names, keeping averaged weights if `ema_decay` is set.

    Raises:
        ConfigError: an unknown optimizer.
    """
    options: dict[str, Any] = {"global_clipnorm": config.clip_norm}
    if config.ema_decay:
        options |= {
            "use_ema": True,
            "ema_momentum": config.ema_decay,
            "ema_overwrite_frequency": None,
        }
    name = choose("train.optimizer", config.optimizer, list(OPTIMIZERS))
    optimizer = OPTIMIZERS[name](config, learning_rate, options)
    optimizer.clip_each, optimizer.ema_warmup = config.clip_each, config.ema_warmup
    return optimizer


def _rmsprop(config: TrainConfig, rate: Any, options: dict[str, Any]) -> TF1RMSprop:
    return TF1RMSprop(
        rate, config.rmsprop_decay, config.momentum, config.rmsprop_epsilon, **options
    )


def _momentum(config: TrainConfig, rate: Any, options: dict[str, Any]) -> FusedMomentum:
    return FusedMomentum(rate, momentum=config.momentum, jit_compile=False, **options)


def _adam(config: TrainConfig, rate: Any, options: dict[str, Any]) -> FusedAdam:
    return FusedAdam(rate, jit_compile=False, **options)


OPTIMIZERS: dict[
    str, Callable[[TrainConfig, Any, dict[str, Any]], tf_keras.optimizers.Optimizer]
] = {
    "rmsprop": _rmsprop,
    "momentum": _momentum,
    "adam": _adam,
}
