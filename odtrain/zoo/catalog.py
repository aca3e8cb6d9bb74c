"""The models that `model=` can name, with what is known of them; answers without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odtrain.config.compose import as_dict, compose_config, shipped_model
from odtrain.config.shipped import choices, conf_folders, shipped
from odtrain.errors import ConfigError
from odtrain.io.archives import cache_folder
from odtrain.io.download import file_in
from odtrain.zoo.costs import Cost, kept_cost
from odtrain.zoo.purposes import purposes


@dataclass(frozen=True)
class CatalogEntry:
    """A model of conf/model.

    Attributes:
        name: as `model=` takes it.
        height: of its input, in pixels.
        width: of its input, in pixels.
        depth: multiplier.
        coco_map: published, percent at IoU .50:.95; None without published weights.
        speed_ms: published; measured differently for phones' models, see the model's YAML.
        cost: parameters and multiply-accumulates as odtrain counted them; None where they were not.
        published: whether it has published weights.
        cached: whether they are on this machine.
        closed: whether nobody can fetch them any more.
    """

    name: str
    height: int
    width: int
    depth: float
    coco_map: float | None
    speed_ms: float | None
    cost: Cost | None
    published: bool
    cached: bool
    closed: bool

    @property
    def weights(self) -> str:
        """Whether there are published weights, and whether they are here or can be had."""
        if not self.published or self.cached:
            return "here" if self.published else "none"
        return "closed" if self.closed else "to be fetched"


UNKNOWN = float("inf")
"""Where a number is not known: sorted behind all that are."""

SORT: dict[str, Callable[[CatalogEntry], Any]] = {
    "name": lambda entry: entry.name,
    "input": lambda entry: entry.height * entry.width,
    "depth": lambda entry: entry.depth,
    "parameters": lambda entry: entry.cost.parameters if entry.cost else UNKNOWN,
    "macs": lambda entry: entry.cost.macs if entry.cost else UNKNOWN,
    "map": lambda entry: -(entry.coco_map or 0),
    "ms": lambda entry: entry.speed_ms or UNKNOWN,
    "weights": lambda entry: ("here", "to be fetched", "closed", "none").index(entry.weights),
}
"""What `--sort` takes: smallest first, but the best mAP first."""


HEADINGS = [
    "model",
    "input",
    "depth",
    "parameters",
    "MACs",
    "COCO mAP",
    "published ms",
    "weights",
]
TEXT = ("model", "weights")
"""Columns of words; the others hold numbers, to the right."""


def model_names(config_dir: str | None = None) -> list[str]:
    """What `model=` can be, by name; with those of a folder of the user's own configs."""
    return choices("model", conf_folders(config_dir))


def catalog(sort: str | None = None, config_dir: str | None = None) -> str:
    """The models as Markdown tables, and what to take in place of those whose weights are closed.

    `sort`: a column, for one table of all; None for a table of each purpose, with its advice.

    Raises:
        ConfigError: it cannot be sorted by that.
    """
    models = _models(config_dir)
    published = {name: model["zoo"] for name, model in models.items() if model["zoo"] is not None}
    tables = _by_purpose(models) if sort is None else _table(sort, models)
    return "\n".join([tables, *closed_lines(published)])


def closed_lines(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why the weights of some models cannot be fetched any more, and what to take; an empty line before."""
    said = [
        closed_line(name, entry["closed"], entry.get("instead") or ())
        for name, entry in entries.items()
        if entry.get("closed")
    ]
    return ["", *said] if said else []


def closed_line(name: str, why: str, instead: Sequence[str]) -> str:
    """Why the weights of a model cannot be fetched any more, and what to take."""
    models = " or ".join(f"model={each}" for each in instead) or "another model"
    return f"{name}: closed, {why}. Take {models} instead."


def no_model(where: str, problem: str, models: Sequence[str]) -> ConfigError:
    """What is said where no model has the name that `where` ends with."""
    return ConfigError(where.rstrip(), problem, f"Models: {', '.join(models)}.")


def no_weights(name: str) -> ConfigError:
    """What is said of a model without published weights, where these are asked for."""
    return ConfigError(
        f"model={name}",
        "it has no published weights.",
        "Train it from random weights: train.checkpoint=null.",
    )


def catalog_table(sort: str = "name", config_dir: str | None = None) -> str:
    """The models as a Markdown table.

    Raises:
        ConfigError: it cannot be sorted by that.
    """
    return _table(sort, _models(config_dir))


def _models(config_dir: str | None) -> dict[str, dict[str, Any]]:
    return {name: settings_of(name, config_dir) for name in model_names(config_dir)}


def _table(sort: str, models: Mapping[str, dict[str, Any]]) -> str:
    if sort not in SORT:
        raise ConfigError(f"--sort {sort}", "no such column.", f"Choose one of: {', '.join(SORT)}.")
    entries = [_entry(name, model) for name, model in models.items()]
    rows = [_cells(entry) for entry in sorted(entries, key=SORT[sort])]
    return _lines(rows, _widths(rows))


def _by_purpose(models: Mapping[str, dict[str, Any]]) -> str:
    """A table of the models of each purpose below its advice, with the same columns in all."""
    cells = {name: _cells(_entry(name, model)) for name, model in models.items()}
    widths = _widths(list(cells.values()))
    return "\n\n".join(
        f"{': '.join(filter(None, (each.name, each.advice)))}\n\n"
        f"{_lines([cells[name] for name in each.models], widths)}"
        for each in purposes(list(models))
    )


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]


def _lines(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    rule = [
        "-" * width if heading in TEXT else "-" * (width - 1) + ":"
        for heading, width in zip(HEADINGS, widths, strict=True)
    ]
    return "\n".join(_line(row, widths) for row in [HEADINGS, rule, *rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        f"{cell:<{width}}" if heading in TEXT else f"{cell:>{width}}"
        for heading, cell, width in zip(HEADINGS, cells, widths, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def _cells(entry: CatalogEntry) -> list[str]:
    cost = entry.cost
    return [
        entry.name,
        f"{entry.height}x{entry.width}",
        f"{entry.depth:g}",
        f"{cost.parameters / 1e6:.2f} M" if cost else "",
        f"{cost.macs / 1e9:.3g} G" if cost else "",
        f"{entry.coco_map:g} %" if entry.coco_map else "",
        f"{entry.speed_ms:g}" if entry.speed_ms else "",
        entry.weights,
    ]


def _entry(name: str, model: Mapping[str, Any]) -> CatalogEntry:
    zoo, size = model.get("zoo"), model["input_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return CatalogEntry(
        name,
        height,
        width,
        model["depth_multiplier"],
        zoo.get("coco_map") if zoo else None,
        zoo.get("speed_ms") if zoo else None,
        kept_cost(name, model),
        zoo is not None,
        zoo is not None and file_in(cache_folder(), zoo["sources"]).is_file(),
        zoo is not None and zoo.get("closed") is not None,
    )


def settings_of(name: str, config_dir: str | None) -> dict[str, Any]:
    """The `model` section of a choice of `model=`.

    Of a shipped model the YAML is read alone: composing the whole configuration takes a tenth of a second.
    """
    if (shipped("conf/model") / f"{name}.yaml").is_file():
        return shipped_model(name)
    composed: dict[str, Any] = as_dict(compose_config([f"model={name}"], config_dir))["model"]
    return composed
