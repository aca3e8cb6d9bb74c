"""A network's variables behind others: those made first are noted, then given to who would make their like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from odtrain.errors import ConfigError
from odtrain.models.ssd import SSD

Make = Callable[..., tf.Variable]


def noted(made: list[tf.Variable]) -> AbstractContextManager[None]:
    """Inside, every variable that is made is added to `made`, as layers make them: before they are cast."""

    def note(make: Make, **options: Any) -> tf.Variable:
        made.append(make(**options))
        return made[-1]

    return tf.variable_creator_scope(note)  # type: ignore[no-any-return]


class Sharing:
    """Hands the variables of a network, in the order in which they were made, to one that is built like it."""

    def __init__(self, first: SSD, made: Sequence[tf.Variable], size: tuple[int, int]) -> None:
        self._first = first
        self._waiting = list(made)
        self._size = size

    def scope(self) -> AbstractContextManager[None]:
        """Inside, no variable is made.

        Raises:
            ConfigError: from whoever makes a variable inside that is not shaped as the first network's.
        """
        return tf.variable_creator_scope(self._next)  # type: ignore[no-any-return]

    def _next(self, make: Make, **options: Any) -> tf.Variable:
        name, shape = options.get("name") or "a variable", _shape(options)
        if not self._waiting:
            raise self._refusal(f"{name} {shape} beyond those of the first")
        variable = self._waiting.pop(0)
        if tuple(variable.shape) != shape:
            raise self._refusal(f"{name} {shape}, where the first has {tuple(variable.shape)}")
        return variable

    def check(self, detector: SSD) -> None:
        """That each name of a published variable means the same one in both, and that none is left.

        Raises:
            ConfigError: it does not.
        """
        if self._waiting:
            raise self._refusal(f"variables fewer, {len(self._waiting)} in all")
        mine, firsts = detector.variables_by_name(), self._first.variables_by_name()
        for name in sorted({*mine, *firsts}):
            if name not in mine or name not in firsts or _own(mine[name]) is not _own(firsts[name]):
                raise self._refusal(f"another {name}")

    def _refusal(self, difference: str) -> ConfigError:
        config, (height, width) = self._first.config, self._size
        return ConfigError(
            "train.multi_scale",
            f"{config.architecture} at {height}x{width} is another network than at "
            f"{config.size[0]}x{config.size[1]}: it has {difference}.",
            "Leave it out.",
        )


def _own(variable: tf.Variable) -> tf.Variable:
    """The variable itself, which layers of another dtype wrap, each for itself."""
    return getattr(variable, "_variable", variable)


def _shape(options: dict[str, Any]) -> tuple[int, ...]:
    """Of the variable that these options would make; layers leave it out where it is a scalar's."""
    if options.get("shape") is not None:
        return tuple(tf.TensorShape(options["shape"]))
    value = options.get("initial_value")
    return () if callable(value) or value is None else tuple(tf.convert_to_tensor(value).shape)
