"""`python -m benchmarks`: measure, and print Markdown tables."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import (
    before,
    evaluation,
    inputs,
    latency,
    noise,
    pictures,
    prediction,
    preparing,
    serving,
    sweep,
    tracking,
    training,
    workers,
    zoo,
)
from benchmarks.processes import ProcessError
from odtrain.config import compose
from odtrain.config.schema import BenchmarkConfig
from odtrain.errors import OdtrainError
from odtrain.system.processor import choose_onednn, this_processor
from odtrain.zoo.costs import NUM_CLASSES

PACKAGES = ("tensorflow", "tf-keras", "ai-edge-litert", "faster-coco-eval", "mlflow", "pillow")

Columns = dict[str, Callable[[Any], str]]
"""Heading -> the cell of a row."""


class Section(NamedTuple):
    """What one benchmark has to say.

    Attributes:
        title: of the section.
        text: what was measured, and how to read it.
        columns: of the table.
        rows: of the table.
    """

    title: str
    text: str
    columns: Columns
    rows: Sequence[Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line asks for; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["before"]:
        return _compare(arguments[1:])
    flags = _parser().parse_args(arguments)
    choose_onednn()
    pages = [machine()]
    print(pages[0], flush=True)
    failed = 0
    for name in flags.only or [name for name in BENCHMARKS if name not in ON_REQUEST]:
        try:
            pages.append(markdown(BENCHMARKS[name](flags.quick)))
        except (OdtrainError, ProcessError) as error:
            pages.append(f"## {name}\n\nnot measured: {error}\n")
            failed = 1
        print(pages[-1], flush=True)
        if flags.to:
            flags.to.write_text("\n".join(pages), encoding="utf-8")
    return failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure side by side, and print Markdown tables with ratios.",
    )
    parser.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), help="may be given several times"
    )
    parser.add_argument("--to", type=Path, metavar="FILE.md", help="write the tables there too")
    parser.add_argument("--quick", action="store_true", help="small: to see that it works")
    return parser


def _compare(arguments: Sequence[str]) -> int:
    """`before COMMIT`: this version beside that one; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks before",
        description="Run this version and an earlier one in turn, and print the ratios.",
    )
    parser.add_argument("commit", help="the version before, as git names it")
    topics = list(before.TOPICS)
    parser.add_argument(
        "--only", action="append", choices=topics, help="may be given several times"
    )
    parser.add_argument("--rounds", type=int, default=before.ROUNDS, help="pairs of each case")
    parser.add_argument("--quick", action="store_true", help="small: to see that it works")
    flags = parser.parse_args(arguments)
    print(machine(), flush=True)
    try:
        rows = before.measure(flags.commit, flags.only or topics, flags.rounds, flags.quick)
    except (OdtrainError, ProcessError) as error:
        print(f"not measured: {error}")
        return 1
    text = (
        f"{flags.rounds} pairs, in turn. Ratio: how many times as fast this version is, the median of the "
        "pairs and between which they lie. Memory: the largest of the process."
    )
    title = _titled(f"This version beside {flags.commit}", flags.quick)
    print(markdown(Section(title, text, BEFORE, rows)))
    return 0


def machine() -> str:
    """On what is measured, and how busy it is."""
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"# Benchmarks\n\n{this_processor().name}, {os.cpu_count()} cores, load {loads} at the start; "
        f"{platform.system()}, Python {platform.python_version()}, {packages}.\n"
        "`load` is the average of the last minute just before a row was measured: from about half "
        "the number of cores on, times are too long, and ratios of processor time are what is left.\n"
    )


def markdown(section: Section) -> str:
    """A section as a heading, its text and one table."""
    cells = [[cell(row) for cell in section.columns.values()] for row in section.rows]
    rule = ["---", *["---:"] * (len(section.columns) - 1)]
    lines = [f"| {' | '.join(line)} |" for line in [list(section.columns), rule, *cells]]
    return "\n".join([f"## {section.title}", "", section.text, "", *lines, ""])


