"""What several jobs do within their run: record inputs, evaluate a split, export and prove, register."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from odtrain import __version__
from odtrain.config.schema import Config
from odtrain.config.tiles import judging_tiles
from odtrain.dataset.faulty import LEFT_OUT_FILE
from odtrain.dataset.look import read_memories
from odtrain.dataset.read import Dataset
from odtrain.errors import DataError, OdtrainError
from odtrain.evaluation import saved_detections
from odtrain.evaluation.evaluate import (
    Evaluation,
    check_evaluator,
    evaluate,
    operating_thresholds,
)
from odtrain.evaluation.saved_detections import Kept, read_kept, write_kept, write_labelled
from odtrain.export.int8.explain import FOLDER as INT8_FOLDER
from odtrain.export.int8.explain import explain
from odtrain.export.int8.ladder import Ladder
from odtrain.export.int8.rungs import MORE_PICTURES
from odtrain.export.lite import LiteWriter
from odtrain.export.parity import Judge, Proof, int8_of, prove
from odtrain.export.raw_outputs import raw_beside
from odtrain.export.writers import as_exported, export, passport_of
from odtrain.export_formats import FORMATS, INT8, served_format
from odtrain.findings import Finding, findings_json
from odtrain.io.checksums import fingerprint
from odtrain.io.remote.files import is_file, local
from odtrain.jobs.context import RunContext, Split
from odtrain.models.ssd import SSD
from odtrain.promotion.promote import outcome, promote_trained
from odtrain.registry.register import ModelCandidate, postpone, register
from odtrain.registry.versions import MayNotError
from odtrain.reports.data_preview import write_pictures
from odtrain.reports.evaluation_report import write_report
from odtrain.reports.findings_page import findings_page
from odtrain.structures import Detect, Detections, UInt8Image
from odtrain.system import timing_lock
from odtrain.system.progress import Bar, doing
from odtrain.tracking.runs import EVAL_SPLIT
from odtrain.tracking.store import is_outage
from odtrain.tracking.tracker import Tracker
from odtrain.training.input_pipeline import Pictures
from odtrain_runtime.provenance import THRESHOLDS, write_thresholds
from odtrain_runtime.tiles import TILES, Tiles, tiled, write_tiles

logger = logging.getLogger(__name__)

MADE_FROM = "made_from"
"""Fact kept of a file that was proven: what it follows from."""
MS_PER_PICTURE = "eval/ms_per_picture"
KEPT = f"eval/{saved_detections.FOLDER}"
"""Where in a run its detections are."""


# ---- inputs


@doing("Recording settings and data")
def record_inputs(context: RunContext, findings: Sequence[Finding]) -> None:
    """Log configuration, data and what the data check found."""
    tracker, dataset = context.tracker, context.dataset
    if not _has_trained(tracker):
        tracker.log_config(context.config, context.overrides)
    splits = {split: counts for split, counts in dataset.counts.items() if counts["images"]}
    for split, counts in splits.items():
        tracker.log_dataset(
            f"{dataset.name}-{split}", dataset.digest, dataset.folder, context=split, profile=counts
        )
    names = ["label_map.pbtxt", "dataset.json"]
    names += [f"{split}_{what}" for split in splits for what in ("labels.csv", "list.txt")]
    names += [LEFT_OUT_FILE] if is_file(dataset.folder / LEFT_OUT_FILE) else []
    for name in names:
        text = local(dataset.folder / name).read_text(encoding="utf-8")
        tracker.log_text(text, f"data/{name}")
    memories = read_memories(dataset.folder)
    turned = {file: memory.picture.orientation for file, memory in memories.items()}
    tracker.log_text(findings_json(findings), "data/findings.json")
    title = f"{dataset.name}: what the data check found"
    found = findings_page(title, findings, turned, dataset.class_names)
    tracker.log_text(found, "data/findings.html")


@doing("Drawing what the network will see")
def record_pictures(context: RunContext) -> None:
    """Charts of the data, and what the network will see: once, when the run begins."""
    tracker, config = context.tracker, context.config
    if not _has_trained(tracker):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_pictures(context.dataset, folder, config.augment, config.model, config.train.seed)
            tracker.log_folder(folder, "data/pictures")


def _has_trained(tracker: Tracker) -> bool:
    """Whether what comes before the first step of a training is logged."""
    return tracker.resumed and bool(tracker.logged_steps("train/loss"))


# ---- evaluating


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector found in the pictures of a split."""

    split: Split
    detections: list[Detections]


