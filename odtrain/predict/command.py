"""`odtrain predict`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, with_config


def _predict(given: Composed) -> int:
    from odtrain.predict.predict import predict

    print(predict(given.config))
    return 0


PREDICT = Action(
    with_config(_predict), settings=("source", "input", "output", "predict", "tracking", "outputs")
)
COMMANDS = {"predict": Command({"": PREDICT})}
