"""The search space of a sweep: read from `sweep.space`, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from odtrain.config.compose import compose_config
from odtrain.config.schema import Config
from odtrain.errors import ConfigError

FIELDS = ("choices", "low", "high", "log", "step", "when")
NOT_TRIED = ("sweep", "tracking.", "outputs", "export.format", "registry.", "train.resume")
"""Beginnings of keys that say where trainings go, or that the driver itself gives."""
MOST_CHECKED = 200
"""Combinations of choices that are composed before the first training, to see that they exist."""


class Trial(Protocol):
    """What draws values: an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """A whole number from `low` to `high`."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        """A number from `low` to `high`."""


@dataclass(frozen=True)
class Dimension:
    """What one key of the configuration may be.

    Attributes:
        key: of the configuration, or a group.
        choices: the values, or None for a range.
        low: end of the range, included.
        high: end of the range, included.
        log: whether the range is drawn from on a logarithmic scale.
        step: between the values of a range.
        when: key -> values; the key is only drawn while each of these keys has one of its values.
    """

    key: str
    choices: tuple[Any, ...] | None
    low: float | None
    high: float | None
    log: bool
    step: float | None
    when: Mapping[str, tuple[Any, ...]]

    def applies(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the key is tried beside the values `drawn` so far."""
        return all(drawn.get(key) in values for key, values in self.when.items())

    def draw(self, trial: Trial) -> Any:
        """A value, as the trial's sampler suggests it."""
        if self.choices is not None:
            return trial.suggest_categorical(self.key, self.choices)
        assert self.low is not None and self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = int(self.step or 1)
            return trial.suggest_int(self.key, self.low, self.high, step=step, log=self.log)
        return trial.suggest_float(
            self.key, float(self.low), float(self.high), step=self.step, log=self.log
        )

    def distribution(self) -> BaseDistribution:
        """What Optuna keeps of it."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None and self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, self.log, int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), self.log, self.step)

    def holds(self, value: Any) -> bool:
        """Whether the key can be given that value."""
        if self.choices is not None:
            return value in self.choices
        assert self.low is not None and self.high is not None
        return _is_number(value) and self.low <= value <= self.high

    def ends(self) -> tuple[Any, ...]:
        """All choices, or both ends of the range."""
        return self.choices if self.choices is not None else (self.low, self.high)


def read_space(space: Mapping[str, Any]) -> list[Dimension]:
    """The dimensions of `sweep.space`, those that others depend on first.

    Raises:
        ConfigError: a field that is not known, an empty range, or a condition on a key that is not
            in the space.
    """
    if not space:
        raise ConfigError("sweep.space={}", "nothing to try.", "Choose sweep/space=quick.")
    dimensions = [_dimension(key, value) for key, value in space.items()]
    return _in_order(dimensions)


def draw(dimensions: Sequence[Dimension], trial: Trial) -> dict[str, Any]:
    """One point of the space, key -> value."""
    drawn: dict[str, Any] = {}
    for dimension in dimensions:
        if dimension.applies(drawn):
            drawn[dimension.key] = dimension.draw(trial)
    return drawn


def as_overrides(point: Mapping[str, Any]) -> list[str]:
    """A point as overrides; groups (`model=NAME`) first, so that their keys can follow."""
    ordered = sorted(point.items(), key=lambda item: "." in item[0])
    return [f"{key}={_written(value)}" for key, value in ordered]


def check_space(
    dimensions: Sequence[Dimension], overrides: Sequence[str], config_dir: str | None = None
) -> Iterator[Config]:
    """Compose the corners of the space on top of `overrides`, at most `MOST_CHECKED` of them.

    Raises:
        ConfigError: a key, choice or value that the configuration does not have.
    """
    for point in islice(_corners(dimensions), MOST_CHECKED):
        yield compose_config([*overrides, *as_overrides(point)], config_dir)


def _corners(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Points that hold every choice and every end of a range once, one key changed at a time.

    Groups are combined with everything, since they bring values of their own.
    """
    groups = [one for one in dimensions if "." not in one.key]
    rest = [one for one in dimensions if "." in one.key]
    for group in _combinations(groups):
        yield _completed(group, rest, {})
        for one in rest:
            needed = {key: values[0] for key, values in one.when.items()}
            if any(group.get(key, value) != value for key, value in needed.items()):
                continue
            for value in one.ends() if one.when else one.ends()[1:]:
                yield _completed(group, rest, {**needed, one.key: value})


def _completed(
    group: Mapping[str, Any], rest: Sequence[Dimension], given: Mapping[str, Any]
) -> dict[str, Any]:
    """`group` and `given`, and the first value of every other key that applies beside them."""
    point = dict(group)
    for one in rest:
        if one.applies(point):
            point[one.key] = given.get(one.key, one.ends()[0])
    return point


