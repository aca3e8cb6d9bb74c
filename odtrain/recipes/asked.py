"""Whether a training leaves anything for the machine to decide. Imports little: most leave nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence

from odtrain.config.data_name import is_shipped
from odtrain.config.schema import Config

AUTO = "auto"
SEVERAL = ("TF_CONFIG", "SLURM_STEP_NUM_TASKS")
"""Variables that make a process one of several workers, which each would decide by itself."""


def anything_asked_for(config: Config, overrides: Sequence[str]) -> bool:
    """Whether a recipe or the batch is to be decided."""
    return recipe_asked_for(config, overrides) or config.train.batch_size == AUTO


def recipe_asked_for(config: Config, overrides: Sequence[str]) -> bool:
    """Whether `experiment=auto` is given, or nothing else of its kind is for pictures of the user's."""
    given = {
        name.lstrip("+~"): value for name, _, value in (one.partition("=") for one in overrides)
    }
    if "experiment" in given:
        return given["experiment"] == AUTO
    several = any(os.environ.get(name, "1") != "1" for name in SEVERAL)
    return "model" not in given and not is_shipped(config.data.images) and not several