# ---- the benchmarks, one section each


def _training(quick: bool) -> Section:
    rows = training.measure(training.QUICK if quick else training.Extent())
    text = (
        f"ssd_mobilenet_v1, 300x300, {training.NUM_CLASSES} classes, on {pictures.source_name()}, "
        "with hard mining, flips and crops, RMSProp; warm-up left out. The bound is what the product "
        "of two large matrices allows, timed before each row in the same precision on all cores; the "
        "share by CPU time compares processor time with processor time. The old system trained "
        f"{training.OLD_IMAGES_PER_SECOND} images/s with {training.OLD_PEAK_MEMORY_MB / 1000:.1f} GB. "
        "Goals hold for 2 idle cores, full width and batch 24, with memory under 3.5 GB."
    )
    columns = {
        heading: cell for heading, cell in TRAINING.items() if not (quick and heading in FULL)
    }
    return Section(_titled("Training", quick), text, columns, rows)


def _workers(quick: bool) -> Section:
    extent = workers.QUICK if quick else workers.Extent()
    text = (
        "ssd_mobilenet_v1, 300x300, in fp32, as above; the workers share out batch and cores of this machine. "
        f"{extent.rounds} rounds, in turn. Pictures per processor second, as a share of one worker's: the "
        "median of the rounds, and between which they lie."
    )
    return Section(_titled("Workers", quick), text, WORKERS, workers.measure(extent))


def _preparing(quick: bool) -> Section:
    count, rounds = (200, 1) if quick else (preparing.PICTURES, preparing.ROUNDS)
    text = (
        f"{count} distinct crops and re-encodings of {pictures.source_name()}; whole processes, "
        f"median of {rounds}, files in the page cache. The tutorial's steps are written anew "
        "(`benchmarks/tutorial.py`), not its own scripts; they copy pictures without decoding them. "
        "Ratio: how many times as fast as both together."
    )
    rows = preparing.measure(count, rounds)
    return Section(_titled("Preparing", quick), text, PREPARING, rows)


def _inputs(quick: bool) -> Section:
    text = (
        "The input pipeline alone (reading, decoding, flips and crops, resizing, batches) beside training "
        "steps alone, which are given one batch again and again; pictures a second, all cores each. "
        f"Kept: decoded pictures stay in memory, up to {inputs.CACHE_MB} MB. The share is what the pipeline "
        "takes of a step's time if it did nothing beside it."
    )
    rows = inputs.measure(inputs.QUICK if quick else inputs.Extent())
    return Section(_titled("Input pipeline", quick), text, INPUTS, rows)


def _evaluation(quick: bool) -> Section:
    count = 200 if quick else evaluation.PICTURES
    text = (
        f"COCO's twelve numbers for {count} pictures with {evaluation.DETECTIONS} detections each, "
        f"{evaluation.CLASSES} classes. Ratio: how many times as fast as pycocotools."
    )
    return Section(_titled("Evaluation", quick), text, EVALUATION, evaluation.compare(count))


def _latency(quick: bool) -> Section:
    extent = latency.QUICK if quick else latency.WHOLE
    text = (
        f"ssd_mobilenet_v1, 300x300, {latency.NUM_CLASSES} classes, batch 1; {extent.runs} runs of each "
        "file in a process of its own. `pb` and `saved_model` include resizing and normalising the "
        "picture. A .tflite with regular suppression looks at every class by itself, in one thread; "
        "how long that takes depends on what the network finds. Ratio: how many times as fast as the "
        "network's first file with as many threads asked for."
    )
    return Section(_titled("Latency of exports", quick), text, LATENCY, latency.measure(extent))


def _prediction(quick: bool) -> Section:
    extent = prediction.QUICK if quick else prediction.WHOLE
    text = (
        f"{extent.count} JPEGs ({pictures.source_name()}) to drawn JPEGs and tables, against the bare "
        "interpreters on pictures made ready beforehand; both in one process, in turn, "
        f"{extent.rounds} rounds. Of its parts: of the throughput that decoding, resizing, invoking, drawing "
        f"and encoding alone have with as many interpreters and threads (goal {prediction.GOAL:.0%}); beside "
        "it, of the bare interpreters' and of that of one interpreter with one thread."
    )
    return Section(_titled("Prediction", quick), text, PREDICTION, prediction.measure(extent))


