"""`odtrain serve` and `webcam`."""

from __future__ import annotations

from pathlib import Path

from odtrain.command import Action, Command, Composed, flag, with_config


def _token(given: Composed) -> str | None:
    from odtrain_runtime.callers import read_token

    file = given.flags.auth_token_file
    return read_token(Path(file) if file else None)


def _serve(given: Composed) -> int:
    from odtrain.web.serve import serve_model

    serve_model(given.config, _token(given))
    return 0


def _webcam(given: Composed) -> int:
    from odtrain.web.webcam import webcam

    webcam(given.config, _token(given))
    return 0


TOKEN = (
    flag(
        "--auth-token-file",
        "holds the token that callers must show; else ODTRAIN_AUTH_TOKEN",
        metavar="FILE",
    ),
)
SERVE = Action(
    with_config(_serve),
    flags=TOKEN,
    settings=("source", "trust_source", "serve", "predict", "tracking", "outputs"),
    stays=True,
)
WEBCAM = Action(
    with_config(_webcam),
    flags=TOKEN,
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