@dataclass(frozen=True, eq=False)
class Evaluated(Found):
    """What was found, and what it is worth."""

    evaluation: Evaluation


def evaluate_split(
    context: RunContext,
    detect: Detect,
    split: str,
    *,
    again: bool = False,
    tiles: Tiles | None = None,
) -> Evaluated:
    """Score a detector on a split and log numbers, report and drawn pictures as `eval/`.

    With `again` the numbers take the place of those the run has. Of a detector that looks by `tiles` the time
    a picture takes is logged too.
    """
    tracker, config, dataset = context.tracker, context.config, context.dataset
    pictures = Split.read(dataset, split)
    check_evaluator(pictures.truths, dataset.class_names)
    shown = Bar(pictures.images, doing="evaluate")
    if tiles is not None:
        logger.info(f"Looked at by {tiles}; scored on whole pictures.")
    seconds: list[float] = []
    found = [_timed(detect, image, seconds) for image in timing_lock.giving_way(shown)]
    evaluation = evaluate(
        pictures.truths, found, dataset.class_names, config.evaluate.bootstrap, config.data.seed
    )
    metrics = {f"eval/{name}": value for name, value in evaluation.metrics.items()}
    if tiles is not None:
        metrics[MS_PER_PICTURE] = 1000 * float(np.median(seconds))
    tracker.log(metrics, context.step, replace=again)
    tracker.set_tags({EVAL_SPLIT: split})
    write_report(
        evaluation,
        pictures.images.__getitem__,
        pictures.truths,
        found,
        tracker.folder / "eval",
        config.evaluate.drawn,
    )
    kept = tracker.folder / KEPT
    write_labelled(kept, pictures.labelled)
    ours = Kept(pictures.labelled.digest, found, dataset.class_names)
    write_kept(kept / f"{saved_detections.EVALUATED}.npz", ours)
    tracker.log_folder(tracker.folder / "eval", "eval")
    return Evaluated(pictures, found, evaluation)


def _timed(detect: Detect, image: UInt8Image, seconds: list[float]) -> Detections:
    """What is found, and how long it took, noted."""
    begun = time.perf_counter()
    found = detect(image)
    seconds.append(time.perf_counter() - begun)
    return found


def detect_of(detector: SSD, config: Config) -> Detect:
    """The network as it is judged: by the tiles that it is trained on, or that `evaluate.tiles` names."""
    return tiled(detector.as_detect(), judging_tiles(config))


def judge_trained(context: RunContext, detector: SSD, split: str) -> Evaluated:
    """`evaluate_split` of the network that the run has trained."""
    tiles = judging_tiles(context.config)
    return evaluate_split(context, detect_of(detector, context.config), split, tiles=tiles)


