"""`odtrain train`, `evaluate`, `export`, `benchmark` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from odtrain.command import Action, Command, Composed, flag, looks, prints, say, with_config

if TYPE_CHECKING:
    from odtrain.config.schema import Config


def _train(given: Composed) -> int:
    if given.config.cluster.engine:
        from odtrain.jobs.on_cluster import train_on_cluster

        status, text = train_on_cluster(given.config, given.settled, given.flags.config_dir)
        if text:
            say(text.rstrip("\n"))
        return status
    say(_train_here(given))
    return 0


def _train_here(given: Composed) -> str:
    from odtrain.jobs.closing import after_training
    from odtrain.jobs.train import train
    from odtrain.jobs.workers import follow
    from odtrain.training.team import join

    team = join(given.config.train.devices)
    if not team.chief:
        return follow(given.config, team)
    return after_training(train(given.config, given.settled, team), given.overrides)


def _settle(
    config: Config, overrides: list[str], config_dir: str | None
) -> tuple[Config, list[str]]:
    from odtrain.recipes.asked import anything_asked_for

    if not anything_asked_for(config, overrides):
        return config, overrides
    from odtrain.recipes.settle import settle
    from odtrain.registry.register import check_name

    check_name(config.registry.name)
    return settle(config, overrides, config_dir)


def _evaluate(given: Composed) -> str:
    if given.config.input or given.config.labels:
        from odtrain.jobs.closing import after_video
        from odtrain.jobs.evaluate_video import evaluate_video

        return after_video(evaluate_video(given.config, given.overrides))
    from odtrain.jobs.closing import after_evaluation
    from odtrain.jobs.evaluate import evaluate

    return after_evaluation(evaluate(given.config, given.overrides))


def _export(given: Composed) -> str:
    from odtrain.jobs.closing import after_export
    from odtrain.jobs.export import export

    return after_export(export(given.config, given.flags.explain_int8))


def _benchmark(given: Composed) -> str:
    from odtrain.jobs.benchmark import benchmark
    from odtrain.jobs.closing import after_benchmark

    return after_benchmark(benchmark(given.config))


def _report(given: Composed) -> str:
    from odtrain.jobs.run_report import write_report

    flags = given.flags
    to = Path(flags.to) if flags.to else None
    return f"Written: {write_report(flags.run, given.config.runs, to, flags.precision)}"


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
TRAIN = Action(with_config(_train, _settle), settings=(*TRAINING, "cluster"))
EVALUATE = Action(
    prints(_evaluate),
    settings=(
        "source",
        "trust_source",
        "evaluate",
        "data",
        "model",
        "benchmark",
        "predict.label_map",
        "predict.threshold",
        "predict.threads",
        "input",
        "labels",
        "tracking",
        "outputs",
    ),
)
EXPORT = Action(
    prints(_export),
    flags=(
        flag(
            "--explain-int8",
            "write which layers of the int8 file differ, and the pictures that changed most",
            action="store_true",
        ),
    ),
    settings=("source", "output", "export", "benchmark", "tracking", "outputs"),
)
BENCHMARK = Action(
    prints(_benchmark),
    settings=("source", "trust_source", "benchmark", "data", "tracking", "outputs"),
)
REPORT = Action(
    looks(prints(_report)),
    flags=(
        flag("run", "its id or the beginning of it, its name, latest, or models:/NAME@ALIAS"),
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
