"""What becomes of a sweep's files afterwards: one is registered, some measured again, others dropped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from odtrain.config.schema import Config, Runs, replaced
from odtrain.dataset.prepare import prepare
from odtrain.evaluation.evaluate import Evaluation, quick_map
from odtrain.export.benchmark import measure
from odtrain.export.parity import Proof, exports_table
from odtrain.jobs.closing import headline
from odtrain.jobs.context import RunContext, Split
from odtrain.jobs.steps import evaluate_split, export_and_prove, register_files
from odtrain.model_source import open_source, run_config, run_file
from odtrain.tracking.runs import drop_artifacts, read_summary
from odtrain.tracking.tracker import Tracker

PICKED = "Picked from a sweep and measured again, as"
"""What a run's description goes on with once one of its files is registered from a front."""


@dataclass(frozen=True, eq=False)
class PickedResult:
    """A file of a sweep that was registered.

    Attributes:
        model: where it is to be had: a models:/ URI, or a file while the server is away.
        outcome: what the gate said of the version, in words; None where none was judged.
        evaluation: of its run's weights on the test split.
        proofs: of the file, on the test split.
    """

    model: str
    outcome: str | None
    evaluation: Evaluation
    proofs: Sequence[Proof]


def register_picked(config: Config, run_id: str, format: str) -> PickedResult:
    """Measure the file of a sweep's training on the test split, and register it alone.

    Raises:
        OdtrainError: the run is not there, or its checkpoint is not.
    """
    source = open_source(run_id, config)
    assert source.detector is not None
    made_with = replaced(
        run_config(run_id, config.runs), {"export.formats": [format], "registry": config.registry}
    )
    dataset = prepare(made_with.data)
    described = read_summary(run_id, config.tracking).tags.get("mlflow.note.content", "")
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("register", resume=run_id):
        context = RunContext(tracker, made_with, dataset, step=made_with.train.steps)
        evaluated = evaluate_split(context, source.detect, "test", again=True, tiles=source.tiles)
        evaluation = evaluated.evaluation
        proofs = export_and_prove(context, source.detector, evaluated)
        registered = register_files(context, evaluation, proofs)
        before = described.partition(f"\n\n{PICKED}")[0]
        after = f"**{headline(evaluation)}** on the test split.\n\n{exports_table(proofs)}"
        tracker.describe(f"{before}\n\n{PICKED} `{registered.model}`: {after}")
    return PickedResult(registered.model, registered.outcome, evaluation, proofs)


def measure_again(runs: Runs, run_id: str, file: str) -> dict[str, float]:
    """Numbers of a file of a sweep's training on the validation split, by name, as they are now.

    Raises:
        TrackingError: the run or the file is not to be had.
    """
    made_with = run_config(run_id, runs)
    dataset = prepare(made_with.data)
    pictures = Split.read(dataset, "validation")
    measured = measure(
        run_file(run_id, file, runs),
        pictures.images,
        made_with.benchmark.runs,
        made_with.benchmark.threads,
    )
    scores = quick_map(pictures.truths, measured.detections, dataset.class_names)
    return scores | measured.costs


def drop_exports(runs: Runs, run_id: str, files: Mapping[str, str]) -> None:
    """Delete exported files of a run, in its folder and in MLflow, and say so in its tags.

    Args:
        runs: where they are.
        run_id: of the training.
        files: format -> path among the run's artifacts.
    """
    drop_artifacts(runs.tracking, run_id, list(files.values()))
    tracker = Tracker(runs.tracking, Path(runs.outputs))
    with tracker.start("drop", resume=run_id):
        for name, file in files.items():
            tracker.set_tags({f"odtrain.export.{name}": "dropped: not on the front of its sweep"})
            local = tracker.folder / file
            if local.is_dir():
                shutil.rmtree(local)
            local.unlink(missing_ok=True)
