"""The zoo's weights by name: fetched, and proven to be those of the frozen graphs beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from odtrain.config.schema import Config, ModelConfig
from odtrain.config.shipped import shipped
from odtrain.errors import CheckpointError
from odtrain.export.benchmark import agreement
from odtrain.io.archives import locate
from odtrain.io.remote.files import local
from odtrain.media.find import find_pictures
from odtrain.models import retinanet
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.structures import Detections, UInt8Image
from odtrain.system.progress import doing
from odtrain.zoo.adopt import FROZEN, input_size_of, read_graph
from odtrain.zoo.catalog import no_weights
from odtrain.zoo.checkpoints import read_checkpoint
from odtrain.zoo.restore import Verification, fetch, gives_raw_detections, restore, verify
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.pictures import read_upright

COMPARED_PICTURES = 5
COMPARED_SCORE = 0.35
"""Detections that score less are not compared: the zoo's frozen graphs leave out what is below 0.3."""


def fetch_weights(config: Config) -> Path:
    """The published weights of the configured model, downloaded once.

    Raises:
        ConfigError: it has none.
        CheckpointError: they cannot be had.
    """
    model = config.model
    if model.zoo is None:
        raise no_weights(model.name)
    return fetch(model.zoo, model.name, config.zoo.mirrors)


@doing("Comparing network and weights")
def verify_weights(config: Config, archive: Path) -> str:
    """Prove a tarball or folder of the configured model equal to the frozen graph in it.

    The network is built anew, given every variable of the checkpoint, and compared with the frozen graph
    beside it on real pictures: all anchors' boxes and scores where the graph gives them, and the
    detections that score at least `COMPARED_SCORE`. Model Garden publishes no graphs: its models are
    compared with what its own code makes of the checkpoint.

    Args:
        config: `input` names the pictures; without it those that come with odtrain are taken.
        archive: a tarball or folder.

    Returns:
        What was compared, in a few lines.

    Raises:
        CheckpointError: the weights do not fill the network, or are not the graph's.
    """
    prefix = locate(archive)
    detector = _network_of(config.model, archive, prefix)
    images = _pictures(config.input)
    if config.model.architecture in retinanet.EXPERIMENTS:
        return _against_model_garden(archive, prefix, detector, images)
    graph = prefix.with_name(FROZEN)
    said = [_raw(archive, detector, images)] if gives_raw_detections(graph) else []
    if not said:
        _fill(archive, detector)
    said.append(_detections(archive, detector, graph, images, bool(said)))
    return f"{archive}: equal to its frozen graph on {len(images)} pictures.\n" + "\n".join(said)


