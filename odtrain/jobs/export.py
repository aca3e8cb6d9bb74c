"""Exporting a run once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.errors import ConfigError
from odtrain.export.parity import Proof
from odtrain.export_formats import INT8
from odtrain.jobs.context import RunContext, Split
from odtrain.jobs.steps import Checkpoint, Found, export_and_prove, prove_exports
from odtrain.model_source import open_source, run_config, run_meant
from odtrain.tracking.runs import origin_of
from odtrain.tracking.tracker import Tracker


@dataclass(frozen=True, eq=False)
class ExportResult:
    """The files that were made.

    Attributes:
        run_id: that they are of.
        folder: that holds them.
        proofs: of each.
    """

    run_id: str
    folder: Path
    proofs: Sequence[Proof]


def export(config: Config, explain_int8: bool = False) -> ExportResult:
    """Export the run `source=` again in `export.formats`, prove the files, and add them to the run.

    With `output=` the files go to that folder and the run stays as it is.

    Args:
        config: all of it.
        explain_int8: whether `int8/` says how the int8 file differs, though it passes.

    Raises:
        ConfigError: the source is not a run, or an int8 file that is not made is to be explained.
        OdtrainError: the run, its data or the store are not to be had.
    """
    if explain_int8 and INT8 not in config.export.formats:
        raise ConfigError(
            "--explain-int8",
            "there is no int8 file among export.formats.",
            f"Give export.formats=[{INT8}], or a list with it.",
        )
    name = config.source
    if name is not None and name.startswith("models:/"):
        name = run_meant(name, config.runs)
    source = open_source(name, config)
    if source.detector is None or source.run_id is None:
        raise ConfigError(
            f"source={config.source}", "is not a run.", "Give a train run: source=RUN."
        )
    made_with = replace(
        run_config(source.run_id, config.runs), export=config.export, benchmark=config.benchmark
    )
    dataset = prepare(made_with.data)
    split = Split.read(dataset, origin_of(source.run_id, config.runs).split)
    found = Found(split, list(map(source.detect, split.images)))
    if config.output is not None:
        checkpoint, folder = Checkpoint(source.detector, source.run_id), Path(config.output)
        proofs = prove_exports(
            made_with, dataset, checkpoint, found, folder, explain_int8=explain_int8
        )
        return ExportResult(source.run_id, folder, proofs)
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("export", resume=source.run_id):
        context = RunContext(tracker, made_with, dataset, step=made_with.train.steps)
        proofs = export_and_prove(context, source.detector, found, explain_int8=explain_int8)
        return ExportResult(source.run_id, tracker.folder / "export", proofs)
