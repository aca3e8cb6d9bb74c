"""Timing an exported file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.errors import ConfigError
from odtrain.export.benchmark import Measured, measure
from odtrain.model_source import open_source
from odtrain.training.input_pipeline import Pictures


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """A file and its numbers."""

    file: Path
    measured: Measured


def benchmark(config: Config) -> BenchmarkResult:
    """Time the exported file `source=` in a fresh process, on a picture of the configured data.

    Raises:
        ConfigError: the source is no file.
        OdtrainError: it or the data are not to be had.
    """
    source = open_source(config.source, config)
    if source.file is None:
        raise ConfigError(
            f"source={config.source}",
            "is not an exported file.",
            "Give a .pb, a SavedModel folder, a .tflite, an .onnx, an OpenVINO .xml or models:/NAME@ALIAS.",
        )
    picture = Pictures(prepare(config.data).records("test")).spread(1)
    timing, trusted = config.benchmark, config.trust_source
    reading = source.opened.reading if source.opened else None
    measured = measure(
        source.file, picture, timing.runs, timing.threads, trusted=trusted, reading=reading
    )
    return BenchmarkResult(source.file, measured)
