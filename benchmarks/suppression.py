"""Kinds of suppression inside a .tflite: what each costs in mAP, and in time.

The networks are those of runs on this machine, such as one of the quickstart and one of the pictures that
`benchmarks.overlapping` draws: `python -m benchmarks.suppression RUN_ID ...`
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
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
from odtrain.structures import Detections

FORMATS = ("tflite_fp32", "tflite_int8")
UNITS = ("mAP", "ms")
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


def measure_run(run: str) -> list[dict[str, Any]]:
    """The fields of a `Row` for each kind: files of the checkpoint of a run, run on its test pictures."""
    config = compose_config([])
    detector, made_with = open_source(run, config).detector, run_config(run, config.runs)
    assert detector is not None
    dataset = prepare(made_with.data)
    test, training = Split.read(dataset, "test"), Split.read(dataset, "train").images
    names, timing = dataset.class_names, section(BenchmarkConfig)
    checkpoint = _map(test, list(map(detector.as_detect(), test.images)), names)
    rows = []
    for kind in ("regular", "fast", *(f"{suppression.BUILTIN} {count}" for count in CANDIDATES)):
        nms, _, count = kind.partition(" ")
        suppression.CANDIDATES = int(count or suppression.CANDIDATES)
        with tempfile.TemporaryDirectory() as folder:
            files = export(detector, names, FORMATS, Path(folder), training.spread(100), nms, {})
            found = {
                name: measure_file(file, test.images, timing.runs, timing.threads)
                for name, file in files.items()
            }
        score = {name: _map(test, each.detections, names) for name, each in found.items()}
        milliseconds = {name: each.latency_ms_p50 for name, each in found.items()}
        row = Row(dataset.name, len(names), kind, score, milliseconds, checkpoint)
        rows.append(asdict(row))
    return rows


def _map(split: Split, found: Sequence[Detections], names: Sequence[str]) -> float:
    return quick_map(split.truths, found, names)["mAP"]


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


if __name__ == "__main__":
    print("\n".join(table(measure(sys.argv[1:]))))
