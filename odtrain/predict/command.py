"""`odtrain predict`."""

from __future__ import annotations

from odtrain.command import Action, Command, Composed, prints


def _predict(given: Composed) -> str:
    if given.config.cluster.engine:
        from odtrain.predict.on_cluster import predict_there

        return predict_there(given.config)
    from odtrain.predict.predict import predict

    return predict(given.config)


PREDICT = Action(
    prints(_predict),
    settings=(
        "source",
        "trust_source",
        "input",
        "output",
        "predict",
        "tracking",
        "outputs",
        "cluster",
    ),
)
COMMANDS = {"predict": Command({"": PREDICT})}