def _tracking(quick: bool) -> Section:
    text = (
        f"Steps of about {tracking.STEP_SECONDS:g} s that log {len(tracking.METRICS)} metrics to "
        "MLflow on sqlite. The call is what a step waits for; the rest is sent by a thread beside "
        "it. Share: of a step that logs nothing."
    )
    rows = tracking.compare(1 if quick else tracking.ROUNDS)
    return Section(_titled("Tracking", quick), text, TRACKING, rows)


def _zoo(quick: bool) -> Section:
    extent = zoo.QUICK if quick else zoo.WHOLE
    rows = zoo.measure(extent)
    text = (
        f"Milliseconds for one picture (batch 1, {zoo.THREADS} thread, median of {extent.runs} runs, each "
        f"file in a process of its own), {NUM_CLASSES} classes, random weights with class scores as low "
        "as a trained network's mostly are, the default suppression (`export.nms=builtin`)."
    )
    failed = [f"- {why}" for row in rows for why in row.failed]
    if failed:
        text += "\n\nNot measured:\n\n" + "\n".join(failed)
    return Section(_titled("Zoo models on this CPU", quick), text, ZOO, rows)


def _sweep(quick: bool) -> Section:
    seeds = sweep.SEEDS[:2] if quick else sweep.SEEDS
    text = (
        "The driver's own code over the trainings in `benchmarks/recorded_trainings.json`: "
        f"{sweep.TRAININGS} trainings a sweep, {len(seeds)} seeds. Steps: share of those that it takes "
        "to train everything to its end. Lost: hypervolume of mAP and latency, against TPE without "
        "stopping and the same seed. Of all: hypervolume, as a share of that of all recorded trainings."
    )
    rows = sweep.compare(seeds)
    return Section(_titled("Sweeps replayed", quick), text, SWEEP, rows)


def _noise(quick: bool) -> Section:
    timing = compose.section(BenchmarkConfig)
    text = (
        f"The demo network's files with random weights, each timed again and again as a sweep does "
        f"({timing.runs} runs, {timing.threads} thread, median, a process each), "
        "while nothing, or two processes, compute. How far nine of ten timings, and the farthest, lie from "
        "the median of all timings of that file beside those neighbours."
    )
    rows = noise.measure(2 if quick else 20)
    return Section(_titled("Noise of latencies", quick), text, NOISE, rows)


def _titled(title: str, quick: bool) -> str:
    return f"{title} (quick: not the real size)" if quick else title


def _milliseconds(format: str) -> Callable[[zoo.Row], str]:
    def cell(row: zoo.Row) -> str:
        found = row.milliseconds.get(format)
        return "" if found is None else f"{found:.1f}"

    return cell


