"""`odtrain models`."""

from __future__ import annotations

import re
from pathlib import Path

from odtrain.command import Action, Command, Composed, Flag, flag, looks, prints, say, with_config


def _list(given: Composed) -> str:
    from odtrain.registry.versions import (
        list_models,
        losing_classes,
        loss_in_words,
        versions_table,
    )
    from odtrain.tracking.store import tracking_uri

    store, name = tracking_uri(given.config.tracking), given.flags.name
    versions = [version for version in list_models(store) if name in (None, version.name)]
    lost = loss_in_words(losing_classes(versions, store))
    return "\n\n".join(filter(None, (versions_table(versions), lost)))


def _show(given: Composed) -> str:
    from odtrain.registry.versions import describe_version, find_version
    from odtrain.tracking.store import tracking_uri

    name = given.flags.name or given.config.registry.name
    return describe_version(find_version(name, tracking_uri(given.config.tracking)))


def _compare(given: Composed) -> str:
    from odtrain.jobs.comparing.compare import compare_models

    flags = given.flags
    return compare_models(
        given.config, given.overrides, flags.a, flags.b, flags.format, flags.again
    )


def _register(given: Composed) -> str:
    from odtrain.jobs.register import register_files

    flags = given.flags
    return register_files(given.config, given.overrides, flags.files, flags.origin).in_words


def _promote(given: Composed) -> int:
    from odtrain.promotion.promote import promote, would_pass

    asked = (given.config, given.overrides, given.flags.name, given.flags.version)
    passes, text = would_pass(*asked) if given.flags.dry_run else (True, promote(*asked))
    say(text)
    return int(not passes)


def _rollback(given: Composed) -> str:
    from odtrain.promotion.promote import rollback

    return rollback(given.config.tracking, given.flags.name or given.config.registry.name)


def _download(given: Composed) -> str:
    from odtrain.registry.download import download
    from odtrain.tracking.names import file_name
    from odtrain.tracking.store import tracking_uri

    flags = given.flags
    uri = flags.uri or given.config.registry.name
    target = Path(flags.to or file_name(re.sub(r"[/@]", "-", uri.removeprefix("models:/"))))
    copied = download(uri, target, tracking_uri(given.config.tracking), flags.format)
    return "\n".join(str(path) for path in copied)


def _name(help: str) -> Flag:
    return flag("name", help, nargs="?", metavar="NAME")


FORMAT = flag("--format", "one export format only", metavar="FORMAT")
ACTIONS = {
    "list": Action(
        looks(prints(_list)),
        "the registered models and their versions",
        flags=(_name("of this one only"),),
        settings=("tracking",),
    ),
    "show": Action(
        looks(prints(_show)),
        "one model's version",
        flags=(_name("a model, NAME@ALIAS or NAME/VERSION; registry.name if not given"),),
        settings=("tracking", "registry.name"),
    ),
    "compare": Action(
        looks(prints(_compare)),
        "which of two is better on the same pictures, and whether that is shown",
        flags=(
            flag("a", "a run, models:/... or a file", metavar="A"),
            flag("b", "the same", metavar="B"),
            FORMAT,
            flag("--again", "run and time both now", action="store_true"),
        ),
        settings=("trust_source", "data", "evaluate", "benchmark", "tracking", "outputs"),
        example="models compare RUN_ID models:/panels@champion",
    ),
    "register": Action(
        prints(_register),
        "register model files that were trained elsewhere, measured and judged like others",
        flags=(
            flag("files", "model files of one network", nargs="+", metavar="FILE"),
            flag("--origin", "where they come from, for the card", metavar="TEXT"),
        ),
        settings=(
            *("trust_source", "data", "evaluate", "benchmark", "registry", "predict.label_map"),
            *("tracking", "outputs"),
        ),
        example="models register yolo.onnx registry.name=mine data.images=DIR data.annotations=DIR",
    ),
    "promote": Action(
        looks(with_config(_promote)),
        "make a version the champion, if it passes the gate",
        flags=(
            flag("name", "a model", metavar="NAME"),
            flag("version", "its number, or an alias", metavar="VERSION"),
            flag(
                "--dry-run",
                "judge alone: Markdown, and exit status 1 if it does not pass",
                action="store_true",
            ),
        ),
        settings=("registry", "data", "benchmark", "tracking", "outputs"),
        example="models promote panels 3",
    ),
    "rollback": Action(
        looks(prints(_rollback)),
        "the champion before is champion again",
        flags=(_name("a model; registry.name if not given"),),
        settings=("tracking", "registry.name"),
    ),
    "download": Action(
        looks(prints(_download)),
        "copy a version's files",
        flags=(
            flag("uri", "models:/NAME@ALIAS; registry.name if not given", nargs="?", metavar="URI"),
            flag("--to", "the folder", metavar="DIR"),
            FORMAT,
        ),
        settings=("tracking", "registry.name"),
    ),
}
COMMANDS = {"models": Command(ACTIONS, default=None)}
