"""`odtrain drift`."""

from __future__ import annotations

from pathlib import Path

from odtrain.command import Action, Command, Composed, flag, say, with_config


def _drift(given: Composed) -> int:
    from odtrain.monitoring.drift import STATUS, drift

    answer = drift(given.config, Path(given.flags.folder), given.flags.against)
    say(answer.said)
    return STATUS if answer.shown else 0


DRIFT = Action(
    with_config(_drift),
    flags=(
        flag("folder", "that odtrain serve serve.log=DIR has written"),
        flag("--against", "the run or models:/NAME@ALIAS that served", metavar="RUN", default=""),
    ),
    settings=("tracking", "outputs", "predict.threads"),
    example="odtrain drift DIR --against models:/NAME@champion",
)
COMMANDS = {"drift": Command({"": DRIFT})}
