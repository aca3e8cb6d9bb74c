"""One tracked run from labels to a registered model: the order of the stages, and what each records."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from odtrain import __version__
from odtrain.config.compose import as_dict, compose_config, flattened
from odtrain.config.schema import Config, replaced
from odtrain.dataset.check import Dataset
from odtrain.dataset.checks.anchor_fit import fit_findings
from odtrain.dataset.prepare import labelled_images, prepare, read_labelled, read_names, read_truths
from odtrain.dataset.scan import read_memories
from odtrain.errors import ConfigError, DataError, OdtrainError
from odtrain.evaluation import saved_detections as detection_files
from odtrain.evaluation.evaluate import (
    Evaluation,
    check_evaluator,
    operating_thresholds,
    quick_map,
)
from odtrain.evaluation.evaluate import evaluate as score
from odtrain.evaluation.saved_detections import Kept, write_kept, write_labelled
from odtrain.export import parity as proof
from odtrain.export.benchmark import Measured, measure
from odtrain.export.parity import Proof, prove
from odtrain.export.writers import export as write_exports
from odtrain.export.writers import inference_copy
from odtrain.export_formats import served_format
from odtrain.findings import Finding, by_severity, findings_json, findings_table
from odtrain.io.tfrecord import index_records
from odtrain.media.draw import draw, draw_truth, side_by_side
from odtrain.media.draw import fit as fit_size
from odtrain.model_source import load_first_weights, open_source, run_config, run_file
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.promotion import promote as promotion
from odtrain.registry import register as registry
from odtrain.reports.data_preview import write_pictures
from odtrain.reports.evaluation_report import write_report
from odtrain.reports.findings_page import findings_page
from odtrain.structures import Detect, Detections, GroundTruth, UInt8Image
from odtrain.system import timing_lock as turns
from odtrain.tracking.runs import (
    NOT_OF_THE_RESULT,
    config_digest,
    drop_artifacts,
    find_resumable,
    is_begun,
    read_story,
)
from odtrain.tracking.store import is_outage, repeated, ui_command
from odtrain.tracking.tracker import Terminated, Tracker
from odtrain.training.input_pipeline import Pictures, training_batches
from odtrain.training.loop import Fit, Fitted, Listener
from odtrain_runtime.provenance import THRESHOLDS, write_thresholds

SHOWN_PER_VALIDATION = 4
"""Pictures whose detections the run's page shows at every validation."""
SHOWN_SIZE = (240, 640)
"""Pixels of their shorter side at least, and of the longer one at most."""
SHOWN_SCORE = 0.3
WARNINGS_OF_EACH = 3
"""Warnings of one code that a training repeats."""
UNTRAINED_BIAS = -8.0
"""Class scores near 3e-4: 0 in an int8 file, whose scores are multiples of 1/256."""
PICKED = "Picked from a sweep and measured again, as"
"""What a run's description goes on with once one of its files is registered from a front."""
STOPPED_BY_SIGNAL = ("interrupted", "terminated")


@dataclass(frozen=True, eq=False)
class Split:
    """The pictures of a split, and what is in them."""

    images: Pictures
    truths: list[GroundTruth]

    @classmethod
    def read(cls, dataset: Dataset, name: str) -> Split:
        """Open a split of a prepared dataset; the split may be empty."""
        return cls(Pictures(dataset.records(name)), read_truths(dataset, name))


