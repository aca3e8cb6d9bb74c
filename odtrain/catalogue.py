"""The models that `model=` can name, with what is known of them; answers without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from odtrain.archives import cache_folder
from odtrain.config import shipped
from odtrain.download import file_in
from odtrain.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """A model of conf/model.

    Attributes:
        name: as `model=` takes it.
        height: of its input, in pixels.
        width: of its input, in pixels.
        depth: multiplier.
        coco_map: published, percent at IoU .50:.95; None without published weights.
        speed_ms: published; measured differently for phones' models, see the model's YAML.
        cached: whether its weights are on this machine.
    """

    name: str
    height: int
    width: int
    depth: float
    coco_map: float | None
    speed_ms: float | None
    cached: bool


SORT: dict[str, Callable[[Entry], Any]] = {
    "name": lambda entry: entry.name,
    "map": lambda entry: -(entry.coco_map or 0),
    "ms": lambda entry: entry.speed_ms or float("inf"),
    "input": lambda entry: entry.height * entry.width,
}


def model_names() -> list[str]:
    """What `model=` can be, by name."""
    return sorted(file.stem for file in shipped("conf/model").glob("*.yaml"))


def table(sort: str = "name") -> str:
    """The models as a Markdown table.

    Raises:
        ConfigError: it cannot be sorted by that.
    """
    if sort not in SORT:
        raise ConfigError(f"--sort {sort}", "no such column.", f"Choose one of: {', '.join(SORT)}.")
    rows = [
        "| model | input | depth | COCO mAP | published ms | weights |",
        "|---|---|---|---|---|---|",
    ]
    for entry in sorted(map(_entry, model_names()), key=SORT[sort]):
        accuracy = f"{entry.coco_map:g} %" if entry.coco_map else ""
        speed = f"{entry.speed_ms:g}" if entry.speed_ms else ""
        weights = "none" if not entry.coco_map else "here" if entry.cached else "to be fetched"
        rows.append(
            f"| {entry.name} | {entry.height}x{entry.width} | {entry.depth:g} | {accuracy} | {speed} | "
            f"{weights} |"
        )
    return "\n".join(rows)


def _entry(name: str) -> Entry:
    """Read from the model's YAML alone: composing the whole configuration takes a tenth of a second."""
    file = shipped("conf/model") / f"{name}.yaml"
    model = yaml.safe_load(file.read_text(encoding="utf-8"))["model"]
    zoo, size = model.get("zoo"), model["input_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return Entry(
        name,
        height,
        width,
        model.get("depth_multiplier", 1.0),
        zoo["coco_map"] if zoo else None,
        zoo["speed_ms"] if zoo else None,
        zoo is not None and file_in(cache_folder(), zoo["url"]).is_file(),
    )
