"""Which detections are shown: `predict.threshold`, for all classes, by class, or stored with the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from odtrain.config.schema import STORED, PredictConfig
from odtrain.errors import ConfigError
from odtrain.structures import Detections
from odtrain_runtime.provenance import read_thresholds

DEFAULT = "default"
"""Key of a mapping that holds for the classes it does not name."""
COMMON = 0.5
"""Where a mapping has no `default`, and for classes that a file stores nothing for."""
NAMELESS = re.compile(r"class (\d+)")


@dataclass(frozen=True)
class Thresholds:
    """The lowest score at which detections of each class are shown.

    Attributes:
        common: of every class that `by_class` does not name.
        by_class: by label-map id, 1-based.
    """

    common: float
    by_class: Mapping[int, float] = field(default_factory=dict)

    def of(self, class_id: int) -> float:
        """The threshold of one class."""
        return self.by_class.get(class_id, self.common)

    @property
    def lowest(self) -> float:
        """Of all classes."""
        return min(self.common, *self.by_class.values()) if self.by_class else self.common

    def keep(self, found: Detections) -> Detections:
        """The detections that are shown, in their order."""
        if not self.by_class:
            return found.above(self.common)
        limits = np.array([self.of(number) for number in found.classes.tolist()], np.float32)
        keep = found.scores >= limits
        return Detections(found.boxes[keep], found.scores[keep], found.classes[keep])

    def __str__(self) -> str:
        """As the summary of a prediction names it."""
        return f"{self.lowest:g} (by class)" if self.by_class else f"{self.common:g}"


EVERYWHERE = Thresholds(COMMON)


def choose_thresholds(
    config: PredictConfig, class_names: Sequence[str], passport: Mapping[str, str], source: str
) -> Thresholds:
    """The thresholds that `predict.threshold` means for a model.

    Args:
        config: the settings of prediction.
        class_names: index 0 = class id 1; `class N` names a class of a model without names.
        passport: what the model's file says of itself.
        source: the model, for messages.

    Raises:
        ConfigError: the model has no such class, or stores no thresholds.
    """
    setting: Any = config.threshold
    if setting == STORED:
        setting = read_thresholds(passport)
        if not setting:
            raise ConfigError(
                f"predict.threshold={STORED}",
                f"{source} carries no thresholds.",
                "Give a score from 0 to 1, or {CLASS: SCORE, default: SCORE}.",
            )
    if not isinstance(setting, Mapping):
        return Thresholds(float(setting))
    by_class = {
        _class_id(str(name), class_names): float(score)
        for name, score in setting.items()
        if name != DEFAULT
    }
    return Thresholds(float(setting.get(DEFAULT, COMMON)), by_class)


def _class_id(name: str, class_names: Sequence[str]) -> int:
    if name in class_names:
        return list(class_names).index(name) + 1
    nameless = NAMELESS.fullmatch(name)
    if nameless and not class_names:
        return int(nameless[1])
    known = (
        ", ".join([*class_names, DEFAULT]) if class_names else f"class 1, class 2, ..., {DEFAULT}"
    )
    raise ConfigError(f"predict.threshold: {name}", "no such class.", f"Choose of: {known}.")
