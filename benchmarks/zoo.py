"""How long every model of the zoo takes for a picture, as a .tflite of float32 and of int8.

The networks have COCO's classes and random weights, with class scores as low as a trained network's mostly
are: suppression passes over what an int8 file rounds to 0. Batch norm has the statistics
of a few pictures: without them the maps of an untrained network are so faint that XNNPACK refuses operators
in int8. Each file runs in a process of its own. A file that cannot be made or run is left open in the table
and named below it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from benchmarks import pictures, processes
from odtrain.config.compose import as_dict, compose_config, section
from odtrain.config.schema import ExportConfig
from odtrain.errors import ModelFileError
from odtrain.export import benchmark
from odtrain.zoo.catalog import model_names
from odtrain.zoo.costs import NUM_CLASSES

if TYPE_CHECKING:
    from odtrain.models.ssd import SSD
    from odtrain.structures import UInt8Image

CALIBRATION_PICTURES = 4
"""How far int8 ranges reach does not change how long a file takes."""
THREADS = 1
UNSEEN = (
    *("name", "zoo", "encode_background_as_zeros", "batch_norm_decay", "l2", "initializer"),
    *("initializer_stddev", "class_bias", "matched_iou", "localization_weight"),
    *("classification_weight", "num_hard_examples", "mining_iou", "max_negatives_per_positive"),
    *("min_negatives_per_image", "focal_gamma", "focal_alpha"),
)
"""Settings that only training sees."""
FORMATS = ("tflite_fp32", "tflite_int8")
"""What is measured, with the default suppression."""


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        models: names of conf/model.
        formats: what is exported.
        runs: timed runs of each file.
    """

    models: tuple[str, ...]
    formats: tuple[str, ...] = FORMATS
    runs: int = 20


WHOLE = Extent(tuple(model_names()))
QUICK = Extent(("ssd_mobilenet_v1_0.25_depth_192",), ("tflite_int8",), 3)


@dataclass
class Row:
    """One model.

    Attributes:
        model: its name.
        milliseconds: median of the runs of each file, by format.
        failed: why a file has none.
        load: processes waiting or running over the last minute, the highest before one of its files.
    """

    model: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    load: float = 0.0


def measure(extent: Extent = WHOLE) -> list[Row]:
    """Export every model in each format, and time each file."""
    picture = pictures.decoded(1)
    rows: list[Row] = []
    networks: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="odtrain-zoo-") as folder:
        for model in tqdm(extent.models, desc="zoo", unit="model"):
            row = networks.setdefault(_network(model), Row(model))
            if row.model != model:  # other weights and training values, the same network
                rows.append(replace(row, model=model, failed=[]))
                continue
            for file, format in _exported(row, extent, Path(folder)):
                row.load = max(row.load, os.getloadavg()[0])
                try:
                    found = benchmark.measure(file, picture, extent.runs, THREADS)
                except ModelFileError as error:
                    row.failed.append(f"{model} {format}: {str(error).splitlines()[0]}")
                    continue
                row.milliseconds[format] = found.latency_ms_p50
            rows.append(row)
            shown = ", ".join(f"{format} {ms:.1f}" for format, ms in row.milliseconds.items())
            tqdm.write(f"{model}: {shown}", file=sys.stderr)
    return rows


def _network(model: str) -> str:
    """What a model's network is built from; the same for models that differ in nothing else."""
    settings = as_dict(compose_config([f"model={model}"]))["model"]
    return json.dumps({key: settings[key] for key in settings if key not in UNSEEN}, sort_keys=True)


def _exported(row: Row, extent: Extent, folder: Path) -> Iterator[tuple[Path, str]]:
    """The files of a model with their formats."""
    try:
        done = processes.run(
            write_files,
            model=row.model,
            formats=list(extent.formats),
            nms=section(ExportConfig).nms,
            folder=str(folder / row.model),
        )
    except processes.ProcessError as error:
        row.failed.append(f"{row.model}: {str(error).splitlines()[-1]}")
        return
    row.failed += [f"{row.model} {format}: {why}" for format, why in done.value["failed"]]
    yield from ((Path(path), format) for format, path in done.value["written"])


# ---- what runs in a process of its own


def write_files(
    model: str, formats: list[str], nms: str, folder: str
) -> dict[str, list[tuple[str, str]]]:
    """Export a model with random weights and low scores.

    Returns:
        `written`: format and path, and `failed`: format and why it cannot be made.
    """
    from odtrain.export.writers import export
    from odtrain.jobs.trial import UNTRAINED_BIAS
    from odtrain.models.build import build_detector

    config = replace(compose_config([f"model={model}"]).model, class_bias=UNTRAINED_BIAS)
    detector = build_detector(config, NUM_CLASSES)
    names = [f"class {number}" for number in range(1, NUM_CLASSES + 1)]
    calibration = pictures.decoded(CALIBRATION_PICTURES)
    settle(detector, calibration)
    made: dict[str, list[tuple[str, str]]] = {"written": [], "failed": []}
    for format in formats:
        try:
            files = export(detector, names, [format], Path(folder), calibration, nms, passport={})
        except Exception as error:  # whatever the converter raises is what the table is to say
            made["failed"].append((format, str(error).strip().splitlines()[0]))
        else:
            made["written"].append((format, str(files[format])))
    return made


def settle(detector: SSD, images: Sequence[UInt8Image]) -> None:
    """Give batch norm the statistics of these pictures."""
    import tensorflow as tf
    import tf_keras

    norms = [
        layer
        for layer in detector.network._flatten_layers()
        if isinstance(layer, tf_keras.layers.BatchNormalization)
    ]
    decays = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    detector.network(
        tf.stack([detector.normalize(detector.resize(image)) for image in images]), True
    )
    for layer, decay in zip(norms, decays, strict=True):
        layer.momentum = decay
