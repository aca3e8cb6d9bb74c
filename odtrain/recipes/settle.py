"""`experiment=auto` and `train.batch_size=auto` turned into settings, before a training begins, and kept.

What was chosen is kept beside the runs under the words that were given and the data's digest, so that
`train.resume=auto` with the same words finds its run although the machine measures otherwise now.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.config.compose import compose_config, given_keys
from odtrain.config.schema import Config, ZooEntry
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import PIECES, Dataset, read_truths
from odtrain.errors import CheckpointError, ConfigError
from odtrain.io.archives import cache_folder
from odtrain.io.atomic import write_text
from odtrain.io.download import file_in
from odtrain.recipes import rules
from odtrain.recipes.asked import AUTO, recipe_asked_for
from odtrain.recipes.probe import measure
from odtrain.recipes.rules import PUBLISHED_NETWORK, RANDOM_NETWORK, Choice, Facts, Speed
from odtrain.system.processor import this_processor
from odtrain.system.workers import cores

logger = logging.getLogger(__name__)

KEPT = ".auto"
"""In the folder of the runs."""
OF_NO_RUN = ("train.resume", "train.max_minutes", "tracking.", "outputs")
"""Words that a run and its continuation may differ in."""
UNKNOWN = Speed(0.02, None)
"""Where a step could not be measured: nobody is promised an end."""


def settle(
    config: Config, overrides: Sequence[str], config_dir: str | None = None
) -> tuple[Config, list[str]]:
    """The configuration of a training with all that is `auto` decided, and the words that make it.

    Raises:
        OdtrainError: the data cannot be prepared, or weights that were asked for cannot be had.
    """
    own = recipe_asked_for(config, overrides)
    if not own and config.train.batch_size != AUTO:
        return config, list(overrides)
    resumes = config.train.resume
    if resumes not in (None, AUTO) and config.train.batch_size != AUTO:
        return config, list(overrides)  # the run has its own
    dataset = prepare(config.data)
    file = Path(config.outputs, KEPT, f"{_digest(overrides, dataset)}.json")
    kept = _read(file) if resumes else None
    if kept is None and resumes and _was_begun(config):
        return config, list(overrides)
    if kept is None:
        kept = _chosen(config, overrides, dataset, own, config_dir)
        write_text(file, json.dumps(kept, indent=1))
    words = _joined(kept, overrides)
    return compose_config(words, config_dir), words


def _digest(overrides: Sequence[str], dataset: Dataset) -> str:
    words = sorted(one for one in overrides if not one.startswith(OF_NO_RUN))
    return hashlib.sha256(json.dumps([words, dataset.digest]).encode()).hexdigest()[:16]


def _read(file: Path) -> list[str] | None:
    try:
        return [str(one) for one in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):  # never settled: it is now
        return None


def _was_begun(config: Config) -> bool:
    """Whether an older version, which settled nothing, left a run of this very configuration unfinished."""
    from odtrain.tracking.runs import find_resumable, resumable_digests

    digests = resumable_digests(config)
    return find_resumable(config.tracking, Path(config.outputs), digests) is not None


def _joined(chosen: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """What was chosen, and behind it what was given: of a key or a group that is given the latter alone."""
    given = given_keys(overrides)
    left = [one for one in chosen if one.partition("=")[0] not in given - {"train.batch_size"}]
    own = [one for one in overrides if one != f"train.batch_size={AUTO}"]
    if len(own) == len(overrides) and "train.batch_size" in given:
        left = [one for one in left if not one.startswith("train.batch_size=")]
    return [*left, *own]


def _chosen(
    config: Config,
    overrides: Sequence[str],
    dataset: Dataset,
    own: bool,
    config_dir: str | None,
) -> list[str]:
    """The overrides that the rules give, said in words."""
    if not own:
        words = _joined([], overrides)
        composed = compose_config(words, config_dir)
        speed = measure(composed, len(dataset.class_names)) or UNKNOWN
        size = composed.train.batch_size
        choice = Choice(
            (
                f"train.batch_size={size}",
                f"train.accumulate={rules.passes_of(size, speed.pictures)}",
            ),
            f"{speed.pictures or 'an unknown number of'} pictures fit into memory at once",
        )
        logger.info(f"train.batch_size=auto: {', '.join(choice.overrides)}: {choice.reason}.")
        return list(choice.overrides)
    facts = _facts(config, overrides, dataset, config_dir)
    choices = rules.choose(facts)
    composed = compose_config(_joined(_words(choices), overrides), config_dir)
    measured = measure(composed, len(dataset.class_names))
    speed = measured or UNKNOWN
    fixed = composed.train.batch_size if "train.batch_size" in given_keys(overrides) else None
    if config.train.batch_size == AUTO:
        fixed = None
    choices.append(rules.batch(facts, speed, fixed))
    size = fixed or int(rules.value_of(choices, "train.batch_size") or composed.train.batch_size)
    choices.append(rules.steps(facts, speed, size, config.train.max_minutes))
    count = compose_config(_joined(_words(choices), overrides), config_dir).train.steps
    end = None if measured is None else time.time() + count * size * speed.seconds
    _say(facts, choices, overrides, end)
    return _words(choices)


def _words(choices: Sequence[Choice]) -> list[str]:
    return [one for each in choices for one in each.overrides]


def _facts(
    config: Config, overrides: Sequence[str], dataset: Dataset, config_dir: str | None
) -> Facts:
    from odtrain.models.build import PYRAMIDS

    truths = [*read_truths(dataset, "train"), *read_truths(dataset, "validation")]
    boxes = np.concatenate([np.zeros((0, 4)), *(one.boxes for one in truths)])
    sides = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))
    spared = dataset.counts["validation"]["images"]
    counts = dataset.counts["train"]
    network, weights, why = _network(config, overrides)
    model = compose_config(_joined(network, overrides), config_dir)
    pyramid = model.model.architecture in PYRAMIDS
    heads = model.model.architecture.startswith(("ssd_", "ssdlite_"))
    return Facts(
        counts.get(PIECES, counts["images"]) + spared,
        len(boxes),
        len(dataset.class_names),
        float(np.median(sides)) if len(sides) else 0.0,
        weights,
        why,
        tuple(network),
        heads and not pyramid,
        heads,
        24 if heads and not pyramid and weights else _own_batch(model),
    )


def _own_batch(config: Config) -> int:
    size: Any = config.train.batch_size
    return 8 if size == AUTO else int(size)


def _network(config: Config, overrides: Sequence[str]) -> tuple[list[str], bool, str]:
    """The network as overrides, whether it has weights to start from, and why it is this one."""
    given = given_keys(overrides)
    checkpoint = config.train.checkpoint
    if "model" in given:
        return [], checkpoint is not None, "the network that model= names"
    if "train.checkpoint" in given and checkpoint is None:
        return [f"model={RANDOM_NETWORK}"], False, "a small one for random weights, as asked for"
    if "train.checkpoint" in given and checkpoint != "zoo":
        return (
            _of_checkpoint(str(checkpoint), config),
            True,
            "the network whose variables train.checkpoint has",
        )
    return _published(config)


def _of_checkpoint(checkpoint: str, config: Config) -> list[str]:
    from odtrain.model_source import run_config, weights_of_run
    from odtrain.zoo.recognise import model_overrides
    from odtrain.zoo.restore import resolve

    run = weights_of_run(checkpoint, config.runs)
    if run is not None:
        return [f"model={run_config(run, config.runs).model.name}"]
    return model_overrides(resolve(checkpoint, config.model, config.zoo.mirrors))


def _published(config: Config) -> tuple[list[str], bool, str]:
    entry = compose_config([f"model={PUBLISHED_NETWORK}"]).model.zoo
    assert entry is not None
    if why := _not_to_be_had(entry, config.zoo.mirrors):
        reason = f"a small one for random weights: those of COCO cannot be had ({why})"
        return [f"model={RANDOM_NETWORK}"], False, reason
    return [f"model={PUBLISHED_NETWORK}"], True, "weights of COCO can be had for it"


def _not_to_be_had(entry: ZooEntry, mirrors: Sequence[str]) -> str:
    """Why a network's published weights are not here and cannot be fetched; empty where they are."""
    from odtrain.zoo.restore import fetch
    from odtrain.zoo.status import ALIVE, ask

    if not mirrors and not file_in(cache_folder(), entry.sources).exists():
        answers = [ask(source) for source in entry.sources]
        if all(answer.state != ALIVE for answer in answers):
            return "; ".join(dict.fromkeys(f"{each.state}: {each.why}" for each in answers))
    try:
        fetch(entry, PUBLISHED_NETWORK, mirrors)
    except CheckpointError as error:
        logger.debug(str(error))
        return f"odtrain zoo fetch {PUBLISHED_NETWORK} says why"
    return ""