def train(config: Config, overrides: Sequence[str]) -> None:
    """The main job: prepare, train, evaluate, export, prove every export, record, register.

    Raises:
        OdtrainError: something the user can put right; the run, if begun, is marked FAILED.
        KeyboardInterrupt, Terminated: a signal ended training behind a checkpoint; the run is marked
            KILLED and can be resumed.
    """
    config, resume = _resumed(config, overrides)
    registry.check_name(config.registry.name)
    dataset = prepare(config.data)
    _check_trainable(dataset, config)
    findings = _findings(config, dataset)
    _say_warnings(findings)
    for split in ("validation", "test"):
        if truths := read_truths(dataset, split):
            check_evaluator(truths, dataset.class_names)
    if resume is None and config.train.checkpoint is None:
        _say(
            f"{config.model.name} starts from random weights; model=ssd_mobilenet_v1_coco starts from "
            "COCO."
        )
    with Tracker(config.tracking, Path(config.outputs)).start(
        "train", _run_name(config), resume=resume
    ) as tracker:
        _record_inputs(tracker, config, overrides, dataset, findings)
        _record_pictures(tracker, config, dataset)
        detector, fitted = _fit(tracker, config, dataset)
        found, evaluation = _evaluate_test(tracker, config, dataset, detector, fitted.step)
        proofs = _export_and_prove(tracker, config, dataset, detector, found, fitted.step)
        tracker.describe(_description(config, overrides, dataset, evaluation, proofs, fitted))
        model = _register(tracker, config, dataset, evaluation, proofs, fitted.step)
        ui = ui_command(tracker.uri, experiment_id(tracker))
    print(_closing_words(evaluation, proofs, model, ui, overrides))


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
    dataset = prepare(config.data)
    _check_trainable(dataset, config)
    findings = _findings(config, dataset)
    curve: list[tuple[float, float]] = []
    stopped: str | None = None

    def note(step: int, score: float) -> str | None:
        nonlocal stopped
        curve.append((step / config.train.steps, score))
        stopped = judge(*curve[-1]) if step < config.train.steps else None
        return stopped

    with Tracker(config.tracking, Path(config.outputs)).start(
        "train", _run_name(config), parent=parent
    ) as tracker:
        _record_inputs(tracker, config, overrides, dataset, findings)
        detector, fitted = _fit(tracker, config, dataset, note)
        found, evaluation = evaluate_split(
            tracker, config, dataset, detector.as_detect(), "validation", fitted.step
        )
        proofs, intervals = [], {}
        if stopped is None:
            proofs = _export_and_prove(
                tracker, config, dataset, detector, found, fitted.step, "validation"
            )
            intervals = _intervals(tracker, config, dataset, proofs, fitted.step)
        else:
            tracker.set_tags({"odtrain.stopped_early": stopped})
        described = _description(
            config, overrides, dataset, evaluation, proofs, fitted, "validation"
        )
        tracker.describe(described)
        return TrialResult(tracker.name, curve, evaluation, proofs, intervals, stopped)


