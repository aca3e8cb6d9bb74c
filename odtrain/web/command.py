"""`odtrain serve` and `webcam`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odtrain.command import Action, Command, Invocation, with_config

if TYPE_CHECKING:
    from odtrain.config.schema import Config


def _serve(config: Config, invocation: Invocation) -> int:
    from odtrain.web.serve import serve_model

    serve_model(config)
    return 0


def _webcam(config: Config, invocation: Invocation) -> int:
    from odtrain.web.webcam import webcam

    webcam(config)
    return 0


SERVE = Action(with_config(_serve), settings=("source", "serve", "predict", "tracking", "outputs"))
WEBCAM = Action(
    with_config(_webcam),
    settings=("source", "input", "output", "webcam", "predict", "tracking", "outputs"),
)
COMMANDS = {"serve": Command({"": SERVE}), "webcam": Command({"": WEBCAM})}
