"""Scoring whatever `source=` names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.errors import DataError
from odtrain.evaluation.evaluate import Evaluation
from odtrain.jobs.context import RunContext
from odtrain.jobs.steps import evaluate_split
from odtrain.model_source import open_source, run_config
from odtrain.tracking.tracker import Tracker


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """What an evaluation came to.

    Attributes:
        run_id: of the run that holds it: the evaluated one, or one of its own for a file.
        report: folder of the report.
        evaluation: on `evaluate.split`.
    """

    run_id: str
    report: Path
    evaluation: Evaluation

    @property
    def metrics(self) -> dict[str, float]:
        """mAP, mAP_50, ..."""
        return self.evaluation.metrics


def evaluate(config: Config, overrides: Sequence[str]) -> EvaluateResult:
    """Score whatever `source=` names on `evaluate.split` of the configured data.

    Raises:
        DataError: it knows other classes than the data, or names none.
        OdtrainError: the source, the data or the store are not to be had.
    """
    source = open_source(config.source, config)
    made_with = run_config(source.run_id, config.runs) if source.run_id else config
    dataset = prepare(made_with.data)
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
    tracker = Tracker(config.tracking, Path(config.outputs))
    step = made_with.train.steps if source.run_id else 0
    with tracker.start("evaluate", f"evaluate {source.name}", resume=source.run_id):
        if source.run_id is None:
            tracker.log_config(config, overrides)
        context = RunContext(tracker, config, dataset, overrides, step)
        evaluated = evaluate_split(context, source.detect, config.evaluate.split, again=True)
        return EvaluateResult(tracker.name, tracker.folder / "eval", evaluated.evaluation)
