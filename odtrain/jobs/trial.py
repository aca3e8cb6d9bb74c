"""One training of a sweep, and what its network costs before it is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.evaluation.evaluate import Evaluation, evaluate
from odtrain.export.benchmark import Measured, measure
from odtrain.export.parity import Proof
from odtrain.export.writers import export
from odtrain.jobs.closing import description
from odtrain.jobs.context import RunContext, Split
from odtrain.jobs.fitting import data_to_train_on, run_name, train_detector
from odtrain.jobs.speed import with_precision
from odtrain.jobs.steps import export_and_prove, judge_trained, record_inputs
from odtrain.models.build import build_detector
from odtrain.system import timing_lock
from odtrain.tracking.tracker import Tracker
from odtrain.training.input_pipeline import Pictures

UNTRAINED_BIAS = -8.0
"""Class scores near 3e-4: 0 in an int8 file, whose scores are multiples of 1/256."""


@dataclass(frozen=True)
class TrialResult:
    """What a training of a sweep came to.

    Attributes:
        run_id: of the training.
        curve: (share of the steps, validation mAP) of every evaluation.
        evaluation: of the chosen weights on the validation split.
        proofs: of the files, on the validation split; none if the training was stopped.
        intervals: of the files' mAP, by format: `mAP_lo` and `mAP_hi`, where they are defined.
        stopped: why it ended early, or None.
    """

    run_id: str
    curve: list[tuple[float, float]]
    evaluation: Evaluation
    proofs: list[Proof]
    intervals: dict[str, dict[str, float]]
    stopped: str | None


def train_trial(
    config: Config,
    overrides: Sequence[str],
    parent: str,
    judge: Callable[[float, float], str | None],
) -> TrialResult:
    """Train for a sweep: measured on the validation split, below the run `parent`, not registered.

    Args:
        config: with the formats of the sweep.
        overrides: that made it.
        parent: id of the sweep's run.
        judge: given the share of the steps done and the validation mAP, says why to stop, or None.

    Raises:
        OdtrainError: something the user can put right; the run, if begun, is marked FAILED.
    """
    dataset, findings = data_to_train_on(config)
    curve: list[tuple[float, float]] = []
    stopped: str | None = None

    def note(step: int, score: float) -> str | None:
        nonlocal stopped
        curve.append((step / config.train.steps, score))
        stopped = judge(*curve[-1]) if step < config.train.steps else None
        return stopped

    tracker = Tracker(config.tracking, Path(config.outputs))
    name = run_name(config, overrides[::-1])  # what the sweep chose is last
    with tracker.start("train", name, parent=parent):
        context = RunContext(tracker, with_precision(config), dataset, overrides)
        record_inputs(context, findings)
        trained = train_detector(context, note)
        context = context.at(trained.fitted.step)
        evaluated = judge_trained(context, trained.detector, "validation")
        proofs, intervals = [], {}
        if stopped is None:
            proofs = export_and_prove(context, trained.detector, evaluated)
            intervals = _intervals(context, evaluated.split, proofs)
        else:
            tracker.set_tags({"odtrain.stopped_early": stopped})
        tracker.describe(description(context, trained.fitted, evaluated, proofs))
        return TrialResult(tracker.name, curve, evaluated.evaluation, proofs, intervals, stopped)


def _intervals(
    context: RunContext, split: Split, proofs: Sequence[Proof]
) -> dict[str, dict[str, float]]:
    """The 95 % interval of each file's own mAP on a split, logged beside it."""
    config = context.config
    found: dict[str, dict[str, float]] = {}
    for one in proofs:
        timing_lock.give_way()
        values = evaluate(
            split.truths,
            one.measured.detections,
            context.dataset.class_names,
            config.evaluate.bootstrap,
            config.data.seed,
        ).metrics
        found[one.format] = {key: values[key] for key in ("mAP_lo", "mAP_hi") if key in values}
        logged = {f"export/{one.format}/{key}": value for key, value in found[one.format].items()}
        context.tracker.log(logged, context.step)
    return found


def measure_untrained(config: Config) -> dict[str, Measured]:
    """Latency and size of the files of a network with random weights, by format.

    Its scores are as low as a trained network's mostly are: suppression in an int8 file passes over
    scores that round to 0, and would take longer than all the rest if every anchor had 0.5.
    """
    dataset = prepare(config.data)
    training = Pictures(dataset.records("train"))
    model = replace(config.model, class_bias=UNTRAINED_BIAS)
    detector = build_detector(model, len(dataset.class_names), seed=config.train.seed)
    with tempfile.TemporaryDirectory() as scratch:
        files = export(
            detector,
            dataset.class_names,
            config.export.formats,
            Path(scratch),
            training.spread(min(config.export.calibration_pictures, 8)),
            config.export.nms,
            {},
        )
        picture = list(training.spread(1))
        runs, threads = config.benchmark.runs, config.benchmark.threads
        return {name: measure(file, picture, runs, threads) for name, file in files.items()}
