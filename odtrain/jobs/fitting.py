"""Training within a job: the data it needs, what it is fed, when it is scored, how a signal ends it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import tensorflow as tf

from odtrain.config.differing import in_a_name
from odtrain.config.schema import Config
from odtrain.config.sizes import check_sizes, input_sizes
from odtrain.config.tiles import judging_tiles, training_tiles
from odtrain.dataset.checks.anchor_fit import fit_findings
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import PIECES, Dataset, labelled_images, read_names
from odtrain.errors import ConfigError, DataError
from odtrain.evaluation.evaluate import quick_map
from odtrain.evaluation.paired_bootstrap import compare_detections
from odtrain.export.writers import as_exported
from odtrain.findings import Finding, by_severity, findings_table
from odtrain.io.tfrecord import index_records
from odtrain.jobs.context import RunContext, Split
from odtrain.jobs.speed import record_speed
from odtrain.media.draw import draw, draw_truth, side_by_side
from odtrain.media.draw import fit as fit_size
from odtrain.model_source import load_first_weights
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.recipes.settle import refuse_auto
from odtrain.structures import Detections, FloatArray, GroundTruth, UInt8Image
from odtrain.system import timing_lock
from odtrain.tracking.tracker import Terminated, Tracker
from odtrain.training.input_pipeline import pictures_of_step, training_batches
from odtrain.training.loop import CHANCE, Fit, Fitted, Listener
from odtrain.training.quantized import check_quantizable
from odtrain.training.team import ALONE, Team
from odtrain_runtime.tiles import Tiles, tiled

logger = logging.getLogger(__name__)

SHOWN_PER_VALIDATION = 4
"""Pictures whose detections the run's page shows at every validation."""
SHOWN_SIZE = (240, 640)
"""Pixels of their shorter side at least, and of the longer one at most."""
SHOWN_SCORE = 0.3
VALIDATIONS = 10
"""How many a training has where nothing else is asked for."""
LEAST_APART = 50
"""Steps between two of these, so that a short training is not spent on validation."""
CHANCE_RESAMPLES = 300
"""Of the validation pictures, where `train.patience` asks whether one evaluation is worse than another."""
WARNINGS_OF_EACH = 3
"""Warnings of one code that a training repeats."""
STOPPED_BY_SIGNAL: dict[str | None, type[BaseException]] = {
    "interrupted": KeyboardInterrupt,
    "terminated": Terminated,
}
"""Why training stopped -> what ends the program then."""
Judge = Callable[[int, float], str | None]
"""Given the step and the mAP of a validation, says why to stop, or None."""
Log = Callable[[dict[str, float], int], None]
"""Given metrics by name, and the step."""


# ---- before


def data_to_train_on(config: Config) -> tuple[Dataset, tuple[Finding, ...]]:
    """The prepared data, and what the check found in them and in how network and settings fit them.

    Raises:
        ConfigError: a batch is larger than the training split, steps of the network cannot be quantised, or
            `train.multi_scale` leaves one size alone.
        DataError: the data have errors, or no test pictures.
    """
    refuse_auto(config)
    check_quantizable(config)
    check_sizes(config.model, config.train.multi_scale)
    dataset, batch_size = prepare(config.data), config.train.batch_size
    train = dataset.counts["train"]
    pictures = train.get(PIECES, train["images"])
    if batch_size > pictures:
        raise ConfigError(
            f"train.batch_size={batch_size}",
            f"is more than the {pictures} training pictures of {dataset.name}.",
            f"Give train.batch_size={pictures} or less.",
        )
    if not dataset.counts["test"]["images"]:
        raise DataError(
            dataset.folder,
            "has no test pictures.",
            "Give data.test_fraction, data.test_list, or a folder test/ beside train/.",
        )
    fit = fit_findings(config.model, labelled_images(dataset), training_tiles(config.data))
    return dataset, by_severity([*dataset.findings, *fit, *_about_validation(config, dataset)])