# ---- exporting


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with trained weights, and the run that they are of."""

    detector: SSD
    run: str


def export_and_prove(
    context: RunContext, detector: SSD, found: Found, *, explain_int8: bool = False
) -> list[Proof]:
    """Write every export of a detector into its run, and log what each does in the split of `found`."""
    tracker, dataset = context.tracker, context.dataset
    folder = tracker.folder / "export"
    checkpoint = Checkpoint(detector, tracker.name)
    proofs = prove_exports(
        context.config, dataset, checkpoint, found, folder, explain_int8=explain_int8
    )
    made_from = _made_from(context.config, detector)
    for one in proofs:
        kept = one.kept(found.split.labelled.digest)
        kept.facts[MADE_FROM] = made_from
        write_kept(tracker.folder / KEPT / f"{one.format}.npz", kept)
    # The files are new, and these are their numbers.
    _log_proofs(context, proofs, replace=True)
    return proofs


def _made_from(config: Config, detector: SSD) -> str:
    """Digest of what exported files follow from: weights, and how they are exported."""
    digest = hashlib.sha256(repr(config.export).encode())
    for name, variable in sorted(detector.state_by_name().items()):
        digest.update(name.encode() + variable.numpy().tobytes())
    return digest.hexdigest()


def proven_before(context: RunContext, detector: SSD, found: Found) -> list[Proof] | None:
    """What this training had proven when it was interrupted; None if not all files were, or of other weights.

    The files and their numbers stay as they are, so that none is logged twice.
    """
    tracker, config = context.tracker, context.config
    if not tracker.resumed:
        return None
    split, made_from = found.split, _made_from(config, detector)
    judge = Judge(
        found.detections, split.truths, context.dataset.class_names, config.export.max_map_drop
    )
    proofs = []
    for name in config.export.formats:
        file = tracker.folder / "export" / FORMATS[name].file
        try:
            kept = read_kept(tracker.folder / KEPT / f"{name}.npz")
            expected = (split.labelled.digest, fingerprint(file), made_from)
        except (DataError, OSError):
            return None
        if expected != (kept.split, kept.facts.get("sha256"), kept.facts.get(MADE_FROM)):
            return None
        proofs.append(judge.recalled(name, file, kept))
    logger.info("The files were exported and measured before: they stay.")
    _log_proofs(context, proofs, replace=False)
    return proofs


@doing("Recording the files")
def _log_proofs(context: RunContext, proofs: Sequence[Proof], *, replace: bool) -> None:
    """Log numbers, verdict and files of exports."""
    tracker = context.tracker
    for one in proofs:
        tracker.log(one.metrics(), context.step, replace=replace)
        tracker.set_tags({f"odtrain.export.{one.format}": one.failed or "passed"})
    tracker.log_folder(tracker.folder / "export", "export")
    tracker.log_folder(tracker.folder / KEPT, KEPT)


def prove_exports(
    config: Config,
    dataset: Dataset,
    checkpoint: Checkpoint,
    found: Found,
    folder: Path,
    *,
    explain_int8: bool = False,
) -> list[Proof]:
    """Write every export of a checkpoint into a folder, and hold each against what the checkpoint found.

    Of an int8 file that loses too much, or with `explain_int8`, it says in `int8/` why; in place of one that
    loses too much the ladder makes a better one, if it can.
    """
    tiles = judging_tiles(config)
    passport = {
        "odtrain": __version__,
        "run": checkpoint.run,
        "model": config.model.name,
        "architecture": config.model.architecture,
        "data": dataset.name,
        "data_digest": dataset.digest,
        **_stored_thresholds(dataset, checkpoint.detector, config),
        **({TILES: write_tiles(tiles)} if tiles else {}),
    }
    training = Pictures(dataset.records("train"))

    def calibration(times: int) -> Iterator[UInt8Image]:
        return training.spread(times * config.export.calibration_pictures)

    files = export(
        checkpoint.detector,
        dataset.class_names,
        config.export.formats,
        folder,
        calibration(1),
        config.export.nms,
        passport,
    )
    proven = partial(
        prove,
        reference=found.detections,
        raw=raw_beside(checkpoint.detector, found.split.images),
        images=found.split.images,
        truths=found.split.truths,
        class_names=dataset.class_names,
        max_map_drop=config.export.max_map_drop,
        benchmark=config.benchmark,
    )
    proofs = proven(files)
    shutil.rmtree(folder / INT8_FOLDER, ignore_errors=True)  # of an earlier export
    int8 = int8_of(proofs)
    if int8 is None or not (explain_int8 or _fails(int8, config)):
        return proofs
    writer = LiteWriter(as_exported(checkpoint.detector), calibration(1), config.export.nms)
    _explain_int8(writer, int8, found, dataset.class_names, folder / INT8_FOLDER)
    if not (config.export.int8_ladder and _fails(int8, config)):
        return proofs
    ladder = Ladder(
        writer,
        dataset.class_names,
        passport_of(checkpoint.detector, INT8, passport),
        calibration(MORE_PICTURES),
        lambda file: proven({INT8: file})[0],
        found.split.images[0],
        len(found.split.images),
        config.benchmark,
        config.export.int8_ladder_minutes,
    )
    climbed = ladder.climb(int8, folder / INT8_FOLDER)
    return [climbed if one is int8 else one for one in proofs]


def _fails(int8: Proof, config: Config) -> bool:
    """Whether an int8 file does not pass for what it loses."""
    return int8.failed is not None and int8.map_drop > config.export.max_map_drop


def _explain_int8(
    writer: LiteWriter, int8: Proof, found: Found, class_names: Sequence[str], folder: Path
) -> None:
    """Write how an int8 file differs from its checkpoint, and say where it does most."""
    pictures = found.split
    worst = explain(
        writer,
        int8.file,
        class_names,
        pictures.images,
        pictures.truths,
        found.detections,
        int8.measured.detections,
        folder,
    )
    logger.info(f"Where the int8 file differs most ({folder} has all):\n{worst}")


@doing("Choosing thresholds on the validation pictures")
def _stored_thresholds(dataset: Dataset, detector: SSD, config: Config) -> dict[str, str]:
    """Operating thresholds for the passport, chosen on the validation pictures, if there are any."""
    pictures = Split.read(dataset, "validation")
    if not any(len(truth.classes) for truth in pictures.truths):
        return {}
    found = list(map(detect_of(detector, config), pictures.images))
    precision = config.evaluate.precision
    chosen = operating_thresholds(pictures.truths, found, dataset.class_names, precision)
    return {THRESHOLDS: write_thresholds(chosen)} if chosen else {}


# ---- registering


@dataclass(frozen=True)
class Registered:
    """What became of the files of a run.

    Attributes:
        model: where the model is to be had: a models:/ URI, or a file of the run while the server is
            away.
        outcome: what the gate said of the version, in words; None where none was judged.
        version: its model's name and its number; None where none was registered.
    """

    model: str
    outcome: str | None = None
    version: tuple[str, str] | None = None


@doing("Registering the files")
def register_files(
    context: RunContext, evaluation: Evaluation, proofs: Sequence[Proof]
) -> Registered:
    """Register the files that agree with the checkpoint, and let the gate judge the version.

    A file that failed stays in the run alone.
    """
    config, dataset = context.config, context.dataset
    metrics = {f"eval/{name}": value for name, value in evaluation.metrics.items()}
    for one in proofs:
        metrics |= one.metrics()
    files = {one.format: str(one.file) for one in proofs if not one.failed}
    if not files:
        logger.info(
            "Nothing is registered: no exported file agrees with the checkpoint (see the table)."
        )
        best = served_format([one.format for one in proofs], config.registry.format)
        return Registered(next(str(one.file) for one in proofs if one.format == best))
    candidate = ModelCandidate(
        name=config.registry.name,
        architecture=config.model.name,
        files=files,
        metrics=metrics,
        failed={one.format: one.failed for one in proofs if one.failed},
        data_digest=dataset.digest,
        step=context.step,
        data=dataset.name,
        pictures=len(evaluation.images),
        format=config.registry.format,
    )
    version = register(context.tracker, candidate)
    if version is None:
        return Registered(files[candidate.served])
    return judge_registered(context, candidate, version)


@doing("Judging the version")
def judge_registered(context: RunContext, candidate: ModelCandidate, version: str) -> Registered:
    """Let the gate judge a version that was just registered.

    What keeps the gate from judging is said, and does not make the training a failure.
    """
    tracker, config, name = context.tracker, context.config, candidate.name
    uri = f"models:/{name}/{version}"
    try:
        verdict = promote_trained(config, tracker.uri, tracker.folder, name, version)
    except MayNotError as problem:
        said = f"{uri} is @challenger, and passed every check. {problem}"
        return Registered(f"models:/{name}@challenger", said, (name, version))
    except Exception as problem:
        if not (isinstance(problem, OdtrainError) or is_outage(tracker.uri, problem)):
            raise
        if is_outage(tracker.uri, problem):
            postpone(tracker.folder, candidate)
        logger.info(f"{uri} is registered and was not judged: {problem}")
        return Registered(uri, version=(name, version))
    champion = verdict.passed and config.registry.promote == "auto"
    alias = "champion" if champion else "challenger"
    said = outcome(verdict, config.registry, name, version)
    return Registered(f"models:/{name}@{alias}", said, (name, version))
