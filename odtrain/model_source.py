"""What `source=` and `train.checkpoint=` can name, and how each becomes a detector or first weights.

A source is a run (as `run_meant` takes it), a registered model (models:/NAME@ALIAS), a model file (.pb,
SavedModel folder, .tflite, .onnx, OpenVINO's .xml or its folder, or a run's as runs:/RUN/export/FILE) or a TF1
checkpoint of the configured model. What a kind of source needs is imported when one is opened: a .tflite waits
for neither TensorFlow nor MLflow.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from odtrain.config.compose import from_yaml
from odtrain.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    Runs,
    TilesConfig,
    TrackingConfig,
    TrainConfig,
    replaced,
)
from odtrain.config.tiles import judging_tiles, tiles_in_use
from odtrain.errors import CheckpointError, ConfigError, taken_from
from odtrain.io.remote.files import local_model
from odtrain.labels.label_map import read_class_names, read_label_map
from odtrain.model_files.probe import check_runs
from odtrain.model_files.reading_trials import ROUNDS, best_reading
from odtrain.model_files.strangers import what_it_is
from odtrain.structures import Detect, Detections, FloatArray, UInt8Image
from odtrain.system.progress import doing
from odtrain.tracking.names import RUN_ID as BARE_ID
from odtrain_runtime.detector import BATCH
from odtrain_runtime.model_files import OPENERS, FileDetector, kind_of, load_detectors
from odtrain_runtime.others.reading import SETTINGS_FILE, Reading
from odtrain_runtime.others.recognise import UnsettledError
from odtrain_runtime.tiles import Tiles, tiled

if TYPE_CHECKING:
    from odtrain.models.ssd import SSD

logger = logging.getLogger(__name__)

RUN_ID = re.compile(rf"(?:runs:/)?(?:{BARE_ID})")
RUN_FILE = re.compile(r"runs:/([^/]+)/(.+)")
NEAR_RUNS = " Runs that may be meant:\n"
SHOWN_CLASSES = 10
OF_STRANGERS = (".onnx", ".xml")
"""Kinds of files that are run in a process of its own first."""


@dataclass(frozen=True)
class Source:
    """Something that detects.

    Attributes:
        name: as the user gave it.
        detect: the seam.
        class_names: index 0 = id 1; empty where the file carries none.
        run_id: the run it is the checkpoint of, if it is one.
        file: the exported file, if it is one.
        detector: the network, where the source is a run or checkpoint.
        opened: the opened file, if it is one.
        tiles: that larger pictures are looked at by; None where they are looked at as a whole alone.
    """

    name: str
    detect: Detect
    class_names: tuple[str, ...]
    run_id: str | None = None
    file: Path | None = None
    detector: SSD | None = None
    opened: FileDetector | None = None
    tiles: Tiles | None = None

    @property
    def passport(self) -> Mapping[str, str]:
        """What the file says of itself; empty where the source is no file, or a stranger's."""
        return self.opened.passport if self.opened else {}

    @property
    def batch(self) -> int:
        """How many pictures of one size it is best given at once."""
        return BATCH if self.opened and self.opened.run_batch else 1

    def detect_all(self, images: Sequence[UInt8Image]) -> list[Detections]:
        """What is found in each of several (H, W, 3) pictures."""
        if self.opened and images:
            return self.opened.detect_all(images)
        return [self.detect(image) for image in images]

    def asked(self, tiles: TilesConfig) -> Source:
        """The same, looking by the tiles that are asked for, or by its own."""
        used = tiles_in_use(tiles, self.tiles)
        if used == self.tiles:
            return self
        if self.opened:
            opened = replace(self.opened, tiles=used)
            return replace(self, detect=opened, opened=opened, tiles=used)
        assert self.detector is not None  # what is no file is a network
        return replace(self, detect=tiled(self.detector.as_detect(), used), tiles=used)


@doing("Opening the model")
def open_source(
    name: str | None,
    config: Config,
    workers: int = 1,
    threads: int | None = None,
    tiles: TilesConfig | None = None,
) -> Source:
    """The detector of this name.

    Args:
        name: as `source=` takes it.
        config: where runs and models are, and which network a TF1 checkpoint is of.
        workers: threads that may run it at once.
        threads: of each .tflite interpreter; without it, those of a benchmark.
        tiles: how large pictures are looked at; None as the model was judged.

    Raises:
        ConfigError: nothing is named, or it cannot be told what it is.
        ModelFileError, CheckpointError, TrackingError: it is not there or cannot be read.
    """
    if name is None:
        raise ConfigError(
            "source",
            "is not given.",
            "Name a run, models:/NAME@ALIAS, a .pb, a SavedModel folder, a .tflite, an .onnx or an OpenVINO "
            ".xml: source=...",
        )
    threads = threads or config.benchmark.threads
    given = config.predict.label_map
    names = read_class_names(Path(given)) if given else None
    here = local_model(name)
    open_file = partial(
        _open_file, here, workers=workers, threads=threads, names=names, config=config
    )
    source = replace(_opened(here, config, open_file), name=name)
    if names and source.class_names != names:
        logger.warning(f"{name} knows its own classes: predict.label_map={given} is passed over.")
    return source if tiles is None else source.asked(tiles)