def _intervals(
    tracker: Tracker, config: Config, dataset: Dataset, proofs: Sequence[Proof], step: int
) -> dict[str, dict[str, float]]:
    """The 95 % interval of each file's own mAP on the validation split, logged beside it."""
    truths = read_truths(dataset, "validation")
    found: dict[str, dict[str, float]] = {}
    for one in proofs:
        turns.give_way()
        values = score(
            truths,
            one.measured.detections,
            dataset.class_names,
            config.evaluate.bootstrap,
            config.data.seed,
        ).metrics
        found[one.format] = {key: values[key] for key in ("mAP_lo", "mAP_hi") if key in values}
        logged = {f"export/{one.format}/{key}": value for key, value in found[one.format].items()}
        tracker.log(logged, step)
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
        files = write_exports(
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


def register_picked(config: Config, run_id: str, format: str) -> str:
    """Measure the file of a sweep's training on the test split, and register it alone.

    Returns:
        The model's URI.

    Raises:
        OdtrainError: the run is not there, or its checkpoint is not.
    """
    source = open_source(run_id, config)
    assert source.detector is not None
    made_with = replaced(
        run_config(run_id, config), {"export.formats": [format], "registry": config.registry}
    )
    dataset = prepare(made_with.data)
    described = read_story(run_id, config.tracking).tags.get("mlflow.note.content", "")
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("register", resume=run_id):
        step = made_with.train.steps
        found, evaluation = evaluate_split(
            tracker, made_with, dataset, source.detect, "test", step, again=True
        )
        proofs = _export_and_prove(tracker, made_with, dataset, source.detector, found, step)
        model = _register(tracker, made_with, dataset, evaluation, proofs, step)
        before = described.partition(f"\n\n{PICKED}")[0]
        after = f"**{headline(evaluation)}** on the test split.\n\n{proof.table(proofs)}"
        tracker.describe(f"{before}\n\n{PICKED} `{model}`: {after}")
    print(f"{headline(evaluation)} on the test split.\n{proof.table(proofs)}")
    return model


def measure_again(config: Config, run_id: str, file: str) -> dict[str, float]:
    """Numbers of a file of a sweep's training on the validation split, by name, as they are now.

    Raises:
        TrackingError: the run or the file is not to be had.
    """
    made_with = run_config(run_id, config)
    dataset = prepare(made_with.data)
    pictures = Split.read(dataset, "validation")
    measured = measure(
        run_file(run_id, file, config),
        pictures.images,
        made_with.benchmark.runs,
        made_with.benchmark.threads,
    )
    scores = quick_map(pictures.truths, measured.detections, dataset.class_names)
    numbers = ("latency_ms_p50", "latency_ms_p90", "size_mb", "peak_memory_mb")
    return scores | {name: getattr(measured, name) for name in numbers}


def drop_exports(config: Config, run_id: str, files: Mapping[str, str]) -> None:
    """Delete exported files of a run, in its folder and in MLflow, and say so in its tags.

    Args:
        config: of the sweep.
        run_id: of the training.
        files: format -> path among the run's artifacts.
    """
    drop_artifacts(config.tracking, run_id, list(files.values()))
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("drop", resume=run_id):
        for name, file in files.items():
            tracker.set_tags({f"odtrain.export.{name}": "dropped: not on the front of its sweep"})
            local = tracker.folder / file
            if local.is_dir():
                shutil.rmtree(local)
            local.unlink(missing_ok=True)


# ---- before training


def _resumed(config: Config, overrides: Sequence[str]) -> tuple[Config, str | None]:
    """The configuration to use, and the run to go on with, if there is one."""
    wanted = config.train.resume or _begun_under_mlflow_run(config)
    if wanted == "auto":
        wanted = find_resumable(config.tracking, Path(config.outputs), config_digest(config))
        if wanted is None:
            _say("No unfinished run of this configuration: a new one begins.")
    if wanted is None:
        return config, None
    wanted = wanted.removeprefix("runs:/")
    saved = run_config(wanted, config)
    _refuse_changes(config, saved, overrides, wanted)
    own = {name: getattr(config, name) for name in ("tracking", "outputs")}
    return replaced(saved, own | {"train.max_minutes": config.train.max_minutes}), wanted


def _begun_under_mlflow_run(config: Config) -> str | None:
    """The run of `mlflow run --run-id`, if a training was begun in it."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    return run_id if is_begun(config.tracking, run_id) else None


def _refuse_changes(config: Config, saved: Config, overrides: Sequence[str], run: str) -> None:
    """A resumed run keeps its configuration: an override that says otherwise is refused."""
    asked, kept = flattened(as_dict(config)), flattened(as_dict(saved))
    default = flattened(as_dict(compose_config([])))
    given = {override.lstrip("+~").partition("=")[0] for override in overrides}
    may_differ = tuple(f"{key}." for key in NOT_OF_THE_RESULT)
    for key, value in asked.items():
        if f"{key}.".startswith(may_differ) or value == kept.get(key):
            continue
        if {key, key.partition(".")[0]} & given or value != default.get(key):
            raise ConfigError(
                f"{key}={value}",
                f"run {run} was begun with {key}={kept.get(key)} and goes on with it.",
                "Leave the override out, or begin a new run without train.resume.",
            )


def _check_trainable(dataset: Dataset, config: Config) -> None:
    pictures = dataset.counts["train"]["images"]
    if config.train.batch_size > pictures:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size}",
            f"is more than the {pictures} training pictures of {dataset.name}.",
            f"Give train.batch_size={pictures} or less.",
        )
    if not dataset.counts["test"]["images"]:
        raise DataError(
            dataset.folder,
            "has no test pictures.",
            "Give data.test_fraction, data.test_list, or a folder test/ beside train/.",
        )


def _run_name(config: Config) -> str:
    height, width = config.model.size
    return f"{config.data.name} {config.model.name} {height}x{width}"


def _findings(config: Config, dataset: Dataset) -> tuple[Finding, ...]:
    """What the check found in the data, and in how they fit the network."""
    return by_severity([*dataset.findings, *fit_findings(config.model, labelled_images(dataset))])


def _say_warnings(findings: Sequence[Finding]) -> None:
    warnings = [finding for finding in findings if finding.severity == "warning"]
    if warnings:
        *lines, _ = findings_table(warnings, of_each=WARNINGS_OF_EACH).splitlines()
        _say("\n".join([*lines, "odtrain check has all of these warnings."]))


def _record_inputs(
    tracker: Tracker,
    config: Config,
    overrides: Sequence[str],
    dataset: Dataset,
    findings: Sequence[Finding],
) -> None:
    if not tracker.resumed:
        tracker.log_config(config, overrides)
    splits = {split: counts for split, counts in dataset.counts.items() if counts["images"]}
    for split, counts in splits.items():
        tracker.log_dataset(
            f"{dataset.name}-{split}", dataset.digest, dataset.folder, context=split, profile=counts
        )
    names = ["label_map.pbtxt", "dataset.json", *(f"{split}_labels.csv" for split in splits)]
    for name in names:
        tracker.log_text((dataset.folder / name).read_text(encoding="utf-8"), f"data/{name}")
    memories = read_memories(dataset.folder)
    turned = {file: memory.picture.orientation for file, memory in memories.items()}
    tracker.log_text(findings_json(findings), "data/findings.json")
    title = f"{dataset.name}: what the data check found"
    tracker.log_text(findings_page(title, findings, turned), "data/findings.html")


def _record_pictures(tracker: Tracker, config: Config, dataset: Dataset) -> None:
    """Charts of the data, and what the network will see: once, when the run begins."""
    if not tracker.resumed:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_pictures(dataset, folder, config.augment, config.model, config.train.seed)
            tracker.log_folder(folder, "data/pictures")


# ---- training


def _fit(
    tracker: Tracker,
    config: Config,
    dataset: Dataset,
    judge: Callable[[int, float], str | None] | None = None,
) -> tuple[SSD, Fitted]:
    """Train; a float32 copy comes back with the weights that validation chose.

    `judge` is given the step and the mAP of every validation, and says why to stop, or None.
    """
    validation = Split.read(dataset, "validation")
    detector = build_detector(
        config.model,
        len(dataset.class_names),
        frozen_stages=config.train.freeze,
        batch_norm_trained=config.train.batch_norm == "trained",
        precision=config.train.precision,
        seed=config.train.seed,
    )
    checkpoints = tracker.folder / "checkpoints"
    _fetch_or_begin(tracker, config, detector, checkpoints)
    fit = Fit(detector, config.train, checkpoints)

    def log_checkpoints() -> None:
        tracker.log_folder(checkpoints, "checkpoints", mirror=True)

    begun = fit.resume()
    if begun:
        _say(f"Going on after step {begun} of {config.train.steps}.")
    else:  # MLflow's image grid opens at step 0
        first = map(detector.as_detect(), validation.images[:SHOWN_PER_VALIDATION])
        _log_found(tracker, dataset, validation, list(first), 0)
    with _stop_on_signals(fit):
        fitted = fit.run(
            lambda first_step: _batches(tracker, config, dataset, detector, first_step),
            lambda ids: _names(dataset, ids),
            _validation(tracker, dataset, detector, validation, fit, judge),
            config.evaluate.every,
            Listener(tracker.log, tracker.flush, lambda step: log_checkpoints()),
        )
    if fitted.stopped in STOPPED_BY_SIGNAL:
        log_checkpoints()
        _say(f"Stopped after step {fitted.step}. Go on: odtrain train train.resume={tracker.name}")
        raise KeyboardInterrupt if fitted.stopped == STOPPED_BY_SIGNAL[0] else Terminated
    fit.load_best()
    log_checkpoints()
    return inference_copy(detector), fitted


def _fetch_or_begin(tracker: Tracker, config: Config, detector: SSD, checkpoints: Path) -> None:
    """Have the checkpoints of a resumed run here, or the first weights where there are none yet."""
    if (checkpoints / "last" / "checkpoint").is_file():
        return
    if tracker.resumed and _has_logged(tracker, "checkpoints/last"):
        tracker.fetch_folder("checkpoints", checkpoints)
        return
    table = load_first_weights(detector, config)
    if table is not None:
        _say(table)
        tracker.log_text(table, "checkpoints/restored.txt")


def _has_logged(tracker: Tracker, folder: str) -> bool:
    """Whether there are artifacts in a folder of the run; False while the server is away."""
    return tracker.online and bool(tracker.client.list_artifacts(tracker.name, folder))


def _names(dataset: Dataset, source_ids: Sequence[int]) -> list[str]:
    """File names of training pictures by the numbers that the records give them."""
    names = read_names(dataset, "train")
    return [names[number] for number in source_ids]


def _batches(
    tracker: Tracker, config: Config, dataset: Dataset, detector: SSD, first_step: int
) -> object:
    return training_batches(
        index_records(dataset.records("train")),
        detector.resize,
        config.augment,
        extent=detector.extent,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        first_step=first_step,
        cache_mb=config.train.cache_mb,
        trace=tracker.folder / "batches.csv" if config.train.trace_batches else None,
    )


def _validation(
    tracker: Tracker,
    dataset: Dataset,
    detector: SSD,
    split: Split,
    fit: Fit,
    judge: Callable[[int, float], str | None] | None,
) -> Callable[[], dict[str, float]] | None:
    if not split.truths:
        return None

    def validate() -> dict[str, float]:
        found = list(map(detector.as_detect(), turns.giving_way(split.images)))
        _log_found(tracker, dataset, split, found[:SHOWN_PER_VALIDATION], int(fit.step.numpy()))
        scores = quick_map(split.truths, found, dataset.class_names)
        if judge is not None and (why := judge(int(fit.step.numpy()), scores["mAP"])):
            fit.ask_to_stop(why)
        return scores

    return validate


def _log_found(
    tracker: Tracker, dataset: Dataset, split: Split, found: Sequence[Detections], step: int
) -> None:
    """Log the first pictures of a split, what was found beside what is labelled."""
    for one, truth, image in zip(found, split.truths, split.images, strict=False):
        shown = _beside_truth(image, truth, one, dataset.class_names)
        tracker.log_image(shown, f"val/{truth.name}", step)


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
def _stop_on_signals(fit: Fit) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends training behind a checkpoint; a second Ctrl-C at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        fit.ask_to_stop(STOPPED_BY_SIGNAL[number == signal.SIGTERM])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _say("\nStopping behind a checkpoint; Ctrl-C again stops at once.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- after training


def _evaluate_test(
    tracker: Tracker, config: Config, dataset: Dataset, detector: SSD, step: int
) -> tuple[list[Detections], Evaluation]:
    return evaluate_split(tracker, config, dataset, detector.as_detect(), "test", step)


def evaluate_split(
    tracker: Tracker,
    config: Config,
    dataset: Dataset,
    detect: Detect,
    split: str,
    step: int,
    *,
    again: bool = False,
) -> tuple[list[Detections], Evaluation]:
    """Score a detector on a split and log numbers, report and drawn pictures as `eval/`.

    With `again` the numbers take the place of those the run has.
    """
    pictures = Split.read(dataset, split)
    check_evaluator(pictures.truths, dataset.class_names)
    shown = tqdm(pictures.images, desc="evaluate", unit="picture")
    found = [detect(image) for image in turns.giving_way(shown)]
    evaluation = score(
        pictures.truths, found, dataset.class_names, config.evaluate.bootstrap, config.data.seed
    )
    metrics = {f"eval/{name}": value for name, value in evaluation.metrics.items()}
    tracker.log(metrics, step, replace=again)
    tracker.set_tags({"odtrain.eval_split": split})
    write_report(
        evaluation,
        pictures.images.__getitem__,
        pictures.truths,
        found,
        tracker.folder / "eval",
        config.evaluate.drawn,
    )
    kept = tracker.folder / "eval" / detection_files.FOLDER
    labelled = read_labelled(dataset, split)
    write_labelled(kept, labelled)
    ours = Kept(labelled.digest, found, dataset.class_names)
    write_kept(kept / f"{detection_files.EVALUATED}.npz", ours)
    tracker.log_folder(tracker.folder / "eval", "eval")
    return found, evaluation


def _export_and_prove(
    tracker: Tracker,
    config: Config,
    dataset: Dataset,
    detector: SSD,
    found: list[Detections],
    step: int,
    split: str = "test",
) -> list[Proof]:
    folder = tracker.folder / "export"
    proofs = _proven(config, dataset, detector, found, folder, tracker.name, split)
    for one in proofs:
        tracker.log(one.metrics(), step, replace=True)  # the files are new, and these are theirs
        tracker.set_tags({f"odtrain.export.{one.format}": one.failed or "passed"})
    tracker.log_folder(folder, "export")
    kept = tracker.folder / "eval" / detection_files.FOLDER
    digest = read_labelled(dataset, split).digest
    for one in proofs:
        write_kept(kept / f"{one.format}.npz", one.kept(digest))
    tracker.log_folder(kept, f"eval/{detection_files.FOLDER}")
    return proofs


def _proven(
    config: Config,
    dataset: Dataset,
    detector: SSD,
    found: list[Detections],
    folder: Path,
    run: str,
    split: str = "test",
) -> list[Proof]:
    """Write every export of a detector into a folder, and prove each on a split."""
    passport = {
        "odtrain": __version__,
        "run": run,
        "model": config.model.name,
        "architecture": config.model.architecture,
        "data": dataset.name,
        "data_digest": dataset.digest,
        **_stored_thresholds(config, dataset, detector),
    }
    training = Pictures(dataset.records("train"))
    files = write_exports(
        detector,
        dataset.class_names,
        config.export.formats,
        folder,
        training.spread(config.export.calibration_pictures),
        config.export.nms,
        passport,
    )
    pictures = Split.read(dataset, split)
    return prove(
        files,
        found,
        pictures.images,
        pictures.truths,
        dataset.class_names,
        config.export.max_map_drop,
        config.benchmark,
    )


def _stored_thresholds(config: Config, dataset: Dataset, detector: SSD) -> dict[str, str]:
    """Operating thresholds for the passport, chosen on the validation pictures, if there are any."""
    pictures = Split.read(dataset, "validation")
    if not any(len(truth.classes) for truth in pictures.truths):
        return {}
    found = list(map(detector.as_detect(), pictures.images))
    chosen = operating_thresholds(
        pictures.truths, found, dataset.class_names, config.evaluate.precision
    )
    return {THRESHOLDS: write_thresholds(chosen)} if chosen else {}


def _description(
    config: Config,
    overrides: Sequence[str],
    dataset: Dataset,
    evaluation: Evaluation,
    proofs: Sequence[Proof],
    fitted: Fitted,
    split: str = "test",
) -> str:
    """What the run's page says of it, in Markdown."""
    counts = dataset.counts
    pictures = ", ".join(f"{counts[split]['images']} {split}" for split in counts)
    chosen = f", weights of step {fitted.best_step}" if fitted.best_step else ""
    ended = f" ({fitted.stopped})" if fitted.stopped else ""
    return "\n\n".join(
        [
            f"`{shlex.join(['odtrain', 'train', *overrides])}`",
            f"**{headline(evaluation)}** on the {split} split of {dataset.name} ({pictures} pictures, "
            f"digest `{dataset.digest[:12]}`).",
            f"{config.model.name}, {fitted.step} steps of {config.train.batch_size} in "
            f"{fitted.seconds / 60:.1f} minutes{ended}{chosen}.",
            proof.table(proofs),
        ]
    )


def headline(evaluation: Evaluation) -> str:
    """The numbers people ask for first, with the interval."""
    values = evaluation.metrics
    interval = f" [{values['mAP_lo']:.3f}, {values['mAP_hi']:.3f}]" if "mAP_lo" in values else ""
    return f"mAP {values['mAP']:.3f}{interval}, mAP_50 {values['mAP_50']:.3f}"


def _register(
    tracker: Tracker,
    config: Config,
    dataset: Dataset,
    evaluation: Evaluation,
    proofs: Sequence[Proof],
    step: int,
) -> str:
    """Register the files that agree with the checkpoint, and let the gate judge the version.

    A file that failed stays in the run alone.

    Returns:
        Where the model is to be had: a models:/ URI, or a file of the run while the server is away.
    """
    failed = {one.format: one.failed for one in proofs if one.failed}
    metrics = {f"eval/{name}": value for name, value in evaluation.metrics.items()}
    for one in proofs:
        metrics |= one.metrics()
    files = {one.format: str(one.file) for one in proofs if not one.failed}
    if not files:
        _say("Nothing is registered: no exported file agrees with the checkpoint (see the table).")
        best = served_format([one.format for one in proofs], config.registry.format)
        return next(str(one.file) for one in proofs if one.format == best)
    candidate = registry.Candidate(
        name=config.registry.name,
        architecture=config.model.name,
        files=files,
        metrics=metrics,
        failed=failed,
        data_digest=dataset.digest,
        step=step,
        data=dataset.name,
        pictures=len(evaluation.images),
        format=config.registry.format,
    )
    version = registry.register(tracker, candidate)
    if version is None:
        return files[candidate.served]
    return _promote(tracker, config, candidate, version)


def _promote(tracker: Tracker, config: Config, candidate: registry.Candidate, version: str) -> str:
    """Let the gate judge a version that was just registered; its URI.

    What keeps the gate from judging is said, and does not make the training a failure.
    """
    name = candidate.name
    try:
        verdict = promotion.promote_trained(config, tracker.uri, tracker.folder, name, version)
    except Exception as problem:
        if not (isinstance(problem, OdtrainError) or is_outage(tracker.uri, problem)):
            raise
        if is_outage(tracker.uri, problem):
            registry.postpone(tracker.folder, candidate)
        _say(f"models:/{name}/{version} is registered and was not judged: {problem}")
        return f"models:/{name}/{version}"
    print(f"Registered {promotion.outcome(verdict, config, name, version)}")
    champion = verdict.passed and config.registry.promote == "auto"
    return f"models:/{name}@{'champion' if champion else 'challenger'}"


def experiment_id(tracker: Tracker) -> str | None:
    """MLflow's id of the run's experiment; None while the server is away."""
    if not tracker.online or tracker.run_id is None:
        return None
    return str(tracker.client.get_run(tracker.run_id).info.experiment_id)


def _closing_words(
    evaluation: Evaluation,
    proofs: Sequence[Proof],
    model: str,
    ui: tuple[str | None, str],
    overrides: Sequence[str],
) -> str:
    """The result, and where to look next."""
    command, url = ui
    store = repeated(overrides, ["tracking.uri"])
    data = repeated(overrides, ["data.", "tracking.uri"])
    return "\n".join(
        [
            "",
            f"{headline(evaluation)} on the test split.",
            proof.table(proofs),
            "",
            "Where to look next:",
            f"  the runs side by side  {command or 'the server is up'}",
            f"                         {url}",
            f"  try the model          odtrain predict source={model}{store} input=PICTURES output=drawn",
            f"  take the files         odtrain models download {model}{store} --to DIR",
            f"  the best of many       odtrain sweep{data}",
            "  your own pictures      odtrain train data.images=DIR data.annotations=DIR data.name=NAME"
            " model=ssd_mobilenet_v1_coco",
        ]
    )


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


# ---- the other commands


def evaluate(config: Config, overrides: Sequence[str]) -> None:
    """Score whatever `source=` names on `evaluate.split` of the configured data."""
    source = open_source(config.source, config)
    made_with = run_config(source.run_id, config) if source.run_id else config
    dataset = prepare(made_with.data)
    if source.class_names and source.class_names != dataset.class_names:
        raise DataError(
            source.name,
            f"knows the classes {', '.join(source.class_names)}; {dataset.name} has "
            f"{', '.join(dataset.class_names)}.",
            "Evaluate it on data with its own classes: data.images=..., data.label_map=...",
        )
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("evaluate", f"evaluate {source.name}", resume=source.run_id):
        if source.run_id is None:
            tracker.log_config(config, overrides)
        _, evaluation = evaluate_split(
            tracker,
            config,
            dataset,
            source.detect,
            config.evaluate.split,
            made_with.train.steps if source.run_id else 0,
            again=True,
        )
    print(f"{headline(evaluation)}\nReport: {tracker.folder / 'eval'}")


def export(config: Config) -> None:
    """Export the run `source=` again in `export.formats`, prove the files, and add them to the run.

    With `output=` the files go to that folder and the run stays as it is.
    """
    source = open_source(config.source, config)
    if source.detector is None or source.run_id is None:
        raise ConfigError(
            f"source={config.source}", "is not a run.", "Give the id of a train run: source=RUN_ID."
        )
    made_with = replace(
        run_config(source.run_id, config), export=config.export, benchmark=config.benchmark
    )
    dataset = prepare(made_with.data)
    found = list(map(source.detect, Split.read(dataset, "test").images))
    if config.output is not None:
        folder = Path(config.output)
        proofs = _proven(made_with, dataset, source.detector, found, folder, source.run_id)
    else:
        tracker = Tracker(config.tracking, Path(config.outputs))
        with tracker.start("export", resume=source.run_id):
            folder = tracker.folder / "export"
            proofs = _export_and_prove(
                tracker, made_with, dataset, source.detector, found, made_with.train.steps
            )
    print(f"{proof.table(proofs)}\nFiles: {folder}")


def benchmark(config: Config) -> None:
    """Time the exported file `source=` in a fresh process, on a picture of the configured data."""
    source = open_source(config.source, config)
    if source.file is None:
        raise ConfigError(
            f"source={config.source}",
            "is not an exported file.",
            "Give a .pb, a SavedModel folder, a .tflite or models:/NAME@ALIAS.",
        )
    pictures = Pictures(prepare(config.data).records("test"))
    timed = measure(
        source.file, pictures.spread(1), config.benchmark.runs, config.benchmark.threads
    )
    print(
        f"{source.file}: {timed.latency_ms_p50:.1f} ms (p50), {timed.latency_ms_p90:.1f} ms (p90) with "
        f"{timed.threads} thread{'s' if timed.threads > 1 else ''}, {timed.size_mb:.1f} MB, peak memory "
        f"{timed.peak_memory_mb:.0f} MB"
    )
