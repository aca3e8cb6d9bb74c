"""`odtrain predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odtrain.command import Action, Command, Invocation, with_config

if TYPE_CHECKING:
    from odtrain.config.schema import Config


def _predict(config: Config, invocation: Invocation) -> int:
    from odtrain.predict.predict import predict

    predict(config)
    return 0


PREDICT = Action(
    with_config(_predict), settings=("source", "input", "output", "predict", "tracking", "outputs")
)
COMMANDS = {"predict": Command({"": PREDICT})}
