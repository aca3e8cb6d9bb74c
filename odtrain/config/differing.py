"""What of a configuration is worth telling: the settings that are not what `conf/` gives the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Any

from odtrain.config.compose import as_dict, compose_config, flattened
from odtrain.config.data_name import DEMO
from odtrain.config.schema import Config
from odtrain.config.shipped import conf

ALWAYS = (
    "model.name",
    "model.input_size",
    "train.batch_size",
    "train.steps",
    "train.learning_rate",
    "train.seed",
)
"""Settings that are told whether they differ or not."""
ROOM = 12
"""Further settings that become parameters. Of 20 at most, one is the digest of the data, and one MLflow's own:
the file that a registered model serves."""
ORDER = (
    "model",
    "train",
    "augment",
    "data",
    "source",
    "evaluate",
    "export",
    "benchmark",
    "registry",
)
"""Sections in the order in which people ask for what differs; the others come behind."""

NAMING = ("model", "train", "augment", "data")
"""Sections whose settings a run is named by."""
NOT_IN_NAMES = (
    "model.name",
    "model.input_size",
    "data.name",
    "data.images",
    "data.annotations",
    "data.format",
    "data.prepared",
    "train.precision",
    "train.resume",
    "train.max_minutes",
    "train.log_every",
    "train.checkpoint_every",
    "train.cache_mb",
    "train.devices",
    "train.trace_batches",
)
"""What a name says elsewhere, or what changes no result."""
WORDS = {
    "train.learning_rate": "rate",
    "train.steps": "steps",
    "train.batch_size": "batch",
    "train.checkpoint": "from",
    "train.seed": "seed",
    "model.depth_multiplier": "depth",
}
"""What a name calls a setting, else its last word; these come before the others."""
MOST_IN_A_NAME = 3
LONGEST_VALUE = 24


def differing(config: Config) -> dict[str, Any]:
    """Flat settings that are not what `conf/` gives the same model and data set, in `ORDER`.

    What a sweep would try, and on which machines, is no setting of a run.
    """
    values, usual = flattened(as_dict(config)), _usual(config.model.name, config.data.name)
    differ = {
        key: value
        for key, value in values.items()
        if not key.startswith(("sweep.", "cluster.")) and (key not in usual or usual[key] != value)
    }
    rank = {name: place for place, name in enumerate(ORDER)}
    return dict(
        sorted(differ.items(), key=lambda one: rank.get(one[0].partition(".")[0], len(rank)))
    )


def worth_logging(config: Config) -> dict[str, Any]:
    """The flat settings that become parameters of a run: `ALWAYS`, and what differs as far as there is room."""
    values, more = flattened(as_dict(config)), _more(config)
    return {key: values[key] for key in ALWAYS} | dict(list(more.items())[:ROOM])


def left_out(config: Config) -> str:
    """Where the settings are that differ and are no parameters, for a run's page; empty where all are."""
    left = len(_more(config)) - ROOM
    return (
        f"{left} more settings differ from conf/: `config/config.yaml` has them."
        if left > 0
        else ""
    )


def _more(config: Config) -> dict[str, Any]:
    return {key: value for key, value in differing(config).items() if key not in ALWAYS}


def in_a_name(config: Config, overrides: Sequence[str] = ()) -> str:
    """What differs, in a few words: `rate 0.01 steps 500 +2`; what `overrides` name comes first."""
    differ = differing(config)
    first = [override.lstrip("+").partition("=")[0] for override in overrides]
    told = {key: differ[key] for key in (*first, *WORDS, *differ) if key in differ}
    named = {
        key: value
        for key, value in told.items()
        if key.partition(".")[0] in NAMING and key not in NOT_IN_NAMES
    }
    words = [_said(key, value) for key, value in named.items()]
    more = len(words) - MOST_IN_A_NAME
    return " ".join([*words[:MOST_IN_A_NAME], *([f"+{more}"] if more > 0 else [])])


def _said(key: str, value: Any) -> str:
    word = WORDS.get(key, key.rpartition(".")[2].replace("_", " "))
    return f"{word} {_text(value)[:LONGEST_VALUE]}"


def _text(value: Any) -> str:
    if isinstance(value, str) and not value.startswith(("models:/", "runs:/")):
        return PurePath(value).name or value
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


@cache
def _usual(model: str, data: str) -> Mapping[str, Any]:
    """The flat settings of a run of a model and data set in which nothing else was given."""
    known = (conf() / "model" / f"{model}.yaml").is_file()
    named = f'data.name="{data}"'  # no name holds quotes
    overrides = [*([f"model={model}"] if known else []), named]
    return flattened(as_dict(compose_config(overrides))) | {"data.name": DEMO}
