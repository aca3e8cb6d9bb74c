"""Whether a training goes on with a run that was begun before, and the configuration it keeps then."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from odtrain.config.compose import as_dict, compose_config, flattened, given_keys
from odtrain.config.schema import Config, Runs, replaced
from odtrain.errors import ConfigError, TrackingError
from odtrain.io.locks import alone
from odtrain.jobs.speed import PRECISION
from odtrain.model_source import run_config, run_file, run_meant
from odtrain.secrets import without_secrets
from odtrain.tracking.runs import (
    find_resumable,
    is_begun,
    may_differ,
    resumable_digests,
)

logger = logging.getLogger(__name__)


@contextmanager
def beginning(config: Config) -> Iterator[None]:
    """What is done until a run with `train.resume=auto` has begun: one process does it at a time.

    Of two that are started at once, the second would not see the run of the first.
    """
    if config.train.resume != "auto":
        yield
        return
    waits = "Another training with train.resume=auto is beginning here: waiting for it."
    with alone(Path(config.outputs, ".resume.lock"), waits=waits, after=1):
        yield


def resumed(config: Config, overrides: Sequence[str]) -> tuple[Config, str | None]:
    """The configuration to use, and the run to go on with, if there is one.

    Raises:
        ConfigError: an override would change what the run was begun with.
        TrackingError: there is no such run.
    """
    begun = os.environ.get("MLFLOW_RUN_ID")  # of `mlflow run --run-id`
    wanted = config.train.resume or (begun if is_begun(config.tracking, begun) else None)
    if wanted == "auto":
        wanted = find_resumable(config.tracking, Path(config.outputs), resumable_digests(config))
        if wanted is None:
            logger.info("No unfinished run of this configuration: a new one begins.")
    if wanted is None:
        return config, None
    wanted = run_meant(wanted, config.runs, finished=False)
    saved = _begun_as(wanted, config)
    asked, kept = flattened(as_dict(config)), flattened(as_dict(saved))
    _refuse_changes(without_secrets(asked), without_secrets(kept), overrides, wanted)
    own = {name: getattr(config, name) for name in ("tracking", "outputs")}
    own |= {"train.max_minutes": config.train.max_minutes}
    return replaced(saved, _secrets(asked, kept) | own), wanted


def _secrets(asked: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """What a run keeps without its passwords, with those that are given now."""
    hidden = {key: value for key, value in asked.items() if without_secrets(value) != value}
    return {key: value for key, value in hidden.items() if without_secrets(value) == kept.get(key)}


def _begun_as(run: str, config: Config) -> Config:
    """The configuration that a run was begun with.

    One that was found by its digest and killed before it said more was begun with this very one.
    """
    try:
        return run_config(run, config.runs)
    except TrackingError:
        if config.train.resume == "auto":
            return config
        raise


def begun_with(run: str, runs: Runs) -> list[str] | None:
    """The overrides that a run was begun with; None if it does not say."""
    try:
        file = run_file(run, "config/overrides.yaml", runs)
        return [str(one) for one in yaml.safe_load(file.read_text(encoding="utf-8"))]
    except (TrackingError, OSError, yaml.YAMLError, TypeError):
        return None


def _refuse_changes(
    asked: Mapping[str, Any], kept: Mapping[str, Any], overrides: Sequence[str], run: str
) -> None:
    """A resumed run keeps its configuration: an override that says otherwise is refused."""
    default = flattened(as_dict(compose_config([])))
    named = flattened(as_dict(compose_config([f"data.images={asked['data.images']}"])))
    named["data.images"] = default["data.images"]
    given = given_keys(overrides)
    for key, value in asked.items():
        if may_differ(key) or value == kept.get(key):
            continue
        if (key, value) == (PRECISION, "auto"):  # what the run has was decided when it began
            continue
        not_said = (default.get(key), named.get(key))  # a name may follow from the folder
        if {key, key.partition(".")[0]} & given or value not in not_said:
            raise ConfigError(
                f"{key}={value}",
                f"run {run} was begun with {key}={kept.get(key)} and goes on with it.",
                "Leave the override out, or begin a new run without train.resume.",
            )