WORKERS: Columns = {
    "workers": lambda row: str(row.workers),
    "images/s": lambda row: f"{row.images_per_second:.1f}",
    "CPU s/image": lambda row: f"{row.cpu_seconds:.3f}",
    "pictures a CPU second": lambda row: f"{row.share:.2f} ({row.lowest:.2f} to {row.highest:.2f})",
    "load": lambda row: f"{row.load:.1f}",
}
TRAINING: Columns = {
    "precision": lambda row: row.variant.precision,
    "frozen stages": lambda row: str(row.variant.freeze),
    "batch": lambda row: str(row.batch_size),
    "images/s": lambda row: f"{row.images_per_second:.1f}",
    "goal": lambda row: (
        f"{training.GOALS[row.variant]:.1f}" if row.variant in training.GOALS else ""
    ),
    "× old system": lambda row: f"{row.ratio:.1f}",
    "CPU s/image": lambda row: f"{row.cpu_seconds:.3f}",
    "GFLOP/image": lambda row: f"{row.gflop:.2f}",
    "product GFLOPS": lambda row: f"{row.product_gflops:.0f}",
    "bound images/s": lambda row: f"{row.bound:.1f}",
    "of bound": lambda row: f"{row.share:.0%}",
    "of bound, by CPU time": lambda row: f"{row.cpu_share:.0%}",
    "peak GB": lambda row: f"{row.peak_memory_mb / 1000:.2f}",
    "load": lambda row: f"{row.load:.1f}",
}
FULL = ("goal", "× old system")
"""Headings of what means something at full size only."""
PREPARING: Columns = {
    "what": lambda row: row.name,
    "seconds": lambda row: f"{row.seconds:.2f}",
    "CPU s": lambda row: f"{row.cpu_seconds:.2f}",
    "pictures/s": lambda row: f"{row.pictures_per_second:,.0f}",
    "ratio": lambda row: f"{row.ratio:.2f}",
    "peak MB": lambda row: f"{row.peak_memory_mb:.0f}",
    "imports TensorFlow": lambda row: "yes" if row.tensorflow else "no",
    "load": lambda row: f"{row.load:.1f}",
}
INPUTS: Columns = {
    "network": lambda row: row.network,
    "steps, images/s": lambda row: f"{row.step:.1f}",
    "pipeline, images/s": lambda row: f"{row.plain:.0f}",
    "ratio": lambda row: f"{row.plain / row.step:.1f}",
    "kept, images/s": lambda row: f"{row.kept:.0f}",
    "ratio, kept": lambda row: f"{row.kept / row.step:.1f}",
    "share": lambda row: f"{row.step / row.plain:.1%}",
    "share, kept": lambda row: f"{row.step / row.kept:.1%}",
    "load": lambda row: f"{row.load:.1f}",
}
EVALUATION: Columns = {
    "evaluator": lambda row: row.name,
    "seconds": lambda row: f"{row.seconds:.2f}",
    "CPU s": lambda row: f"{row.cpu_seconds:.2f}",
    "ratio": lambda row: f"{row.ratio:.1f}",
    "largest difference": lambda row: f"{row.max_difference:.1e}",
    "load": lambda row: f"{row.load:.1f}",
}
LATENCY: Columns = {
    "network": lambda row: row.file.network,
    "format": lambda row: row.file.format,
    "suppression": lambda row: row.file.nms,
    "threads asked for": lambda row: str(row.asked),
    "used": lambda row: str(row.threads),
    "p50 ms": lambda row: f"{row.latency_ms_p50:.1f}",
    "p90 ms": lambda row: f"{row.latency_ms_p90:.1f}",
    "ratio": lambda row: f"{row.ratio:.2f}",
    "size MB": lambda row: f"{row.size_mb:.1f}",
    "peak MB": lambda row: f"{row.peak_memory_mb:.0f}",
    "load": lambda row: f"{row.load:.1f}",
}
TRACKING: Columns = {
    "what": lambda row: row.name,
    "ms": lambda row: f"{row.milliseconds:.3f}",
    "share of a step": lambda row: f"{row.share:.2%}",
    "load": lambda row: f"{row.load:.1f}",
}
ZOO: Columns = {
    "model": lambda row: row.model,
    **{name: _milliseconds(name) for name in zoo.FORMATS},
    "load": lambda row: f"{row.load:.1f}",
}


PREDICTION: Columns = {
    "file": lambda row: row.file,
    "interpreters": lambda row: str(row.choice.workers),
    "threads of each": lambda row: str(row.threads),
    "bare/s": lambda row: f"{row.bare:.1f}",
    "predict/s": lambda row: f"{row.whole:.1f}",
    "of its parts": lambda row: f"{row.of_parts:.0%}",
    "of bare": lambda row: f"{row.ratio:.0%}",
    "to one thread": lambda row: f"{row.of_one:.0%}",
    "bare CPU ms": lambda row: f"{row.bare_cpu_ms:.1f}",
    "predict CPU ms": lambda row: f"{row.whole_cpu_ms:.1f}",
    "load": lambda row: f"{row.load:.1f}",
}


