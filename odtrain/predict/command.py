"""`odtrain predict`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, prints


def _predict(given: Composed) -> str:
    from odtrain.predict.predict import predict

    return predict(given.config)


PREDICT = Action(
    prints(_predict),
    settings=("source", "trust_source", "input", "output", "predict", "tracking", "outputs"),
)
COMMANDS = {"predict": Command({"": PREDICT})}
