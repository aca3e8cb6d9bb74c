"""Kinds of suppression inside a .tflite: what each costs in mAP, and in time.

The networks are those of runs on this machine, such as one of the quickstart and one of the pictures that
`benchmarks.overlapping` draws, and a published checkpoint with all its classes on a folder of pictures, where
its own detections are taken for the truth:

    python -m benchmarks.suppression RUN_ID ... [--checkpoint PREFIX --model NAME --pictures DIR]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import processes
from odtrain.config.compose import compose_config, section
from odtrain.config.schema import BenchmarkConfig
from odtrain.dataset.prepare import prepare
from odtrain.evaluation.evaluate import quick_map
from odtrain.export import suppression
from odtrain.export.benchmark import measure as measure_file
from odtrain.export.writers import export
from odtrain.io import markdown
from odtrain.jobs.context import Split
from odtrain.model_source import open_source, run_config
from odtrain.models.build import build_detector
from odtrain.models.ssd import SSD
from odtrain.structures import GroundTruth, UInt8Image
from odtrain.zoo.costs import NUM_CLASSES
from odtrain.zoo.restore import restore
from odtrain_runtime.pictures import read_upright

FORMATS = ("tflite_fp32", "tflite_int8")
UNITS = ("mAP", "ms")
TAKEN_FOR_TRUTH = 0.3
CALIBRATION = 100
"""Pictures that set the ranges of int8."""
CANDIDATES = (100, 300, 1000)
"""Of `builtin`, beside which the two kinds of the operator are measured."""


@dataclass(frozen=True)
class Row:
    """One kind of suppression in the files of one network.

    Attributes:
        network: which.
        classes: how many it tells apart.
        kind: `regular`, `fast`, or `builtin` with a number of candidates.
        score: mAP of each format's file.
        milliseconds: of each, median of a picture, one thread.
        checkpoint: mAP of the network in TensorFlow.
    """

    network: str
    classes: int
    kind: str
    score: Mapping[str, float]
    milliseconds: Mapping[str, float]
    checkpoint: float


def measure(runs: Sequence[str]) -> list[Row]:
    """Measure the networks of runs on their test pictures, each run in a process of its own."""
    rows = (processes.run(measure_run, run=run).value for run in tqdm(runs, unit="run"))
    return [Row(**row) for of_a_run in rows for row in of_a_run]


def measure_checkpoint(checkpoint: str, model: str, pictures: str) -> list[dict[str, Any]]:
    """The fields of a `Row` for each kind: a published checkpoint against its own detections.

    Args:
        checkpoint: prefix of its files.
        model: the zoo's name of the network.
        pictures: folder of JPEGs, in which what it finds from score `TAKEN_FOR_TRUTH` is the truth.
    """
    detector = build_detector(compose_config([f"model={model}"]).model, NUM_CLASSES)
    restore(detector, checkpoint)
    files = sorted(Path(pictures).rglob("*.jpg"))
    images = [read_upright(file) for file in files]
    found = list(map(detector.as_detect(), images))
    truths = [
        GroundTruth(file.name, image.shape[0], image.shape[1], sure.boxes, sure.classes)
        for file, image, each in zip(files, images, found, strict=True)
        for sure in [each.above(TAKEN_FOR_TRUTH)]
    ]
    names = [f"class {number}" for number in range(1, NUM_CLASSES + 1)]
    score = quick_map(truths, found, names)["mAP"]
    network = Network(f"{model}, {sum(len(each.classes) for each in truths)} objects", names, score)
    return _rows(network, detector, images, truths, lambda: iter(images[:CALIBRATION]))


def measure_run(run: str) -> list[dict[str, Any]]:
    """The fields of a `Row` for each kind: files of the checkpoint of a run, run on its test pictures."""
    config = compose_config([])
    detector, made_with = open_source(run, config).detector, run_config(run, config.runs)
    assert detector is not None
    dataset = prepare(made_with.data)
    test, training = Split.read(dataset, "test"), Split.read(dataset, "train").images
    names = dataset.class_names
    found = list(map(detector.as_detect(), test.images))
    network = Network(dataset.name, names, quick_map(test.truths, found, names)["mAP"])
    return _rows(network, detector, test.images, test.truths, lambda: training.spread(CALIBRATION))


@dataclass(frozen=True)
class Network:
    """What is measured: its name, its classes, and the mAP of its checkpoint."""

    name: str
    names: Sequence[str]
    checkpoint: float


def _rows(
    network: Network,
    detector: SSD,
    images: Iterable[UInt8Image],
    truths: Sequence[GroundTruth],
    calibration: Callable[[], Iterable[UInt8Image]],
) -> list[dict[str, Any]]:
    names, timing, rows = network.names, section(BenchmarkConfig), []
    for kind in ("regular", "fast", *(f"{suppression.BUILTIN} {count}" for count in CANDIDATES)):
        nms, _, count = kind.partition(" ")
        suppression.CANDIDATES = int(count or suppression.CANDIDATES)
        with tempfile.TemporaryDirectory() as folder:
            files = export(detector, names, FORMATS, Path(folder), calibration(), nms, {})
            found = {
                name: measure_file(file, images, timing.runs, timing.threads)
                for name, file in files.items()
            }
        score = {
            name: quick_map(truths, each.detections, names)["mAP"] for name, each in found.items()
        }
        milliseconds = {name: each.latency_ms_p50 for name, each in found.items()}
        row = Row(network.name, len(names), kind, score, milliseconds, network.checkpoint)
        rows.append(asdict(row))
    return rows


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown: mAP and milliseconds of each kind."""
    columns = (
        "data",
        "classes",
        "kind",
        "checkpoint",
        *(f"{f} {n}" for f in FORMATS for n in UNITS),
    )
    return markdown.table(columns, (_cells(row) for row in rows))


def _cells(row: Row) -> list[str]:
    numbers = [
        text
        for name in FORMATS
        for text in (f"{row.score[name]:.4f}", f"{row.milliseconds[name]:.2f}")
    ]
    return [row.network, str(row.classes), row.kind, f"{row.checkpoint:.4f}", *numbers]


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*")
    for flag in ("--checkpoint", "--model", "--pictures"):
        parser.add_argument(flag)
    given = parser.parse_args()
    rows = measure(given.runs)
    if given.checkpoint:
        of = {"checkpoint": given.checkpoint, "model": given.model, "pictures": given.pictures}
        rows += [Row(**row) for row in processes.run(measure_checkpoint, **of).value]
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