def _opened(name: str, config: Config, open_file: Callable[[Path], Source]) -> Source:
    """As `open_source`; `open_file` opens a file."""
    if RUN_ID.fullmatch(name):
        return _open_run(name, config.runs)
    if name.startswith("models:/"):
        return open_file(_registered_file(name, config.tracking))
    if file := RUN_FILE.fullmatch(name):
        return open_file(run_file(run_meant(file[1], config.runs), file[2], config.runs))
    path = Path(name).expanduser()
    if not is_there(name):
        return _open_run(name, config.runs)
    if kind_of(path):
        return open_file(path)
    if other := what_it_is(path):
        raise ConfigError(f"source={name}", *other)
    return _open_checkpoint(name, config.model, config.data)


def is_there(name: str) -> bool:
    """Whether a name is that of a file or folder here, or of a checkpoint's files."""
    path = Path(name).expanduser()
    return path.exists() or path.with_name(f"{path.name}.index").is_file()


def run_meant(name: str, runs: Runs, finished: bool = True) -> str:
    """The id of the run that a user means: the one way in which every command and setting finds it.

    Args:
        name: an id or its first letters, a name, `latest`, `runs:/` before it or not; `models:/NAME/N` or
            `models:/NAME@ALIAS` is the run that a version comes from.
        runs: where they are.
        finished: whether the latest is one that ended well, or one to go on with.

    Raises:
        TrackingError: there is no such run or version, or several are called so.
    """
    from odtrain.registry.versions import find_version
    from odtrain.tracking.store import tracking_uri
    from odtrain.tracking.which_run import which_run

    if name.startswith("models:/"):
        return find_version(name, tracking_uri(runs.tracking)).run_id
    return which_run(name, runs, finished)


def run_file(run: str, artifact: str, runs: Runs) -> Path:
    """A file or folder of a run: its own folder's, else downloaded from MLflow.

    Raises:
        TrackingError: there is no such run, or it has no such artifact.
    """
    from odtrain.tracking.runs import run_folder
    from odtrain.tracking.store import download, tracking_uri

    folder = run_folder(Path(runs.outputs), run.removeprefix("runs:/"))
    if folder is not None and (folder / artifact).exists():
        return folder / artifact
    run_id = run.removeprefix("runs:/")
    target = Path(runs.outputs) / "downloads" / run_id
    return download(f"runs:/{run_id}/{artifact}", target, tracking_uri(runs.tracking))


def run_config(run: str, runs: Runs) -> Config:
    """The configuration that a run was made with."""
    return from_yaml(run_file(run, "config/config.yaml", runs).read_text(encoding="utf-8"))


def rebuild(run: str, runs: Runs) -> tuple[SSD, tuple[str, ...]]:
    """The network of a run with its best weights, and its class names."""
    import tensorflow as tf

    from odtrain.models.build import build_detector

    class_names = read_label_map(run_file(run, "data/label_map.pbtxt", runs))
    config = run_config(run, runs)
    quantized = config.train.quantize_from is not None
    detector = build_detector(config.model, len(class_names), quantized=quantized)
    folder = run_file(run, "checkpoints/best", runs)
    prefix = tf.train.latest_checkpoint(folder)
    if prefix is None:
        raise CheckpointError(folder, "holds no checkpoint.", "The run ended before its first one.")
    tf.train.Checkpoint(**detector.learned()).restore(prefix).expect_partial()
    return detector, class_names


def load_first_weights(
    detector: SSD,
    class_names: Sequence[str],
    train: TrainConfig,
    mirrors: Sequence[str],
    runs: Runs,
) -> str | None:
    """Load what `train.checkpoint` names; the table of what was restored, None for random weights.

    Args:
        detector: whose variables are assigned.
        class_names: what it is to tell apart; of a run's or a version's weights it gets those of the
            classes with these names.
        train: names the weights, and what of them is taken.
        mirrors: where published weights are looked for.
        runs: where runs and models are looked for.

    Raises:
        CheckpointError: it cannot be had, or is not of this network.
        ConfigError: the model has no published weights.
    """
    from odtrain.zoo.restore import resolve, restore

    name = train.checkpoint
    if name is None:
        return None
    run_id = weights_of_run(name, runs)
    if run_id is not None:
        other, other_names = rebuild(run_id, runs)
        said = _copy_weights(detector, class_names, other, other_names, train.restore, name)
        if train.quantize_from == 0 and train.restore == "all":
            _copy_ranges(detector, other)
        return said
    place = resolve(name, detector.config, mirrors)
    return restore(detector, place, train.restore, ranges=train.quantize_from == 0).table()