def _serving(quick: bool) -> Section:
    rows = serving.measure(serving.QUICK if quick else serving.WHOLE)
    text = (
        f"`odtrain serve` on {serving.MODEL} with {NUM_CLASSES} classes and random weights; pictures are sent "
        "as JPEG by clients on the same cores. Of its parts: of the throughput that decoding, resizing and "
        f"invoking alone have (goal {serving.GOAL:.0%}). Memory is the server's, early in a row and at its end."
    )
    columns: Columns = {
        "file": lambda row: row.format,
        "clients": lambda row: f"{row.answered.clients}",
        "requests": lambda row: f"{row.answered.requests:,}",
        "errors": lambda row: f"{row.answered.errors}",
        "requests/s": lambda row: f"{row.answered.per_second:.1f}",
        "of its parts": lambda row: f"{row.of_parts:.0%}",
        "server's CPU": lambda row: f"{row.answered.cpu_ms:.2f} ms",
        "p50": lambda row: f"{row.answered.p50_ms:.1f} ms",
        "p99": lambda row: f"{row.answered.p99_ms:.1f} ms",
        "memory": lambda row: (
            f"{row.answered.memory_mb[0]:.0f} -> {row.answered.memory_mb[1]:.0f} MB"
        ),
        "load": lambda row: f"{row.answered.load:.1f}",
    }
    return Section("Serving", text, columns, rows)


SWEEP: Columns = {
    "sweep": lambda row: row.name,
    "steps": lambda row: f"{row.steps:.1%}",
    "stopped": lambda row: f"{row.stopped:.1f}",
    "lost": lambda row: f"{row.lost:.2%}",
    "lost, worst seed": lambda row: f"{row.worst:.2%}",
    "of all": lambda row: f"{row.of_all:.1%}",
}


NOISE: Columns = {
    "file": lambda row: row.format,
    "neighbours": lambda row: row.neighbours,
    "timings": lambda row: str(len(row.latencies)),
    "median": lambda row: f"{row.median:.2f} ms",
    "nine of ten within": lambda row: f"{row.within(0.9):.1%}",
    "farthest": lambda row: f"{row.within(1):.1%}",
    "load": lambda row: f"{row.load:.1f}",
}


BEFORE: Columns = {
    "what": lambda row: row.name,
    "before, s": lambda row: f"{row.seconds[0]:.3g}",
    "now, s": lambda row: f"{row.seconds[1]:.3g}",
    "ratio": lambda row: before.spread(row.ratios),
    "before, CPU s": lambda row: f"{row.cpu_seconds[0]:.3g}",
    "now, CPU s": lambda row: f"{row.cpu_seconds[1]:.3g}",
    "ratio by CPU time": lambda row: before.spread(row.cpu_ratios),
    "memory, MB": lambda row: f"{row.memory_mb[0]:.0f} -> {row.memory_mb[1]:.0f}",
    "result": lambda row: _result(row),
    "load": lambda row: f"{row.load:.1f}",
}


def _result(row: before.Row) -> str:
    if row.same:
        return "the same"
    first, second = row.values
    return f"{first:.3f} -> {second:.3f}" if isinstance(first, float) else "DIFFERS"


BENCHMARKS: dict[str, Callable[[bool], Section]] = {
    "training": _training,
    "workers": _workers,
    "preparing": _preparing,
    "inputs": _inputs,
    "evaluation": _evaluation,
    "latency": _latency,
    "prediction": _prediction,
    "tracking": _tracking,
    "serving": _serving,
    "zoo": _zoo,
    "sweep": _sweep,
    "noise": _noise,
}
"""Name -> what measures it, small or whole."""
ON_REQUEST = ("zoo",)
"""What is measured only by `--only`: every model of the zoo takes longer than all the rest."""

if __name__ == "__main__":
    sys.exit(main())