def validated_every(config: Config) -> int:
    """Steps between validations; 0 is after the last step alone."""
    wished = config.evaluate.every
    return max(LEAST_APART, config.train.steps // VALIDATIONS) if wished is None else wished


def _about_validation(config: Config, dataset: Dataset) -> Iterator[Finding]:
    """OD123: without a second step that was validated there is none to choose between."""
    every, steps = validated_every(config), config.train.steps
    if dataset.counts["validation"]["images"] and not 0 < every < steps:
        cause = (
            f"of {steps:,} steps only the last is validated: no other step's weights can be chosen."
        )
        remedy = f"Set evaluate.every={max(1, steps // VALIDATIONS)}" if steps > 1 else None
        where = "evaluate.every" if config.evaluate.every is None else f"evaluate.every={every}"
        yield Finding.of("OD123", where, cause, remedy=remedy)


def say_warnings(findings: Sequence[Finding]) -> None:
    """Repeat the first warnings of each code."""
    warnings = [finding for finding in findings if finding.severity == "warning"]
    if warnings:
        *lines, _ = findings_table(warnings, of_each=WARNINGS_OF_EACH).splitlines()
        logger.info("\n".join([*lines, "odtrain check has all warnings about the data."]))


def run_name(config: Config, overrides: Sequence[str]) -> str:
    """What the runs table calls a training: its data, its model and what differs from `conf/`."""
    height, width = config.model.size
    differs = in_a_name(config, overrides)
    return f"{config.data.name} {config.model.name} {height}x{width} {differs}".rstrip()


# ---- training


@dataclass(frozen=True, eq=False)
class Trained:
    """The network in float32 with the weights that validation chose, and how it came to them."""

    detector: SSD
    fitted: Fitted


def train_detector(context: RunContext, judge: Judge | None = None, team: Team = ALONE) -> Trained:
    """Train, or go on training; `judge` may end it at any validation. The chief's part, where several train.

    Raises:
        TrainingError: the loss left the numbers, or a checkpoint cannot be written or read.
        KeyboardInterrupt, Terminated: a signal ended training behind a checkpoint.
    """
    tracker, config, dataset = context.tracker, context.config, context.dataset
    checkpoints = context.checkpoints
    validation = Split.read(dataset, "validation")
    team.hear({})
    detector = detector_to_train(config, dataset, team)
    with team.telling():
        bound = team.workers * record_speed(context, detector.network)
        _fetch_or_begin(context, detector)
    team.hear({})
    fit = Fit(detector, config.train, checkpoints, team)

    def log_checkpoints(step: int = 0) -> None:
        tracker.log_folder(checkpoints, "checkpoints", mirror=True)

    begun = fit.resume()
    if begun:
        logger.info(f"Going on after step {begun} of {config.train.steps}.")
    else:  # MLflow's image grid opens at step 0
        first = map(
            tiled(fit.as_detect(), judging_tiles(config)), validation.images[:SHOWN_PER_VALIDATION]
        )
        _log_found(context, validation, list(first))
    with stop_on_signals(fit):
        fitted = fit.run(
            lambda first: batches_of(config, dataset, detector, first, tracker.folder, team),
            lambda step: names_of_step(config, dataset, step),
            _validation(context, validation, fit, judge) if validation.truths else None,
            validated_every(config),
            Listener(_with_share(tracker.log, bound), tracker.flush, log_checkpoints),
        )
    if fitted.stopped in STOPPED_BY_SIGNAL:
        team.leave()
        log_checkpoints()
        logger.info(
            f"Stopped after step {fitted.step}. Go on: odtrain train train.resume={tracker.name}"
        )
        raise STOPPED_BY_SIGNAL[fitted.stopped]
    fit.load_best()
    trained = Trained(as_exported(detector), fitted)
    if config.train.quantize_from is not None and trained.detector.trained_int8 is None:
        logger.info(
            f"No step behind train.quantize_from={config.train.quantize_from} was kept: the int8 file is "
            "calibrated."
        )
    team.leave()
    log_checkpoints()
    return trained


def detector_to_train(config: Config, dataset: Dataset, team: Team) -> SSD:
    """The configured network with its first random weights, the same in all replicas."""
    with team.scope():
        return build_detector(
            config.model,
            len(dataset.class_names),
            frozen_stages=config.train.freeze,
            batch_norm_trained=config.train.batch_norm != "frozen",
            synchronized=config.train.batch_norm == "synchronized",
            precision=config.train.precision,
            seed=config.train.seed,
            quantized=config.train.quantize_from is not None,
        )


def _with_share(log: Log, bound: float) -> Log:
    """`log`, and how much of the `bound` of pictures a second was reached."""

    def logged(metrics: dict[str, float], step: int) -> None:
        speed = metrics.get("train/images_per_second")
        share = {} if speed is None else {"train/share_of_bound": speed / bound}
        log(metrics | share, step)

    return logged


def _fetch_or_begin(context: RunContext, detector: SSD) -> None:
    """Have the checkpoints of a resumed run here, or the first weights where there are none yet."""
    tracker, config = context.tracker, context.config
    if (context.checkpoints / "last" / "checkpoint").is_file():
        return
    if tracker.resumed and _has_logged(tracker, "checkpoints/last"):
        tracker.fetch_folder("checkpoints", context.checkpoints)
        return
    names = context.dataset.class_names
    table = load_first_weights(detector, names, config.train, config.zoo.mirrors, config.runs)
    if table is not None:
        logger.info(table)
        tracker.log_text(table, "checkpoints/restored.txt")


def _has_logged(tracker: Tracker, folder: str) -> bool:
    """Whether there are artifacts in a folder of the run; False while the server is away."""
    return tracker.online and bool(tracker.client.list_artifacts(tracker.name, folder))


def names_of_step(config: Config, dataset: Dataset, step: int) -> list[str]:
    """File names of the training pictures in the batch of a step, which is 1 or more."""
    names, train = read_names(dataset, "train"), config.train
    index = index_records(dataset.records("train"))
    return [names[one] for one in pictures_of_step(index, train.batch_size, train.seed, step)]


def batches_of(
    config: Config, dataset: Dataset, detector: SSD, first_step: int, folder: Path, team: Team
) -> tf.data.Dataset:
    """This process's shares of the batches from a step on; `folder` is where they are noted on request."""
    if config.train.trace_batches:
        folder.mkdir(parents=True, exist_ok=True)
    return training_batches(
        index_records(dataset.records("train")),
        detector.resize,
        config.augment,
        extent=detector.extent,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        first_step=first_step,
        steps=config.train.steps,
        model=config.model,
        cache_mb=config.train.cache_mb,
        sizes=len(input_sizes(config.model, config.train.multi_scale)),
        trace=folder / "batches.csv" if config.train.trace_batches else None,
        team=team,
    )


def _validation(
    context: RunContext, split: Split, fit: Fit, judge: Judge | None
) -> Callable[[], dict[str, float]]:
    best: list[Detections] = []
    judged = 0

    def validate() -> dict[str, float]:
        nonlocal judged
        step = int(fit.step.numpy())
        found, scores = quick_scores(fit, split, judging_tiles(context.config))
        if fit.beats_best(scores["mAP"]):
            best[:] = found
        elif context.config.train.patience and fit.team.workers == 1 and best:
            scores[CHANCE] = _chance_of_gain(split, best, found)
        if step == judged:  # other weights of the same step
            return scores
        judged = step
        _log_found(context.at(step), split, found[:SHOWN_PER_VALIDATION])
        if judge is not None and (why := judge(step, scores["mAP"])):
            fit.ask_to_stop(why)
        return scores

    return validate


def _chance_of_gain(split: Split, best: Sequence[Detections], found: Sequence[Detections]) -> float:
    """How likely it is that `found` beats the best, by the paired bootstrap over the pictures of the split."""
    names = split.dataset.class_names
    both = compare_detections(split.truths, best, found, names, CHANCE_RESAMPLES, seed=0)
    return both.overall["mAP"].b_better or 0.0


def quick_scores(
    fit: Fit, split: Split, tiles: Tiles | None
) -> tuple[list[Detections], dict[str, float]]:
    """What the network finds in the pictures of a split, looked at by all workers, and its mAP and mAP_50."""
    found = find(fit, split.images, tiles)
    return found, quick_map(split.truths, found, split.dataset.class_names)


def find(fit: Fit, images: Sequence[UInt8Image], tiles: Tiles | None = None) -> list[Detections]:
    """Detections of every picture; of several workers each looks at its share."""
    detect, team = tiled(fit.as_detect(), tiles), fit.team
    numbers = range(team.rank, len(images), team.workers)
    found = {number: detect(images[number]) for number in timing_lock.giving_way(numbers)}
    if team.workers == 1:
        return list(found.values())
    rows = [_as_rows(number, one) for number, one in found.items()]
    return _of_rows(team.rows(np.concatenate([NO_ROWS, *rows])), len(images))


NO_ROWS = np.empty((0, 7), np.float32)
"""Number of the picture, box, score and class of each detection."""


def _as_rows(number: int, found: Detections) -> FloatArray:
    numbers = np.full(len(found.scores), number)
    columns = (numbers, *found.boxes.T, found.scores, found.classes)
    return np.stack(columns, axis=1).astype(np.float32)


def _of_rows(rows: FloatArray, pictures: int) -> list[Detections]:
    each = (rows[rows[:, 0] == number] for number in range(pictures))
    return [Detections(one[:, 1:5], one[:, 5], one[:, 6].astype(np.int64)) for one in each]


def _log_found(context: RunContext, split: Split, found: Sequence[Detections]) -> None:
    """Log the first pictures of a split, what was found beside what is labelled."""
    for one, truth, image in zip(found, split.truths, split.images, strict=False):
        shown = _beside_truth(image, truth, one, context.dataset.class_names)
        context.tracker.log_image(shown, f"val/{truth.name}", context.step)


def _beside_truth(
    image: UInt8Image, truth: GroundTruth, found: Detections, class_names: Sequence[str]
) -> UInt8Image:
    image = fit_size(image, *SHOWN_SIZE)
    return side_by_side(
        draw(image, found, class_names, SHOWN_SCORE),
        draw_truth(image, truth, class_names),
        (f"found, score from {SHOWN_SCORE:g}", "ground truth"),
    )


@contextmanager
def stop_on_signals(fit: Fit) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends training behind a checkpoint; a second Ctrl-C at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        fit.ask_to_stop("terminated" if number == signal.SIGTERM else "interrupted")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.info("\nStopping behind a checkpoint; Ctrl-C again stops at once.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
