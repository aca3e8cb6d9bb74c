"""What is said of a job's result: on its run's page, and when the command ends."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from odtrain.config.differing import left_out
from odtrain.evaluation.evaluate import Counts, Evaluation, count_shown
from odtrain.export.parity import Proof, exports_table
from odtrain.export_formats import served_format
from odtrain.jobs.context import RunContext
from odtrain.jobs.stages import stages_in_words
from odtrain.secrets import without_secrets
from odtrain.tracking.store import UI, repeated, ui_command
from odtrain.training.loop import Fitted

if TYPE_CHECKING:
    from odtrain.jobs.benchmark import BenchmarkResult
    from odtrain.jobs.evaluate import EvaluateResult
    from odtrain.jobs.evaluate_video import VideoResult
    from odtrain.jobs.export import ExportResult
    from odtrain.jobs.steps import Evaluated
    from odtrain.jobs.train import TrainResult


OWN = "  your own pictures      odtrain train data.images=DIR data.annotations=DIR data.name=NAME"
"""What comes next behind a training on the demo pictures."""


def headline(evaluation: Evaluation) -> str:
    """The numbers people ask for first, with the interval."""
    values = evaluation.metrics
    interval = f" [{values['mAP_lo']:.3f}, {values['mAP_hi']:.3f}]" if "mAP_lo" in values else ""
    return f"mAP {values['mAP']:.3f}{interval}, mAP_50 {values['mAP_50']:.3f}"


def in_words(who: str, counts: Counts, class_names: Sequence[str], where: str) -> str:
    """How good something is, in a sentence that needs no explanation.

    Args:
        who: what was run.
        counts: of what it showed.
        class_names: whose one name is the word for what is found.
        where: the pictures, with the score from which it shows what it found.
    """
    things = _many(class_names, counts.labelled)
    if not counts.shown:
        return f"{who} finds none of {counts.labelled} {things} {where}, and shows nothing else."
    wrong = f"{counts.wrong or 'none'} of {counts.shown} {'box' if counts.shown == 1 else 'boxes'}"
    verb = "is" if counts.wrong < 2 else "are"
    return (
        f"{who} finds {counts.found} of {counts.labelled} {things} {where}; {wrong} that it shows "
        f"{verb} wrong."
    )


def _many(class_names: Sequence[str], count: int) -> str:
    """The word for what is found: the class where there is one alone, in English letters."""
    word = class_names[0] if len(class_names) == 1 else "object"
    if not (word.isascii() and word[-1:].isalpha()):
        word = "object"
    if count == 1:
        return word
    if word.endswith("y") and word[-2:-1] not in ("", *"aeiouAEIOU "):
        return f"{word[:-1]}ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def pictures_in_words(evaluation: Evaluation, split: str) -> str:
    """The pictures of an evaluation, and the score from which detections counted as shown."""
    count = len(evaluation.images)
    plural = "s" * (count != 1)
    return f"in the {count} {split} picture{plural}, at scores from {evaluation.threshold:g}"


def served_in_words(evaluated: Evaluated, proofs: Sequence[Proof], wanted: str | None) -> str:
    """How good the file is that is served; the checkpoint, where no file may be.

    Args:
        evaluated: the checkpoint on a split.
        proofs: of its files on the same.
        wanted: the format that is to be served, if it is there.
    """
    evaluation, split = evaluated.evaluation, evaluated.split
    where, names = pictures_in_words(evaluation, split.name), evaluation.class_names
    sound = {one.format: one for one in proofs if not one.failed}
    served = served_format(list(sound), wanted)
    if served is None:
        return in_words("The checkpoint", evaluation.counts, names, where)
    measured, known = sound[served].measured, split.dataset.class_names
    counts = count_shown(split.truths, measured.detections, known, evaluation.threshold)
    return in_words(sound[served].file.name, counts, names, where)


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
            f"{dataset.name} ({pictures} pictures, digest `{dataset.digest[:12]}`). "
            + served_in_words(evaluated, proofs, config.registry.format),
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
    own = any(text.startswith(("data=", "data.")) for text in overrides)
    return "\n".join(
        [
            f"Registered {result.outcome}" if result.outcome else f"Made {result.model}",
            result.in_words,
            "",
            on_test(result.evaluation, result.proofs),
            stages_in_words(result.seconds),
            *(f"\nLook here: {doubt}" for doubt in result.doubts),
            *([f"\n{result.more_steps}"] if result.more_steps else []),
            "",
            "Where to look:",
            *_pages_of(result, command or "the server is up"),
            "",
            "What next:",
            f"  try it                 odtrain predict source={result.model}{store} input=PICTURES "
            "output=drawn",
            _take(result, store),
            f"  the best of many       odtrain sweep{data}" if own else OWN,
        ]
    )


def _take(result: TrainResult, store: str) -> str:
    if result.version is None:
        return f"  take the files         {result.folder / 'export'}"
    return f"  take the files         odtrain models download {result.model}{store} --to DIR"


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
    return f"{headline(result.evaluation)}\n{result.in_words}\nReport: {result.report}"


def after_video(result: VideoResult) -> str:
    """The scores, and where the tracks are."""
    return f"{result.in_words}\nRun {result.run_id}: {result.folder}"


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
