"""`odtrain curve`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, flag, prints


def _curve(given: Composed) -> str:
    from odtrain.studies.curve import curve, read_parts

    return curve(given.config, given.overrides, read_parts(given.flags.parts))


CURVE = Action(
    prints(_curve),
    flags=(
        flag(
            "--parts",
            "per cents of the training pictures; 25,50,100 if not given",
            default="25,50,100",
            metavar="LIST",
        ),
    ),
    settings=("data", "model", "train", "augment", "evaluate", "tracking", "outputs"),
)
COMMANDS = {"curve": Command({"": CURVE})}
