"""`odtrain serve` and `webcam`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, with_config


def _serve(given: Composed) -> int:
    from odtrain.web.serve import serve_model

    serve_model(given.config)
    return 0


def _webcam(given: Composed) -> int:
    from odtrain.web.webcam import webcam

    webcam(given.config)
    return 0


SERVE = Action(
    with_config(_serve),
    settings=("source", "trust_source", "serve", "predict", "tracking", "outputs"),
    stays=True,
)
WEBCAM = Action(
    with_config(_webcam),
    settings=(
        "source",
        "trust_source",
        "input",
        "output",
        "webcam",
        "serve.log",
        "serve.log_pictures",
        "serve.log_megabytes",
        "predict",
        "tracking",
        "outputs",
    ),
    stays=True,
)
COMMANDS = {"serve": Command({"": SERVE}), "webcam": Command({"": WEBCAM})}
