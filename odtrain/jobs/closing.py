"""What is said of a job's result: on its run's page, and when the command ends."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from odtrain.config.differing import left_out
from odtrain.evaluation.evaluate import Evaluation
from odtrain.export.parity import Proof, exports_table
from odtrain.jobs.context import RunContext
from odtrain.secrets import without_secrets
from odtrain.tracking.store import UI, repeated, ui_command
from odtrain.training.loop import Fitted

if TYPE_CHECKING:
    from odtrain.jobs.benchmark import BenchmarkResult
    from odtrain.jobs.evaluate import EvaluateResult
    from odtrain.jobs.export import ExportResult
    from odtrain.jobs.steps import Evaluated
    from odtrain.jobs.train import TrainResult


def headline(evaluation: Evaluation) -> str:
    """The numbers people ask for first, with the interval."""
    values = evaluation.metrics
    interval = f" [{values['mAP_lo']:.3f}, {values['mAP_hi']:.3f}]" if "mAP_lo" in values else ""
    return f"mAP {values['mAP']:.3f}{interval}, mAP_50 {values['mAP_50']:.3f}"


def description(
    context: RunContext,
    fitted: Fitted,
    evaluated: Evaluated,
    proofs: Sequence[Proof],
    doubts: Sequence[str] = (),
) -> str:
    """What a training's page says of it, in Markdown."""
    config, dataset = context.config, context.dataset
    counts = dataset.counts
    pictures = ", ".join(f"{counts[split]['images']} {split}" for split in counts)
    chosen = f", weights of step {fitted.best_step}" if fitted.best_step else ""
    ended = f" ({fitted.stopped})" if fitted.stopped else ""
    return "\n\n".join(
        [
            f"`{shlex.join(['odtrain', 'train', *without_secrets(context.overrides)])}`",
            f"**{headline(evaluated.evaluation)}** on the {evaluated.split.name} split of "
            f"{dataset.name} ({pictures} pictures, digest `{dataset.digest[:12]}`).",
            f"{config.model.name}, {fitted.step} steps of {config.train.batch_size} in "
            f"{fitted.seconds / 60:.1f} minutes{ended}{chosen}. {left_out(config)}".rstrip(),
            *(f"**Look here:** {doubt}" for doubt in doubts),
            exports_table(proofs),
        ]
    )


def on_test(evaluation: Evaluation, proofs: Sequence[Proof]) -> str:
    """Numbers on the test split, and the files."""
    return f"{headline(evaluation)} on the test split.\n{exports_table(proofs)}"


def after_training(result: TrainResult, overrides: Sequence[str]) -> str:
    """The result, and where to look next; `overrides` are repeated where they matter."""
    command = ui_command(result.store)
    store = repeated(overrides, ["tracking.uri"])
    data = repeated(overrides, ["data.", "tracking.uri"])
    if command == UI:
        command += store
    return "\n".join(
        [
            *([f"Registered {result.outcome}"] if result.outcome else []),
            "",
            on_test(result.evaluation, result.proofs),
            *(f"\nLook here: {doubt}" for doubt in result.doubts),
            "",
            "Where to look next:",
            *_pages_of(result, command or "the server is up"),
            f"  try the model          odtrain predict source={result.model}{store} input=PICTURES "
            "output=drawn",
            f"  take the files         odtrain models download {result.model}{store} --to DIR",
            f"  the best of many       odtrain sweep{data}",
            "  your own pictures      odtrain train data.images=DIR data.annotations=DIR data.name=NAME"
            " model=ssd_mobilenet_v1_coco",
        ]
    )


def _pages_of(result: TrainResult, served: str) -> list[str]:
    """The run's id and the pages that show it."""
    lines = [f"  this run               {result.run_id}"]
    if (shown := result.pages) is None:
        return lines
    lines += [
        f"                         {shown.run(result.run_id)}",
        f"  the pages' server      {served}",
        f"  loss, mAP, detections  {shown.charts}",
        f"  the runs in a table    {shown.table}",
    ]
    return lines + (
        [f"  the version            {shown.version(*result.version)}"] if result.version else []
    )


def after_evaluation(result: EvaluateResult) -> str:
    """The result, and where the report is."""
    return f"{headline(result.evaluation)}\nReport: {result.report}"


def after_export(result: ExportResult) -> str:
    """What every file does, and where they are."""
    return f"{exports_table(result.proofs)}\nFiles: {result.folder}"


def after_benchmark(result: BenchmarkResult) -> str:
    """The numbers of the file, in a line."""
    timed = result.measured
    return (
        f"{result.file}: {timed.latency_ms_p50:.1f} ms (p50), {timed.latency_ms_p90:.1f} ms (p90) with "
        f"{timed.on_threads}, {timed.size_mb:.1f} MB, peak memory "
        f"{timed.peak_memory_mb:.0f} MB"
    )
