"""One tracked run from labels to a registered model: the order of the stages."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from odtrain.config.schema import Config
from odtrain.dataset.read import read_truths
from odtrain.errors import ConfigError
from odtrain.evaluation.evaluate import Evaluation, check_evaluator
from odtrain.export.parity import Proof
from odtrain.findings import Finding
from odtrain.jobs.closing import description, served_in_words
from odtrain.jobs.context import RunContext, pages_of, say_run
from odtrain.jobs.doubts import doubts, learned_map, scores
from odtrain.jobs.fitting import (
    Trained,
    data_to_train_on,
    run_name,
    say_warnings,
    train_detector,
)
from odtrain.jobs.kept_test import with_kept_test
from odtrain.jobs.more_steps import more_steps
from odtrain.jobs.resume import beginning, begun_with, resumed
from odtrain.jobs.speed import with_precision
from odtrain.jobs.stages import Stages
from odtrain.jobs.steps import (
    Evaluated,
    export_and_prove,
    judge_trained,
    proven_before,
    record_inputs,
    record_pictures,
    register_files,
)
from odtrain.jobs.workers import agree
from odtrain.model_source import with_named_weights
from odtrain.registry.register import check_name, check_registry
from odtrain.tracking.runs import config_digest
from odtrain.tracking.tracker import Tracker
from odtrain.tracking.views import Pages
from odtrain.training.team import Team, join

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What a training came to.

    Attributes:
        run_id: of its run, as `source=` takes it.
        folder: of the run.
        evaluation: on the test split.
        proofs: of the exported files.
        model: where the model is to be had: a models:/ URI, or a file while the server is away.
        outcome: what the gate said of the registered version, in words; None where none was judged.
        store: URI of the MLflow store.
        pages: of MLflow, where the run is; None while the server is away.
        doubts: a sentence for each reason to doubt the result, with what to do.
        more_steps: whether more of them would help, in words; None where the curve does not say.
        version: the registered model's name and number; None where none was registered.
        in_words: how good the served file is on the test pictures, in a sentence.
        seconds: that each stage took, in their order.
    """

    run_id: str
    folder: Path
    evaluation: Evaluation
    proofs: Sequence[Proof]
    model: str
    outcome: str | None
    store: str = field(repr=False)  # it may hold a password
    pages: Pages | None
    doubts: Sequence[str] = ()
    more_steps: str | None = None
    version: tuple[str, str] | None = None
    in_words: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """mAP, mAP_50, ... on the test split."""
        return self.evaluation.metrics

    @property
    def files(self) -> dict[str, Path]:
        """The exported files by format."""
        return {one.format: one.file for one in self.proofs}


def train(config: Config, overrides: Sequence[str], team: Team | None = None) -> TrainResult:
    """The main job: prepare, train, evaluate, export, prove every export, record, register.

    Args:
        config: composed.
        overrides: that it was composed of.
        team: who trains, where that is known already; this process is the chief.

    Raises:
        OdtrainError: something the user can put right; the run, if begun, is marked FAILED.
        KeyboardInterrupt, Terminated: a signal ended training behind a checkpoint; the run is marked
            KILLED and can be resumed.
    """
    stages = Stages()
    team = join(config.train.devices) if team is None else team
    if not team.chief:
        problem = f"makes this {team.name}, which has no run to return."
        raise ConfigError("The environment", problem, "Start the workers by `odtrain train`.")
    with team.together(), team.telling(), beginning(config), stages.timed("prepare"):
        team.pictures(config.train.batch_size, config.train.accumulate)
        context, findings = _begin(config, overrides, team)
    tracker = context.tracker
    with tracker:
        with team.together(), team.telling():
            if tracker.online:
                check_registry(tracker.client, tracker.uri, context.config.registry.name)
            record_inputs(context, findings)
            record_pictures(context)
        with team.together(), stages.timed("train"):
            trained = train_detector(context, team=team)
        context = context.at(trained.fitted.step)
        with stages.timed("evaluate"):
            evaluated = judge_trained(context, trained.detector, "test")
            doubtful = _doubts(context, trained, evaluated)
        with stages.timed("export"):
            proofs = proven_before(context, trained.detector, evaluated)
            if proofs is None:
                proofs = export_and_prove(context, trained.detector, evaluated)
        tracker.describe(description(context, trained.fitted, evaluated, proofs, doubtful))
        with stages.timed("register"):
            registered = register_files(context, evaluated.evaluation, proofs)
        tracker.log(stages.metrics(), context.step)
        return TrainResult(
            run_id=tracker.name,
            folder=tracker.folder,
            evaluation=evaluated.evaluation,
            proofs=proofs,
            model=registered.model,
            outcome=registered.outcome,
            store=tracker.uri,
            pages=pages_of(tracker),
            doubts=doubtful,
            more_steps=more_steps(trained.fitted),
            version=registered.version,
            in_words=served_in_words(evaluated, proofs, context.config.registry.format),
            seconds=stages.seconds,
        )


def _begin(
    asked: Config, overrides: Sequence[str], team: Team
) -> tuple[RunContext, Sequence[Finding]]:
    """A run that has begun or goes on, and what the data check found; all that can be refused is."""
    config, resume = resumed(with_kept_test(with_named_weights(asked)), overrides)
    begun = begun_with(resume, config.runs) if resume else None
    check_name(config.registry.name)
    dataset, findings = data_to_train_on(config)
    begun_as = overrides if begun is None else begun
    name = run_name(config, begun_as)
    say_warnings(findings)
    for split in ("validation", "test"):
        if truths := read_truths(dataset, split):
            check_evaluator(truths, dataset.class_names)
    if resume is None and config.train.checkpoint is None:
        logger.info(
            f"{config.model.name} starts from random weights; model=ssd_mobilenet_v1_coco starts from "
            "COCO."
        )
    config = with_precision(config)
    agree(team, asked, config, dataset)
    tracker = Tracker(config.tracking, Path(config.outputs))
    tracker.start("train", name, resume=resume, digest=config_digest(config))
    say_run(tracker)
    folder = tracker.folder.relative_to(config.outputs)
    team.hear({"name": tracker.name, "folder": folder.as_posix()})
    return RunContext(tracker, config, dataset, begun_as), findings


def _doubts(context: RunContext, trained: Trained, evaluated: Evaluated) -> list[str]:
    learned = learned_map(context, trained.detector)
    found = scores(learned, trained.fitted, evaluated.evaluation.metrics["mAP"])
    return doubts(found, trained.fitted, context.config.train.steps, context.config.train.schedule)
