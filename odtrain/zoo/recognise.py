"""Which network a checkpoint is of, by the names and shapes of its variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odtrain.config.compose import compose_config, shipped_model
from odtrain.config.schema import ModelConfig
from odtrain.errors import CheckpointError
from odtrain.io.archives import locate
from odtrain.models.build import build_detector
from odtrain.zoo.catalog import model_names
from odtrain.zoo.checkpoints import RETINANET, depth_of, network_named, read_checkpoint

FAMILIES = {RETINANET: "retinanet"}
"""How the architectures of a network begin that `NETWORKS` calls by a name of its own."""


def model_overrides(archive: Path) -> list[str]:
    """`model=NAME`, and a depth multiplier where no model has it, as overrides.

    Args:
        archive: a tarball, a folder or a prefix.

    Raises:
        CheckpointError: it is of no network known here.
    """
    prefix = locate(archive)
    shapes = read_checkpoint(prefix, archive).shapes
    looks = network_named(shapes)
    beginning = FAMILIES.get(looks or "", looks or "?")
    models = {name: shipped_model(name) for name in model_names()}
    likely = {
        name: each for name, each in models.items() if each["architecture"].startswith(beginning)
    }
    if not likely:
        raise CheckpointError(
            archive,
            f"it looks like {looks or 'no network known here'}.",
            "Give the model that it is of: model=NAME; odtrain zoo lists them.",
        )
    depth = depth_of(shapes)
    name = _best_of(likely, depth, prefix)
    if depth in (None, models[name]["depth_multiplier"]):
        return [f"model={name}"]
    return [f"model={name}", f"model.depth_multiplier={depth:g}"]


def _best_of(likely: dict[str, dict[str, Any]], depth: float | None, prefix: Path) -> str:
    """Of each architecture the likeliest model; of these the one whose variables the checkpoint has."""
    by_architecture: dict[str, str] = {}
    for name in sorted(likely, key=lambda name: _unlike(name, likely[name], depth)):
        by_architecture.setdefault(likely[name]["architecture"], name)
    exact = [name for name in by_architecture.values() if len(by_architecture) == 1]
    return exact[0] if exact else max(by_architecture.values(), key=lambda n: _fits(n, prefix))


def _unlike(name: str, model: dict[str, Any], depth: float | None) -> tuple[bool, bool, bool]:
    return (
        model["zoo"] is None,
        depth is not None and model["depth_multiplier"] != depth,
        "quantized" in name,
    )


def _fits(name: str, prefix: Path) -> float:
    """The share of a model's variables that a checkpoint has in the same shape."""
    model: ModelConfig = compose_config([f"model={name}"]).model
    detector = build_detector(model, 1)
    found = read_checkpoint(prefix, prefix, detector.objects)
    variables = detector.variables_by_name()
    fitting = [found.shape_of(key, each) == tuple(each.shape) for key, each in variables.items()]
    return sum(fitting) / len(fitting)
