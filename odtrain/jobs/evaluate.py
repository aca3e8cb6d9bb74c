"""Scoring whatever `source=` names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from odtrain.config.compose import compose_config, flattened, given_keys, names_section
from odtrain.config.schema import Config, replaced
from odtrain.config.tiles import judging_tiles, tiles_in_use
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import Dataset
from odtrain.errors import ConfigError, DataError
from odtrain.evaluation.evaluate import Evaluation
from odtrain.io.remote.files import local
from odtrain.jobs.closing import in_words, pictures_in_words
from odtrain.jobs.context import RunContext
from odtrain.jobs.steps import evaluate_split
from odtrain.model_source import open_source, run_config
from odtrain.tracking.runs import RunOrigin, origin_of
from odtrain.tracking.tracker import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """What an evaluation came to.

    Attributes:
        run_id: of the run that holds it: the evaluated one, or one of its own.
        report: folder of the report.
        evaluation: on `evaluate.split`.
        in_words: the same in a sentence.
    """

    run_id: str
    report: Path
    evaluation: Evaluation
    in_words: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """mAP, mAP_50, ..."""
        return self.evaluation.metrics


@dataclass(frozen=True, eq=False)
class Judged:
    """A run, and what it was judged by.

    Attributes:
        run_id: its id.
        made_with: its configuration.
        origin: what the server says of it.
    """

    run_id: str
    made_with: Config
    origin: RunOrigin

    def asked(self, config: Config, overrides: Sequence[str]) -> Config:
        """Its configuration, with what the user asks for otherwise."""
        default = compose_config([])
        given = given_keys(overrides)
        scoring, usual = (flattened(asdict(each.evaluate)) for each in (config, default))
        values = {
            f"evaluate.{key}": value
            for key, value in scoring.items()
            if key == "split" or f"evaluate.{key}" in given or value != usual[key]
        }
        values |= {key: getattr(config, key) for key in ("source", "tracking", "outputs")}
        if config.data != default.data or names_section(overrides, "data"):
            values["data"] = config.data
        return replaced(self.made_with, values)

    def by(self, config: Config, dataset: Dataset) -> bool:
        """Whether these are the split, the data and the settings that it was judged by."""
        usual = judging_tiles(self.made_with)
        if tiles_in_use(config.evaluate.tiles, usual) != usual:
            return False
        scored = [(each.evaluate.bootstrap, each.data.seed) for each in (config, self.made_with)]
        digest = self.origin.tags.get("odtrain.data_digest", dataset.digest)
        return (config.evaluate.split, dataset.digest, scored[0]) == (
            self.origin.split,
            digest,
            scored[1],
        )


def evaluate(config: Config, overrides: Sequence[str]) -> EvaluateResult:
    """Score whatever `source=` names on `evaluate.split` of its own data, or of the data that are named.

    What a run was judged by is measured again in that run. Another split, other data or other settings make
    a run of its own below it, so that the numbers of the run stay what they are.

    Raises:
        DataError: it knows other classes than the data, or names none.
        OdtrainError: the source, the data or the store are not to be had.
    """
    if config.labels:
        raise ConfigError("labels", "are of a video: input=VIDEO.", "Leave it out for pictures.")
    source = open_source(config.source, config)
    judged = None
    if source.run_id is not None:
        made_with = run_config(source.run_id, config.runs)
        judged = Judged(source.run_id, made_with, origin_of(source.run_id, config.runs))
        config = judged.asked(config, overrides)
    source = source.asked(config.evaluate.tiles)
    dataset = prepare(config.data)
    if not source.class_names:
        raise DataError(
            source.name,
            f"carries no class names, so that which of its numbers are the classes of {dataset.name} is "
            "not known.",
            "Give them: predict.label_map=FILE, a label_map.pbtxt or a name a line.",
        )
    if source.class_names != dataset.class_names:
        raise DataError(
            source.name,
            f"knows the classes {', '.join(source.class_names)}; {dataset.name} has "
            f"{', '.join(dataset.class_names)}.",
            "Evaluate it on data with its own classes: data.images=..., data.label_map=...",
        )
    tracking, below = config.tracking, None
    if judged is not None and not judged.by(config, dataset):
        tracking, below = replace(tracking, experiment=judged.origin.experiment), judged.run_id
    tracker = Tracker(tracking, Path(config.outputs))
    again = None if below else source.run_id
    with tracker.start("evaluate", f"evaluate {source.name}", parent=below, resume=again):
        if below and judged:
            logger.info(
                f"Kept as run {tracker.name}: {below} was judged on its {judged.origin.split} split, and keeps "
                "its numbers."
            )
        if not tracker.resumed:
            record_own(tracker, config, dataset, overrides)
        step = config.train.steps if judged else 0
        context = RunContext(tracker, config, dataset, overrides, step)
        evaluated = evaluate_split(
            context, source.detect, config.evaluate.split, again=True, tiles=source.tiles
        )
        evaluation = evaluated.evaluation
        where = pictures_in_words(evaluation, config.evaluate.split)
        who = source.file.name if source.file else "The checkpoint"
        said = in_words(who, evaluation.counts, evaluation.class_names, where)
        return EvaluateResult(tracker.name, tracker.folder / "eval", evaluation, said)


def record_own(
    tracker: Tracker, config: Config, dataset: Dataset, overrides: Sequence[str]
) -> None:
    """Say in a run that trains nothing what is evaluated, and on what."""
    split = config.evaluate.split
    tracker.log_config(config, overrides)
    tracker.log_dataset(
        f"{dataset.name}-{split}",
        dataset.digest,
        dataset.folder,
        context=split,
        profile=dataset.counts[split],
    )
    described = local(dataset.folder / "dataset.json").read_text(encoding="utf-8")
    tracker.log_text(described, "data/dataset.json")