def _network_of(model: ModelConfig, archive: Path, prefix: Path) -> SSD:
    """The configured network, at the input size and with the classes that the archive has."""
    if size := _size_beside(prefix):
        model = replace(model, input_size=size)
    shapes = read_checkpoint(prefix, where=archive).shapes
    (biases, *_) = [*(shape for name, shape in shapes.items() if _is_class_bias(name)), (0,)]
    probe = build_detector(model, 1)
    (own, *_) = [v.shape for n, v in probe.variables_by_name().items() if _is_class_bias(n)]
    columns = int(own[0]) // (1 + probe.background)
    return build_detector(model, max(1, biases[0] // columns - probe.background))


def _size_beside(prefix: Path) -> list[int] | None:
    """[height, width] of the input, as the pipeline.config beside a checkpoint or the frozen graph has it."""
    pipeline, frozen = prefix.with_name("pipeline.config"), prefix.with_name(FROZEN)
    if pipeline.is_file():
        text = pipeline.read_text(encoding="utf-8", errors="replace")
        sides = [re.search(rf"{side}: *(\d+)", text) for side in ("height", "width")]
        if sides[0] and sides[1]:
            return [int(side[1]) for side in sides if side]
    return input_size_of(read_graph(frozen)) if frozen.is_file() else None


def _is_class_bias(name: str) -> bool:
    return name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") in (
        "BoxPredictor_0/ClassPredictor/biases",
        "WeightSharedConvolutionalBoxPredictor/ClassPredictor/biases",
        "class_net/class-predict/bias",
        "head/_classifier/bias",
    )


def _against_model_garden(
    archive: Path, prefix: Path, detector: SSD, images: Sequence[UInt8Image]
) -> str:
    _fill(archive, detector)
    theirs = retinanet.reference(detector.config, detector.num_classes, prefix)
    boxes = scores = 0.0
    for image in images:
        picture = detector.normalize(detector.resize(image))[None]
        ours, expected = detector.network(picture, training=False), theirs(picture)
        both = [
            (detector.decode(codes), detector.scores(logits)) for codes, logits in (ours, expected)
        ]
        boxes = max(boxes, float(np.abs(both[0][0] - both[1][0]).max()))
        scores = max(scores, float(np.abs(both[0][1] - both[1][1]).max()))
    _check_agreement(
        archive, Verification(len(images), boxes, scores), "what Model Garden makes of it"
    )
    return (
        f"{archive}: equal to what Model Garden makes of it on {len(images)} pictures.\n"
        f"  all anchors: boxes within {boxes:.1e}, scores within {scores:.1e}"
    )


def _fill(archive: Path, detector: SSD) -> None:
    report = restore(detector, archive)
    if report.count("restored") < len(report.rows):
        raise CheckpointError(
            archive,
            "it does not fill every variable of the network:\n" + report.table(),
            "Give the model it is of: model=NAME.",
        )


def _raw(archive: Path, detector: SSD, images: Sequence[UInt8Image]) -> str:
    found = verify(archive, detector, images)
    _check_agreement(archive, found, "those of its frozen graph")
    return (
        f"  all anchors: boxes within {found.max_box_diff:.1e}, scores within "
        f"{found.max_score_diff:.1e}"
    )


def _check_agreement(archive: Path, found: Verification, whose: str) -> None:
    if not found.agrees:
        raise CheckpointError(
            archive,
            f"its weights are not {whose}: boxes differ by up to {found.max_box_diff:.2g} of the "
            f"picture, scores by {found.max_score_diff:.2g}.",
            "Do not use it: fetch it again, from its publisher.",
        )


def _detections(
    archive: Path, detector: SSD, graph: Path, images: Sequence[UInt8Image], all_anchors: bool
) -> str:
    """`all_anchors`: whether those were compared, so that pictures without detections say enough."""
    frozen, ours = load_detector(graph), detector.as_detect()
    expected: list[Detections] = [frozen(image) for image in images]
    agreed = agreement(expected, [ours(image) for image in images], COMPARED_SCORE)
    if agreed.unmatched or not agreed.within_tolerance:
        raise CheckpointError(
            archive,
            f"it does not detect what its frozen graph detects: {agreed.unmatched} detections differ, "
            f"boxes by up to {agreed.max_box_diff:.2g}, scores by {agreed.max_score_diff:.2g}.",
            "Do not use it: fetch it again, from its publisher.",
        )
    count = sum(int((found.scores >= COMPARED_SCORE).sum()) for found in expected)
    if not (count or all_anchors):
        raise CheckpointError(
            archive,
            f"its frozen graph detects nothing with a score of {COMPARED_SCORE} in these pictures, so "
            "nothing was compared.",
            "Give pictures of what it knows: input=FOLDER.",
        )
    return f"  {count} detections of at least {COMPARED_SCORE}: the same"


def _pictures(place: str | None) -> list[UInt8Image]:
    """A few pictures of what `input=` names, evenly chosen; without it, of those that come along."""
    files = find_pictures(place or str(shipped("data/panels/images") / "test"))
    chosen = files[:: max(1, len(files) // COMPARED_PICTURES)][:COMPARED_PICTURES]
    return [read_upright(local(file)) for file in chosen]