def with_named_weights(config: Config) -> Config:
    """The same with the run of `train.checkpoint` by its id: `latest` is another one tomorrow."""
    name = config.train.checkpoint
    if name is None or name.startswith("models:/"):
        return config
    run_id = weights_of_run(name, config.runs)
    return config if run_id is None else replaced(config, {"train.checkpoint": run_id})


def weights_of_run(name: str, runs: Runs) -> str | None:
    """The id of the run whose weights `train.checkpoint` names; None where it names others.

    Raises:
        TrackingError: several runs are called so, or there is no such version.
    """
    from odtrain.tracking.which_run import run_called

    if RUN_ID.fullmatch(name) or name.startswith("models:/"):
        return run_meant(name, runs)
    other = (
        name == "zoo"
        or name.startswith(("pypi:", "npm:"))
        or "://" in name
        or is_there(name)
        or _looks_like_a_file(name)
    )
    return None if other else run_called(name, runs)


def _copy_weights(
    detector: SSD,
    names: Sequence[str],
    other: SSD,
    other_names: Sequence[str],
    what: str,
    name: str,
) -> str:
    """Take over the variables of a run's network that have the same name and shape here.

    Of the last layers of the classes, what belongs to a class goes to the class of the same name.

    Raises:
        CheckpointError: hardly any have.
    """
    from odtrain.zoo.restore import BACKBONE, CLASS_PREDICTORS, LEAST_SHARE

    there, here = other.variables_by_name(), detector.variables_by_name()
    of_classes = {key for key in here if any(part in key for part in CLASS_PREDICTORS)}
    wanted = {key for key in here if key in there and (what == "all" or key.startswith(BACKBONE))}
    fitting = {key for key in wanted - of_classes if there[key].shape == here[key].shape}
    values = {key: there[key].numpy() for key in fitting}
    for key in wanted & of_classes:
        taken = _of_same_classes(here[key].numpy(), names, there[key].numpy(), other_names)
        if taken is not None:
            values[key] = taken
    if len(fitting) < LEAST_SHARE * len(here.keys() - of_classes):
        raise CheckpointError(
            f"train.checkpoint={name}",
            f"only {len(fitting)} of {len(here)} variables have the same name and shape here.",
            f"It is a {other.config.architecture} of depth {other.config.depth_multiplier:g}: choose "
            "that model, or another checkpoint.",
        )
    for key, value in values.items():
        here[key].assign(value)
    said = f"weights from {name}: restored {len(values)} of {len(here)} variables"
    if what == "all" and list(names) != list(other_names):
        said += f"; {_same_classes(names, other_names)}"
    return said


def _copy_ranges(detector: SSD, other: SSD) -> None:
    """Take over the ranges that a run's network was trained with, if it was."""
    ours, theirs = detector.quantized, other.trained_int8
    if ours and theirs:
        ours.ranges.take(theirs.ranges.values())


def _of_same_classes(
    here: FloatArray, names: Sequence[str], there: FloatArray, other_names: Sequence[str]
) -> FloatArray | None:
    """`here` with what `there` has for the background and for classes of the same names.

    The last axis of both is anchors times (background, classes). None where anything else differs.
    """
    own = here.reshape(*here.shape[:-1], -1, 1 + len(names)).copy()
    others = there.reshape(*there.shape[:-1], -1, 1 + len(other_names))
    if own.shape[:-1] != others.shape[:-1]:
        return None
    column = {name: index for index, name in enumerate(other_names, 1)}
    own[..., 0] = others[..., 0]
    for index, name in enumerate(names, 1):
        if name in column:
            own[..., index] = others[..., column[name]]
    return own.reshape(here.shape)


def _same_classes(names: Sequence[str], other_names: Sequence[str]) -> str:
    """Which classes go on learning, and how many begin anew."""
    same = [name for name in names if name in other_names]
    if not same:
        return "none of the classes is known there: they begin anew"
    return f"{len(same)} of {len(names)} classes are known there ({_shown(same)}) and go on from it"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN_CLASSES]) + ", ..." * (len(names) > SHOWN_CLASSES)