def _say(
    facts: Facts, choices: Sequence[Choice], overrides: Sequence[str], end: float | None
) -> None:
    """Print each choice with its reason; `end` is when the steps end, in seconds since 1970."""
    given = given_keys(overrides)
    lines = [
        f"experiment=auto: {facts.pictures} training pictures, {facts.objects} objects of {facts.classes} "
        f"class{'es' * (facts.classes != 1)}, half of them below {facts.side:.0%} of the picture's side; "
        f"{cores()} cores of {this_processor().name}."
    ]
    for choice in choices:
        own = [one for one in choice.overrides if one.partition("=")[0] not in given]
        if own:
            lines.append(f"  {' '.join(own)}\n      {choice.reason}")
    if end is None:
        lines.append("  A step could not be measured here: no end is foretold.")
    else:
        lines.append(f"  The steps end about {time.strftime('%H:%M', time.localtime(end))}.")
    lines.append(
        "Each of these can be given as an override; experiment=null composes without them."
    )
    logger.info("\n".join(lines))


def refuse_auto(config: Config) -> None:
    """Commands that do not settle it cannot take `train.batch_size=auto`.

    Raises:
        ConfigError: it is given.
    """
    if config.train.batch_size == AUTO:
        raise ConfigError("train.batch_size=auto", "is `odtrain train`'s alone.", "Give a number.")
