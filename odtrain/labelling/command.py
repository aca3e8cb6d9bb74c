"""`odtrain prelabel`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, with_config


def _prelabel(given: Composed) -> int:
    from odtrain.labelling.prelabel import prelabel

    print(prelabel(given.config))
    return 0


def _merge(given: Composed) -> int:
    from odtrain.labelling.merge import merge

    print(merge(given.config.input, given.config.data))
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