def _open_run(name: str, runs: Runs) -> Source:
    run_id = run_of_source(name, runs)
    detector, class_names = rebuild(run_id, runs)
    tiles = judging_tiles(run_config(run_id, runs))
    detect = tiled(detector.as_detect(), tiles)
    return Source(name, detect, class_names, run_id=run_id, detector=detector, tiles=tiles)


def run_of_source(name: str, runs: Runs) -> str:
    """The id of the run of that name, which is no file.

    Raises:
        ConfigError: there is none either.
    """
    from odtrain.tracking.which_run import LATEST, nearest_runs, run_called

    run_id, near = None, ""
    if not _looks_like_a_file(name):
        run_id = run_called(name, runs)
        near = "" if run_id else nearest_runs(name, runs)
    if run_id is None and name == LATEST and not near:
        raise ConfigError(
            f"source={name}", "there is no run yet.", "`odtrain train` makes the first."
        )
    if run_id is None:
        raise ConfigError(
            f"source={name}",
            f"is neither a run nor a file that is there{taken_from(name)}.",
            "Name a run, models:/NAME@ALIAS, a .pb, a SavedModel folder, a .tflite, an .onnx, an OpenVINO .xml "
            f"or a TF1 checkpoint.{NEAR_RUNS + near if near else ''}",
        )
    return run_id


def _looks_like_a_file(name: str) -> bool:
    """Whether nobody would call a run so: MLflow need not be asked then."""
    return name.startswith(("/", ".", "~")) or Path(name).suffix in OPENERS


def _registered_file(uri: str, tracking: TrackingConfig) -> Path:
    """The one file of a version that is served."""
    from odtrain.registry.download import file_of_version
    from odtrain.registry.versions import find_version
    from odtrain.tracking.store import tracking_uri

    store = tracking_uri(tracking)
    return file_of_version(find_version(uri, store), store)[1]


def _open_file(
    name: str, file: Path, workers: int, threads: int, names: Sequence[str] | None, config: Config
) -> Source:
    open_it = partial(load_detectors, file, workers, threads, names, config.trust_source)
    own = Path(name).expanduser() != file  # a run's or a version's
    if not own and kind_of(file) in OF_STRANGERS:
        check_runs(file)
    try:
        detector = open_it()
    except UnsettledError as unsettled:
        detector = open_it(reading=_tried_reading(file, unsettled, config))
    known = detector.class_names
    return Source(name, detector, known, file=file, opened=detector, tiles=detector.tiles)


def _tried_reading(file: Path, unsettled: UnsettledError, config: Config) -> Reading:
    """The way to read a file that finds most in the labelled pictures of the configuration.

    Raises:
        UnsettledError: there are none with its classes, or no way finds anything.
    """
    from odtrain.dataset.prepare import prepare
    from odtrain.dataset.read import read_truths
    from odtrain.training.input_pipeline import Pictures

    dataset = prepare(config.data)
    names, first = dataset.class_names, unsettled.readings[0]
    readings = [replace(each, classes=names) for each in unsettled.readings]
    readings = [each for each in readings if each.num_classes == len(names)]
    if not readings or first.classes not in ((), names):
        raise unsettled
    split = next(each for each in ("train", "validation", "test") if dataset.counts[each]["images"])
    truths, pictures = read_truths(dataset, split), Pictures(dataset.records(split))
    rows = [row for row, truth in enumerate(truths) if len(truth.classes)][: ROUNDS[-1][0]]
    best = best_reading(
        file,
        readings,
        [pictures[row] for row in rows],
        [truths[row] for row in rows],
        names,
        config.trust_source,
    )
    if best is None:
        raise unsettled
    logger.info(
        f"{file} does not say how it is read. Of {len(readings)} ways one finds mAP_50 {best.map_50:.3f} in "
        f"{best.pictures} {split} pictures of {dataset.name}, and is taken. Into {SETTINGS_FILE} beside it, if "
        f"that is right:\n{best.reading.lines()}"
    )
    return replace(best.reading, classes=first.classes)


def _open_checkpoint(name: str, model: ModelConfig, data: DataConfig) -> Source:
    """A TF1 checkpoint of the configured model, all of whose variables must fit."""
    from odtrain.dataset.read import read_dataset
    from odtrain.models.build import build_detector
    from odtrain.zoo.restore import restore

    dataset = read_dataset(Path(data.prepared))
    class_names = dataset.class_names
    detector = build_detector(model, len(class_names))
    report = restore(detector, Path(name).expanduser(), "all")
    if report.count("restored") < len(report.rows):
        raise CheckpointError(name, "is not whole for this network.", "\n" + report.table())
    logger.info(
        f"{name} names no classes: they are taken for those of {dataset.name}, {_shown(class_names)}."
    )
    return Source(name, detector.as_detect(), class_names, detector=detector)
