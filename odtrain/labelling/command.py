"""`odtrain prelabel`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, prints


def _prelabel(given: Composed) -> str:
    from odtrain.labelling.prelabel import prelabel

    return prelabel(given.config)


def _merge(given: Composed) -> str:
    from odtrain.labelling.merge import merge

    return merge(given.config.input, given.config.data)


PRELABEL = Action(
    prints(_prelabel),
    "make proposals",
    settings=(
        "source",
        "trust_source",
        "input",
        "output",
        "data",
        "predict",
        "tracking",
        "outputs",
    ),
)
MERGE = Action(
    prints(_merge), "take the corrected ones into the data set", settings=("input", "data")
)
COMMANDS = {"prelabel": Command({"": PRELABEL, "merge": MERGE})}
