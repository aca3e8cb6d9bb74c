"""`odtrain prelabel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odtrain.command import Action, Command, Invocation, with_config

if TYPE_CHECKING:
    from odtrain.config.schema import Config


def _prelabel(config: Config, invocation: Invocation) -> int:
    from odtrain.labelling.prelabel import prelabel

    print(prelabel(config))
    return 0


def _merge(config: Config, invocation: Invocation) -> int:
    from odtrain.labelling.merge import merge

    print(merge(config.input, config.data))
    return 0


PRELABEL = Action(
    with_config(_prelabel),
    "make proposals",
    settings=("source", "input", "output", "data", "predict", "tracking", "outputs"),
)
MERGE = Action(
    with_config(_merge), "take the corrected ones into the data set", settings=("input", "data")
)
COMMANDS = {"prelabel": Command({"": PRELABEL, "merge": MERGE})}