def _combinations(groups: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    if not groups:
        yield {}
        return
    for point in _combinations(groups[:-1]):
        if not groups[-1].applies(point):
            yield point
            continue
        for value in groups[-1].ends():
            yield {**point, groups[-1].key: value}


def _dimension(key: str, value: Any) -> Dimension:
    low: Any
    high: Any
    where = f"sweep.space: {key}"
    if not isinstance(value, Mapping) or not (
        {"choices"} <= set(value) or {"low", "high"} <= set(value)
    ):
        raise ConfigError(
            where,
            f"{value} is neither choices nor a range.",
            "Give {choices: [A, B]} or {low: A, high: B}.",
        )
    if unknown := sorted(set(value) - set(FIELDS)):
        raise ConfigError(where, f"has no field {unknown[0]}.", f"Fields: {', '.join(FIELDS)}.")
    log = bool(value.get("log", False))
    if key.startswith(NOT_TRIED):
        raise ConfigError(where, "is not part of a training.", "Leave the key out of the space.")
    choices, low, high = None, value.get("low"), value.get("high")
    if "choices" in value:
        if set(value) - {"choices", "when"} or not isinstance(value["choices"], list | tuple):
            raise ConfigError(
                where, f"{value} is neither choices nor a range.", "Give {choices: [A, B]}."
            )
        # Optuna's databases keep no lists; written out, `[96,128]` is the same override.
        choices = tuple(_written(one) if isinstance(one, list) else one for one in value["choices"])
        if not choices:
            raise ConfigError(where, "has no choices.", "Give at least one, or leave the key out.")
    elif not (_is_number(low) and _is_number(high)) or low >= high:
        raise ConfigError(where, f"the range from {low} to {high} is empty.", "Give low < high.")
    elif log and low <= 0:
        raise ConfigError(where, f"low={low} has no logarithm.", "Give low > 0, or log: false.")
    step = value.get("step")
    if step is not None:
        _check_step(where, step, log, whole=isinstance(low, int) and isinstance(high, int))
    return Dimension(key, choices, low, high, log, step, _conditions(where, value.get("when")))


def _check_step(where: str, step: Any, log: bool, whole: bool) -> None:
    if log:
        raise ConfigError(where, "a logarithmic range has no step.", "Give log or step, not both.")
    if not _is_number(step) or step <= 0 or (whole and not isinstance(step, int)):
        raise ConfigError(
            where,
            f"step={step} leads from no value to the next.",
            "Give a number above 0, a whole one if low and high are.",
        )


def _conditions(where: str, when: Any) -> dict[str, tuple[Any, ...]]:
    if when is None:
        return {}
    if not isinstance(when, Mapping) or not all(isinstance(one, list) for one in when.values()):
        raise ConfigError(where, f"when: {when} is no condition.", "Give when: {KEY: [VALUES]}.")
    return {key: tuple(values) for key, values in when.items()}


def check_baselines(dimensions: Sequence[Dimension], baselines: Sequence[Any]) -> None:
    """Check that the points to be tried first lie in the space.

    Raises:
        ConfigError: one does not; the sampler would try something else in its place.
    """
    known = {one.key: one for one in dimensions}
    for baseline in baselines:
        where = f"sweep.baselines: {baseline}"
        if not isinstance(baseline, Mapping):
            raise ConfigError(where, "is no point.", "Give {KEY: VALUE, ...}.")
        for key, value in baseline.items():
            if key not in known:
                raise ConfigError(
                    where, f"{key} is not in the space.", f"Keys of the space: {', '.join(known)}."
                )
            if not known[key].holds(value):
                raise ConfigError(
                    where, f"{key}={value} is not in the space.", "Widen the space, or change it."
                )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_order(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """Each behind those that it depends on, else as given; groups first."""
    waiting = sorted(dimensions, key=lambda one: "." in one.key)
    known = {one.key for one in dimensions}
    by_key = {one.key: one for one in dimensions}
    for one in dimensions:
        if missing := sorted(set(one.when) - known):
            raise ConfigError(
                f"sweep.space: {one.key}",
                f"depends on {missing[0]}, which is not in the space.",
                f"Keys of the space: {', '.join(sorted(known))}.",
            )
        for key, values in one.when.items():
            if never := [value for value in values if not by_key[key].holds(value)]:
                raise ConfigError(
                    f"sweep.space: {one.key}",
                    f"waits for {key}={never[0]}, which is never tried.",
                    f"Add it to {key}, or take it out of when.",
                )
    ordered: list[Dimension] = []
    while waiting:
        done = {one.key for one in ordered}
        ready = [one for one in waiting if set(one.when) <= done]
        if not ready:
            circle = ", ".join(one.key for one in waiting)
            raise ConfigError("sweep.space", f"{circle} depend on each other.", "Break the circle.")
        ordered.append(ready[0])
        waiting.remove(ready[0])
    return ordered


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)
