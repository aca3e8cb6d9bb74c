"""Which commands there are. Their modules are imported when one is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import cast

from odtrain.command import Command
from odtrain.errors import ConfigError

COMMANDS = {
    "collect": (
        "odtrain.collect.command",
        "pictures of folders, archives, videos and URLs, as DIR/img1.jpg, DIR/img2.jpg, ...",
    ),
    "demo": (
        "odtrain.collect.command",
        "pictures --to DIR: elevator panels to follow the tutorial with, also with labels",
    ),
    "train": (
        "odtrain.jobs.command",
        "pictures and labels to a registered model, in one tracked run",
    ),
    "prepare": ("odtrain.dataset.command", "check labels; write CSV, label map and records"),
    "check": (
        "odtrain.dataset.command",
        "look for mistakes in pictures and labels; exit status 1 on errors",
    ),
    "convert": (
        "odtrain.dataset.command",
        "the labels at input=, whatever their format, as another one in the new folder output=",
    ),
    "diff": (
        "odtrain.dataset.command",
        "two versions of a prepared data set: pictures, boxes and classes that changed",
    ),
    "evaluate": (
        "odtrain.jobs.command",
        "COCO metrics of source=: a run, models:/ or a model file",
    ),
    "export": ("odtrain.jobs.command", "export the run source= again, into it or to output="),
    "benchmark": ("odtrain.jobs.command", "latency, size and memory of the file source="),
    "predict": (
        "odtrain.predict.command",
        "draw what source= finds in input=; write CSV and JSON to output=",
    ),
    "serve": ("odtrain.web.command", "a local page to drop pictures on, and REST, for source="),
    "webcam": (
        "odtrain.web.command",
        "a local page: the live stream of input= with what source= sees",
    ),
    "sweep": (
        "odtrain.sweep.command",
        "many trainings, ending with the files that nothing beats; pick one, verify all",
    ),
    "submit": (
        "odtrain.cluster.command",
        "COMMAND ...: have a Ray cluster do it; follow JOB, stop JOB",
    ),
    "zoo": (
        "odtrain.zoo.command",
        "list the models; fetch NAME: their weights; verify NAME|PATH: prove them equal",
    ),
    "import": (
        "odtrain.tf1_import.command",
        "a pipeline.config of the TensorFlow 1 Object Detection API as an experiment of odtrain",
    ),
    "models": (
        "odtrain.registry.command",
        "list | show NAME | compare A B | promote NAME VERSION | rollback NAME | download URI",
    ),
    "deploy": (
        "odtrain.deploy.command",
        "URI --to frigate|coral|raspberry-pi|android|tf-serving --out DIR: the file, and what it needs there",
    ),
    "prelabel": (
        "odtrain.labelling.command",
        "proposals of source= for new pictures input=, to correct in labelImg; merge: take them",
    ),
    "curve": (
        "odtrain.studies.command",
        "how many pictures are enough: trainings on parts of them, and what twice as many would bring",
    ),
    "drift": (
        "odtrain.monitoring.command",
        "DIR --against RUN: whether what serve.log=DIR saw is what RUN was judged on; exit status 3 if not",
    ),
    "report": ("odtrain.jobs.command", "one HTML file that tells the run RUN, to send to people"),
    "track": (
        "odtrain.tracking.command",
        "sync: send what was spooled while the tracking server was away",
    ),
    "server": (
        "odtrain.tracking.command",
        "MLflow on PostgreSQL with an artifact store, for a team (docs/team.md)",
    ),
    "ui": (
        "odtrain.tracking.command",
        "open MLflow's pages on the runs, and print the URL that compares them",
    ),
    "completion": (
        "odtrain.cli.completion",
        "bash | zsh | fish: print what completes commands, settings and choices at a TAB there",
    ),
}
"""By name: the module that has it, and one line of help."""


def load(name: str) -> Command:
    """A command as its module declares it.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in COMMANDS:
        raise no_such("command", name, COMMANDS, f"odtrain {name}")
    module = importlib.import_module(COMMANDS[name][0])
    return cast(Command, module.COMMANDS[name])


def no_such(what: str, name: str, among: Iterable[str], where: str) -> ConfigError:
    """The error about a mistyped word, with the nearest of what there is."""
    near = difflib.get_close_matches(name, list(among), n=1, cutoff=0.6)
    remedy = f"Did you mean: {near[0]}" if near else f"Choose one of: {', '.join(among)}."
    return ConfigError(where, f"no such {what}.", remedy)


def owners(flag: str, near: str = "") -> list[str]:
    """The commands, with their actions, that have a flag of their own of that name.

    Args:
        flag: its name.
        near: a command; where actions of it have the flag, they alone are named.
    """
    titles = {
        f"{name} {word}".rstrip(): name
        for name in COMMANDS
        for word, action in load(name).actions.items()
        if flag in [each.name for each in action.flags]
    }
    return [title for title, name in titles.items() if name == near] or list(titles)
