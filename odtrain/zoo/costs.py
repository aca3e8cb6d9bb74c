"""What a network costs: its parameters, and the multiply-accumulates of one picture.

Counting means building the network, which takes seconds, so the numbers of the models in `conf/model` are
kept in `costs.json` beside this file, each with a digest of the settings that it was counted for.
`python -m odtrain.zoo.costs` writes them anew; a test counts again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from odtrain.config.compose import shipped_model
from odtrain.config.shipped import shipped

NUM_CLASSES = 90
"""COCO's highest class id: what all models are counted with, so that they can be compared."""

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")

KEPT = Path(__file__).with_name("costs.json")


class Cost(NamedTuple):
    """What a network costs.

    Attributes:
        parameters: numbers that training changes; the moving statistics of batch norm are not among them.
        macs: multiplications with an addition each, in all convolutions, for one picture.
    """

    parameters: int
    macs: int


def cost_of(network: Any) -> Cost:
    """Counted from the graph of a tf_keras network with a fixed input size, for one picture."""
    import tensorflow as tf

    inputs = [tf.TensorSpec((1, *each.shape[1:]), each.dtype) for each in network.inputs]
    function = tf.function(lambda *images: network(images, training=False))
    graph = function.get_concrete_function(*inputs).graph
    parameters = sum(math.prod(weight.shape) for weight in network.trainable_weights)
    return Cost(parameters, sum(map(macs_of, graph.get_operations())))


def macs_of(operation: Any) -> int:
    """The multiply-accumulates of an operation of a graph; 0 where it is no convolution.

    Every output cell takes the whole kernel, a depthwise one its own part of it.
    """
    if operation.type not in CONVOLUTIONS:
        return 0
    _, height, width, _ = operation.outputs[0].shape
    return int(height * width * math.prod(operation.inputs[1].shape))


def kept_cost(name: str, model: Mapping[str, Any]) -> Cost | None:
    """The cost of a model as it was counted for these settings; None if they have changed since.

    Args:
        name: of the model.
        model: the section `model` of its YAML.
    """
    row = _kept().get(name)
    if row is None or row["settings"] != settings_digest(model):
        return None
    return Cost(row["parameters"], row["macs"])


@cache
def _kept() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def settings_digest(model: Mapping[str, Any]) -> str:
    """What tells whether the settings that a network is built from are still the same."""
    settings = {key: value for key, value in model.items() if key not in ("name", "zoo")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def count(name: str) -> Cost:
    """Build a model of `conf/model` with COCO's classes, and count."""
    from odtrain.config.compose import compose_config
    from odtrain.models.build import build_detector

    return cost_of(build_detector(compose_config([f"model={name}"]).model, NUM_CLASSES).network)


def main() -> None:
    """Count every model of `conf/model` and keep the numbers."""
    rows = {}
    for file in sorted(shipped("conf/model").glob("*.yaml")):
        settings = settings_digest(shipped_model(file.stem))
        found = count(file.stem)
        rows[file.stem] = {"settings": settings, **found._asdict()}
        print(f"{file.stem}: {found.parameters:,} parameters, {found.macs:,} MACs", flush=True)
    KEPT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
