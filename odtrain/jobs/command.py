"""`odtrain train`, `evaluate`, `export`, `benchmark` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from odtrain.command import Action, Command, Invocation, flag, with_config

if TYPE_CHECKING:
    from odtrain.config.schema import Config


def _train(config: Config, invocation: Invocation) -> int:
    from odtrain.jobs.closing import after_training
    from odtrain.jobs.train import train

    print(after_training(train(config, invocation.overrides), invocation.overrides))
    return 0


def _evaluate(config: Config, invocation: Invocation) -> int:
    from odtrain.jobs.closing import after_evaluation
    from odtrain.jobs.evaluate import evaluate

    print(after_evaluation(evaluate(config, invocation.overrides)))
    return 0


def _export(config: Config, invocation: Invocation) -> int:
    from odtrain.jobs.closing import after_export
    from odtrain.jobs.export import export

    print(after_export(export(config)))
    return 0


def _benchmark(config: Config, invocation: Invocation) -> int:
    from odtrain.jobs.benchmark import benchmark
    from odtrain.jobs.closing import after_benchmark

    print(after_benchmark(benchmark(config)))
    return 0


def _report(config: Config, invocation: Invocation) -> int:
    from odtrain.jobs.run_report import write_report

    flags = invocation.flags
    to = Path(flags.to) if flags.to else None
    print(f"Written: {write_report(flags.run, config.runs, to, flags.precision)}")
    return 0


TRAINING = (
    "data",
    "model",
    "train",
    "augment",
    "evaluate",
    "export",
    "benchmark",
    "tracking",
    "registry",
    "zoo",
    "outputs",
)
"""What a training reads."""
TRAIN = Action(with_config(_train), settings=TRAINING)
EVALUATE = Action(
    with_config(_evaluate),
    settings=(
        "source",
        "evaluate",
        "data",
        "model",
        "benchmark",
        "predict.label_map",
        "tracking",
        "outputs",
    ),
)
EXPORT = Action(
    with_config(_export),
    settings=("source", "output", "export", "benchmark", "tracking", "outputs"),
)
BENCHMARK = Action(
    with_config(_benchmark), settings=("source", "benchmark", "data", "tracking", "outputs")
)
REPORT = Action(
    with_config(_report),
    flags=(
        flag("run", "its id"),
        flag("--to", "the file; report-ID.html if not given", metavar="FILE"),
        flag("--precision", "that thresholds shall give", type=float, default=0.9, metavar="P"),
    ),
    settings=("tracking", "outputs"),
)
COMMANDS = {
    "train": Command({"": TRAIN}),
    "evaluate": Command({"": EVALUATE}),
    "export": Command({"": EXPORT}),
    "benchmark": Command({"": BENCHMARK}),
    "report": Command({"": REPORT}),
}
