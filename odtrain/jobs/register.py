"""Model files that were trained elsewhere, measured, registered and judged as those of a training are."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import Dataset
from odtrain.errors import ConfigError, DataError
from odtrain.evaluation.evaluate import quick_map
from odtrain.evaluation.saved_detections import under_names, write_kept
from odtrain.export.benchmark import measure
from odtrain.export.parity import keep
from odtrain.export.writers import LABEL_MAP_FILE
from odtrain.export_formats import FORMATS, served_format
from odtrain.io.atomic import write_text
from odtrain.io.checksums import fingerprint
from odtrain.jobs.context import RunContext
from odtrain.jobs.evaluate import record_own
from odtrain.jobs.steps import KEPT, Evaluated, evaluate_split, judge_registered
from odtrain.labels.label_map import label_map_text
from odtrain.model_source import Source, open_source
from odtrain.registry.register import ModelCandidate, check_name, check_registry, register
from odtrain.registry.versions import SETTINGS
from odtrain.structures import Detect, Detections, UInt8Image
from odtrain.system.progress import Bar, doing
from odtrain.tracking.tracker import Tracker
from odtrain_runtime.model_files import kind_of, parts_of
from odtrain_runtime.others.onnx_check import check_onnx
from odtrain_runtime.others.openvino_check import check_openvino, xml_of
from odtrain_runtime.provenance import LABELS_FILE, write_labels

logger = logging.getLogger(__name__)

NOT_STATED = "not stated"
ONE_BY_ONE = "Register them one by one."
SPLIT = "test"


@dataclass(frozen=True)
class RegisterResult:
    """What became of the files.

    Attributes:
        run_id: that measured them.
        model: the version's URI; None while the server is away.
        in_words: the same, and what the gate said.
    """

    run_id: str
    model: str | None
    in_words: str


def register_files(
    config: Config, overrides: Sequence[str], files: Sequence[str], origin: str | None
) -> RegisterResult:
    """Measure model files on the test pictures, register them as one version, and let the gate judge it.

    Args:
        config: `registry.name` is the model, `data.*` the pictures.
        overrides: that the user gave.
        files: of one network, in different formats.
        origin: where they come from, as the user states it.

    Raises:
        ConfigError: one is no file, or two are of one format or of other classes.
        OdtrainError: a file, the data or the store are not to be had.
    """
    check_name(config.registry.name)
    sources = _opened(files, config)
    names = next(iter(sources.values())).class_names
    dataset = prepare(config.data)
    _say_other_classes(names, dataset)
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("register", f"register {Path(files[0]).name}"):
        if tracker.online:
            check_registry(tracker.client, tracker.uri, config.registry.name)
        config = replace(config, evaluate=replace(config.evaluate, split=SPLIT))
        record_own(tracker, config, dataset, overrides)
        context = RunContext(tracker, config, dataset, overrides)
        placed = _placed(sources, tracker.folder / "export", names)
        served = sources[served_format(sources, config.registry.format) or next(iter(sources))]
        evaluated = evaluate_split(context, _in_classes(served, dataset), SPLIT, tiles=served.tiles)
        metrics = _measured(context, sources, placed, evaluated)
        tracker.log_folder(tracker.folder / "export", "export")
        tracker.log_folder(tracker.folder / KEPT, KEPT)
        scored = {f"eval/{name}": value for name, value in evaluated.evaluation.metrics.items()}
        candidate = ModelCandidate(
            name=config.registry.name,
            architecture=Path(files[0]).stem,
            files={name: str(file) for name, file in placed.items()},
            metrics={**scored, **metrics},
            failed={},
            data_digest=dataset.digest,
            step=context.step,
            data=dataset.name,
            pictures=len(evaluated.evaluation.images),
            format=config.registry.format,
            origin=_origin(sources, origin),
        )
        return _registered(context, candidate)


def _opened(files: Sequence[str], config: Config) -> dict[str, Source]:
    """Format -> the opened file.

    Raises:
        ConfigError: one is no file, or two are of one format, of other classes or read differently.
        DataError: nobody says what the classes are called.
    """
    found: dict[str, Source] = {}
    for name in files:
        source = open_source(name, config)
        if source.opened is None or source.file is None:
            raise ConfigError(
                name,
                "is no model file.",
                "Name files: an .onnx, an OpenVINO .xml, a .tflite, a .pb.",
            )
        if not source.class_names:
            raise DataError(
                name,
                "carries no class names.",
                "Give them: predict.label_map=FILE, a name a line, or classes in source.yaml.",
            )
        format = _format_of(source)
        if format in found:
            raise ConfigError(name, f"is a second {format} file.", ONE_BY_ONE)
        found[format] = source
    first, *others = found.values()
    for other in others:
        if other.class_names != first.class_names or _reading(other) != _reading(first):
            problem = f"has other classes than {first.name}, or is read differently."
            raise ConfigError(other.name, problem, ONE_BY_ONE)
    return found


def _reading(source: Source) -> object:
    return source.opened and source.opened.reading


def _format_of(source: Source) -> str:
    """The row of the table of formats under which a file is kept."""
    assert source.file is not None and source.opened is not None
    if kind_of(source.file) != ".tflite":
        return source.opened.format if source.opened.format in FORMATS else "onnx"
    return "tflite_int8" if _whole_numbers(source) else "tflite_fp32"


def _whole_numbers(source: Source) -> bool:
    """Whether a .tflite takes pictures in whole numbers."""
    assert source.opened is not None
    height, width = source.opened.input_size or (1, 1)
    grey = np.full((height, width, 3), 127, np.uint8)
    return source.opened.prepare(grey).dtype.kind in "iu"


def _say_other_classes(names: Sequence[str], dataset: Dataset) -> None:
    if tuple(names) != dataset.class_names:
        logger.warning(
            f"The model knows {', '.join(names)}; {dataset.name} has {', '.join(dataset.class_names)}. It is "
            "registered with the mAP that it has here, and can be no champion."
        )


def _in_classes(source: Source, dataset: Dataset) -> Detect:
    """The source with the class ids that the data give the names of its classes."""

    def detect(image: UInt8Image) -> Detections:
        (found,) = under_names([source.detect(image)], source.class_names, dataset.class_names)
        return found

    return detect


@doing("Copying the files")
def _placed(sources: Mapping[str, Source], folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Format -> its copy in the run, with the label files and how the files are read beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / LABELS_FILE, write_labels(names))
    write_text(folder / LABEL_MAP_FILE, label_map_text(tuple(names)))
    placed = {}
    for format, source in sources.items():
        assert source.file is not None and source.opened is not None
        placed[format] = folder / FORMATS[format].file
        _copy(source.file, placed[format])
        if source.opened.reading is not None:
            reading = replace(source.opened.reading, classes=tuple(names))
            write_text(folder / SETTINGS, reading.as_json() + "\n")
    return placed


def _copy(model: Path, copy: Path) -> None:
    if kind_of(model) == ".xml":
        copy.mkdir()
        for part in parts_of(model):
            shutil.copyfile(part, copy / f"model{part.suffix}")
    else:
        (shutil.copytree if model.is_dir() else shutil.copyfile)(model, copy)


def _measured(
    context: RunContext,
    sources: Mapping[str, Source],
    placed: Mapping[str, Path],
    evaluated: Evaluated,
) -> dict[str, float]:
    """Measure each copy in a process of its own, and log what it did: its metrics."""
    config, dataset, split = context.config, context.dataset, evaluated.split
    timing = config.benchmark
    metrics: dict[str, float] = {}
    for format, file in Bar(placed.items(), doing="measure files", unit="file"):
        trusted = config.trust_source
        measured = measure(file, split.images, timing.runs, timing.threads, trusted=trusted)
        known = sources[format].class_names
        found = under_names(measured.detections, known, dataset.class_names)
        scores = quick_map(split.truths, found, dataset.class_names)
        values: dict[str, float] = {
            name: scores[name] for name in ("mAP", "mAP_50") if name in scores
        }
        values |= measured.costs
        own = {f"export/{format}/{name}": value for name, value in values.items()}
        kept = keep(measured, split.labelled.digest, file)
        write_kept(
            context.tracker.folder / KEPT / f"{format}.npz", replace(kept, class_names=known)
        )
        context.tracker.log(own, context.step)
        metrics |= own
    return metrics


def _origin(sources: Mapping[str, Source], stated: str | None) -> dict[str, str]:
    """Where files come from: as the user states it, their own word on their licence, and their sha256."""
    said = {"origin": stated or NOT_STATED}
    for source in sources.values():
        assert source.file is not None
        for part in parts_of(source.file):
            said[f"sha256 of {part.name}"] = fingerprint(part)
        if licence := _texts(source.file).get("license"):
            said["licence, as the file states it"] = licence
    return said


def _texts(file: Path) -> Mapping[str, str]:
    """What a file says of itself, where its kind has room for it."""
    kind = kind_of(file)
    if kind == ".onnx":
        return check_onnx(file)
    return check_openvino(xml_of(file)).texts if kind == ".xml" else {}


def _registered(context: RunContext, candidate: ModelCandidate) -> RegisterResult:
    run_id, version = context.tracker.name, register(context.tracker, candidate)
    if version is None:
        said = "The server is away: `odtrain track sync` registers the files when it is back."
        return RegisterResult(run_id, None, said)
    judged = judge_registered(context, candidate, version)
    model = f"models:/{candidate.name}/{version}"
    metrics = candidate.metrics
    ends = [metrics.get(f"eval/mAP_{end}") for end in ("lo", "hi")]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if None not in ends else ""
    served = candidate.served
    latency = metrics[f"export/{served}/latency_ms_p50"]
    said = (
        f"{model} is registered: mAP {metrics.get('eval/mAP', 0.0):.3f}{interval} on {candidate.pictures} test "
        f"pictures of {candidate.data}, {latency:.1f} ms, {metrics[f'export/{served}/size_mb']:.1f} MB."
    )
    return RegisterResult(run_id, model, "\n".join(filter(None, (said, judged.outcome))))
