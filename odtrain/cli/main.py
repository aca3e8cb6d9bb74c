"""The `odtrain` command: reads flags and overrides, composes the configuration, calls one function.

Nothing heavy is imported before a command is known to be well-formed: help and wrong overrides answer
at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from odtrain import __version__
from odtrain.errors import ConfigError, OdtrainError, os_remedy

SHOWN_OF_EACH = 5
"""Findings of one code that `check` prints; --json and --html have all."""

SWITCHES = ("--cfg", "--register", "--private", "--labels-only", "--again", "-h", "--help")
"""Flags without a value."""

OPTIONAL = ("--fix",)
"""Flags that may have a value; one with an equals sign in it is given as --flag=value."""

Flags = tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True)
class Invocation:
    """What the user typed, taken apart."""

    flags: argparse.Namespace
    overrides: list[str]


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        help: one line.
        run: returns the exit status.
        flags: its own flags and words, as argparse takes them, by name.
    """

    help: str
    run: Callable[[Invocation], int]
    flags: Flags = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 1 an error the user can act on, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"odtrain {__version__}")
        return 0
    # TensorFlow's and gRPC's start-up notices are about themselves, not about the user's work.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        invocation = _parse(arguments)
        return COMMANDS[arguments[0]].run(invocation)
    except OdtrainError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        remedy = os_remedy(error)
        if remedy is None:
            raise
        print(f"{error.filename or 'disk'}: {error.strerror}.\n  {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are ours: one screen, exit status 1."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(self.prog, message, self.format_usage().strip())


def _parser(name: str) -> argparse.ArgumentParser:
    command = COMMANDS[name]
    parser = _Parser(
        prog=f"odtrain {name}",
        description=command.help,
        epilog="Any key=value changes the configuration; odtrain --help lists groups and choices.",
        allow_abbrev=False,
    )
    for flag, options in (*command.flags, *COMMON_FLAGS):
        parser.add_argument(flag, **options)
    return parser


def _parse(arguments: Sequence[str]) -> Invocation:
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(name, "no such command.", f"Choose one of: {', '.join(COMMANDS)}.")
    own, overrides = _split(rest, [flag for flag, _ in (*COMMANDS[name].flags, *COMMON_FLAGS)])
    flags = _parser(name).parse_args(own)
    for several in flags.overrides:
        try:
            overrides += shlex.split(several)
        except ValueError as error:
            raise ConfigError(
                f"--overrides {several}", f"{error}.", "Close every quote, or double it."
            ) from None
    return Invocation(flags, overrides)


def _split(rest: Sequence[str], flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command's own flags and words, and overrides.

    `--key value` and `--key=value` are overrides too, unless the command has a flag of that name:
    that is how `mlflow run -P key=value` passes them on.
    """
    own: list[str] = []
    overrides: list[str] = []
    pending = deque(rest)
    while pending:
        token = pending.popleft()
        flag, has_value, _ = token.partition("=")
        if flag in flags or token in ("-h", "--help"):
            own.append(token)
            bare = flag in SWITCHES or (flag in OPTIONAL and not _is_word(pending))
            if not bare and not has_value and pending:
                own.append(pending.popleft())
        elif token.startswith("--"):
            if not has_value and not pending:
                raise ConfigError(token, "has no value.", "Give --key value, or key=value.")
            overrides.append(token[2:] if has_value else f"{token[2:]}={pending.popleft()}")
        elif has_value and "://" not in flag:  # a URL may have = behind its ?
            overrides.append(token)
        else:
            own.append(token)
    return own, overrides


def _is_word(pending: deque[str]) -> bool:
    """Whether the next token is neither a flag nor an override."""
    return bool(pending) and not pending[0].startswith("-") and "=" not in pending[0]


def _help() -> str:
    from odtrain.config.compose import shipped

    lines = ["usage: odtrain COMMAND [key=value ...]", "", "commands:"]
    for name, command in COMMANDS.items():
        lines.append(f"  {name:<10} {command.help}")
        lines += [f"  {'':<10}   {flag}  {options['help']}" for flag, options in command.flags]
    lines += ["", "configuration groups and their choices (odtrain COMMAND group=choice):"]
    for group in sorted(path for path in shipped("conf").iterdir() if path.is_dir()):
        choices = sorted(path.stem for path in group.glob("*.yaml"))
        if choices:
            lines.append(f"  {group.name:<10} {', '.join(choices)}")
    lines += [
        "",
        f"Every key is explained in {shipped('conf')}; odtrain COMMAND --cfg prints them all.",
        '--config-dir DIR adds your own configs; --overrides "a=1 b=2" gives several in one word.',
    ]
    return "\n".join(lines)


def _composed(invocation: Invocation) -> Any:
    from odtrain.config.compose import compose_config

    return compose_config(invocation.overrides, invocation.flags.config_dir)


def _with_config(action: Callable[[Any, Invocation], int]) -> Callable[[Invocation], int]:
    """Compose the configuration first; print it and stop if `--cfg` was given."""

    def run(invocation: Invocation) -> int:
        config = _composed(invocation)
        if invocation.flags.cfg:
            from odtrain.config.compose import as_yaml

            print(as_yaml(config), end="")
            return 0
        return action(config, invocation)

    return run


def _train(config: Any, invocation: Invocation) -> int:
    from odtrain.jobs import train as experiment

    experiment.train(config, invocation.overrides)
    return 0


def _prepare(config: Any, invocation: Invocation) -> int:
    from odtrain.dataset.prepare import prepare
    from odtrain.dataset.read import describe

    dataset = prepare(config.data)
    print(describe(dataset))
    if invocation.flags.pictures:
        from odtrain.reports.data_preview import write_pictures

        folder = Path(invocation.flags.pictures)
        seed = config.train.seed
        for file in write_pictures(dataset, folder, config.augment, config.model, seed):
            print(f"  {file}")
    return 0


def _check(config: Any, invocation: Invocation) -> int:
    from odtrain.dataset.check import check
    from odtrain.findings import errors, findings_json, findings_table

    flags = invocation.flags
    checked = check(config.data, config.model)
    findings = checked.findings
    if flags.json:
        Path(flags.json).write_text(findings_json(findings), encoding="utf-8")
    if flags.html:
        from odtrain.reports.findings_page import findings_page

        orientations = {str(file): held.orientation for file, held in checked.pictures.items()}
        page = findings_page(
            f"{config.data.name}: what the data check found", findings, orientations
        )
        Path(flags.html).write_text(page, encoding="utf-8")
    print(findings_table(findings, of_each=SHOWN_OF_EACH))
    if flags.fix is not None:
        from odtrain.dataset import repair

        output = flags.fix or config.output or f"{config.data.name}-repaired"
        repaired = repair.repair(config.data, config.model, output, checked)
        print(repair.describe(repaired))
        findings = repaired.findings
    return int(bool(errors(findings)))


def _collect(invocation: Invocation) -> int:
    from odtrain.collect.collect import collect, describe

    flags = invocation.flags
    if invocation.overrides:
        problem = "collect has no settings."
        raise ConfigError(
            invocation.overrides[0], problem, "odtrain collect --help lists its flags."
        )
    if flags.every < 1 or not 0 <= flags.near <= 256:
        raise ConfigError("collect", "--every or --near too small or large.", "See --help.")
    to = Path(flags.to)
    done = collect(flags.source, to, every=flags.every, near=flags.near, private=flags.private)
    print(describe(done))
    return int(bool(done.refused) and not done.added and not done.known)


def _diff(invocation: Invocation) -> int:
    from odtrain.dataset.diff import as_json, as_table, compare

    flags = invocation.flags
    diff = compare(Path(flags.first), Path(flags.second))
    if flags.json:
        Path(flags.json).write_text(as_json(diff), encoding="utf-8", errors="surrogateescape")
    print(as_table(diff))
    return 0


def _convert(config: Any, invocation: Invocation) -> int:
    from odtrain.dataset.convert import convert

    flags = invocation.flags
    places = {"source": config.input, "output": config.output}
    print(convert(config.data, flags.to, **places, labels_only=flags.labels_only))
    return 0


def _evaluate(config: Any, invocation: Invocation) -> int:
    from odtrain.jobs import train as experiment

    experiment.evaluate(config, invocation.overrides)
    return 0


def _export(config: Any, invocation: Invocation) -> int:
    from odtrain.jobs import train as experiment

    experiment.export(config)
    return 0


def _benchmark(config: Any, invocation: Invocation) -> int:
    from odtrain.jobs import train as experiment

    experiment.benchmark(config)
    return 0


def _predict(config: Any, invocation: Invocation) -> int:
    from odtrain.predict import predict

    predict.predict(config)
    return 0


def _serve(config: Any, invocation: Invocation) -> int:
    from odtrain.web.serve import serve_model

    serve_model(config)
    return 0


def _webcam(config: Any, invocation: Invocation) -> int:
    from odtrain.web import webcam

    webcam.webcam(config)
    return 0


def _sweep(config: Any, invocation: Invocation) -> int:
    from odtrain.sweep import driver as sweep
    from odtrain.sweep import pick as sweep_pick

    flags = invocation.flags
    if flags.action is None:
        sweep.sweep(config, invocation.overrides, flags.config_dir)
        return 0
    if flags.action == "pick":
        limits = (flags.max_latency_ms, flags.min_map, flags.max_size_mb)
        print(sweep_pick.pick(config, *limits, flags.register))
        return 0
    if flags.action == "verify":
        table, same = sweep_pick.verify(config)
        print(table)
        return int(not same)
    raise ConfigError(f"sweep {flags.action}", "no such action.", "Choose one of: pick, verify.")


def _zoo(invocation: Invocation) -> int:
    """A model that is named is composed with its own settings, so that overrides can change those."""
    from odtrain.zoo.catalog import model_names

    if invocation.flags.name in model_names(invocation.flags.config_dir):
        invocation.overrides.insert(0, f"model={invocation.flags.name}")
    return _with_config(_composed_zoo)(invocation)


def _composed_zoo(config: Any, invocation: Invocation) -> int:
    from odtrain.zoo.catalog import model_names, table

    flags = invocation.flags
    if flags.action == "list":
        print(table(flags.sort, flags.config_dir))
        return 0
    if flags.action not in ("fetch", "verify"):
        choices = "Choose one of: list, fetch, verify."
        raise ConfigError(f"zoo {flags.action}", "no such action.", choices)
    models, name = model_names(flags.config_dir), flags.name or ""
    path = Path(name).expanduser()
    known = name in models
    if not known and (flags.action == "fetch" or not name or not path.exists()):
        where = f"zoo {flags.action} {name}".rstrip()
        what = "model." if flags.action == "fetch" else "model, and no such path."
        raise ConfigError(where, f"no such {what}", f"Models: {', '.join(models)}.")
    from odtrain.zoo.verify import fetch_weights, verify_weights

    archive = fetch_weights(config) if known else path
    print(archive if flags.action == "fetch" else verify_weights(config, archive))
    return 0


def _import(config: Any, invocation: Invocation) -> int:
    from odtrain.tf1_import.experiment import import_pipeline

    flags = invocation.flags
    print(import_pipeline(Path(flags.file).expanduser(), Path(flags.to).expanduser(), flags.name))
    return 0


def _models_list(config: Any, invocation: Invocation) -> str:
    from odtrain.registry.versions import list_models, table
    from odtrain.tracking.store import tracking_uri

    found, name = list_models(tracking_uri(config.tracking)), invocation.flags.name
    return table([version for version in found if name in (None, version.name)])


def _models_show(config: Any, invocation: Invocation) -> str:
    from odtrain.registry.versions import describe, find_version
    from odtrain.tracking.store import tracking_uri

    name = invocation.flags.name or config.registry.name
    return describe(find_version(name, tracking_uri(config.tracking)))


def _models_compare(config: Any, invocation: Invocation) -> str:
    from odtrain.jobs.compare import compare

    flags = invocation.flags
    a, b = _two_words(flags, "A B", "models compare RUN_ID models:/panels@champion")
    return compare(config, invocation.overrides, a, b, flags.format, flags.again)


def _models_promote(config: Any, invocation: Invocation) -> str:
    from odtrain.promotion.promote import promote

    name, version = _two_words(invocation.flags, "NAME VERSION", "models promote panels 3")
    return promote(config, invocation.overrides, name, version)


def _models_rollback(config: Any, invocation: Invocation) -> str:
    from odtrain.promotion.promote import rollback

    return rollback(config, invocation.flags.name or config.registry.name)


def _models_download(config: Any, invocation: Invocation) -> str:
    from odtrain.registry.register import download
    from odtrain.tracking.store import tracking_uri

    flags = invocation.flags
    uri = flags.name or config.registry.name
    target = Path(flags.to or re.sub(r"[/@]", "-", uri.removeprefix("models:/")))
    copied = download(uri, target, tracking_uri(config.tracking), flags.format)
    return "\n".join(str(path) for path in copied)


def _two_words(flags: argparse.Namespace, what: str, example: str) -> tuple[str, str]:
    if flags.name is None or flags.other is None:
        raise ConfigError(
            f"models {flags.action}", f"needs {what}.", f"For example: odtrain {example}"
        )
    return flags.name, flags.other


MODEL_ACTIONS: dict[str, Callable[[Any, Invocation], str]] = {
    "list": _models_list,
    "show": _models_show,
    "compare": _models_compare,
    "promote": _models_promote,
    "rollback": _models_rollback,
    "download": _models_download,
}
"""What `odtrain models` does; each returns what is printed."""


def _models(config: Any, invocation: Invocation) -> int:
    name = invocation.flags.action
    if name not in MODEL_ACTIONS:
        choices = f"Choose one of: {', '.join(MODEL_ACTIONS)}."
        raise ConfigError(f"models {name}", "no such action.", choices)
    print(MODEL_ACTIONS[name](config, invocation))
    return 0


def _prelabel(config: Any, invocation: Invocation) -> int:
    action = invocation.flags.action
    if action is None:
        from odtrain.labelling.prelabel import prelabel

        print(prelabel(config))
    elif action == "merge":
        from odtrain.labelling.merge import merge

        print(merge(config))
    else:
        raise ConfigError(f"prelabel {action}", "no such action.", "Choose one of: merge.")
    return 0


def _report(config: Any, invocation: Invocation) -> int:
    from odtrain.jobs.run_report import write_report

    flags = invocation.flags
    to = Path(flags.to) if flags.to else None
    print(f"Written: {write_report(flags.run, config, to, flags.precision)}")
    return 0


def _track(config: Any, invocation: Invocation) -> int:
    from odtrain.promotion import promote as promotion

    flags = invocation.flags
    if flags.action != "sync":
        raise ConfigError(f"track {flags.action}", "no such action.", "Choose one of: sync.")
    folder = Path(flags.folder or config.outputs)
    print(promotion.sync_all(folder, config, config.tracking.uri))
    return 0


def _ui(config: Any, invocation: Invocation) -> int:
    from odtrain.tracking import store

    return store.run_ui(config.tracking, invocation.flags.port)


def _server(invocation: Invocation) -> int:
    from odtrain.tracking import server

    flags = invocation.flags
    where = (Path(flags.folder), flags.host, flags.port)
    return server.serve(*where, flags.database, flags.allowed_hosts, flags.workers)


COMMON_FLAGS: Flags = (
    ("--config-dir", {"metavar": "DIR", "help": "a folder of your own configs, beside conf/"}),
    ("--overrides", {"action": "append", "default": [], "help": '"a=1 b=2", several in one word'}),
    ("--cfg", {"action": "store_true", "help": "print the configuration and exit"}),
)

COMMANDS: dict[str, Command] = {
    "collect": Command(
        "pictures of folders, archives, videos and URLs, as DIR/img1.jpg, DIR/img2.jpg, ...",
        _collect,
        (
            ("source", {"nargs": "+", "help": "folder, archive, video, picture, list of URLs"}),
            ("--to", {"required": True, "metavar": "DIR", "help": "folder to add them to"}),
            (
                "--every",
                {"type": int, "default": 30, "metavar": "N", "help": "of a video, each N-th frame"},
            ),
            (
                "--near",
                {
                    "type": int,
                    "default": 26,
                    "metavar": "BITS",
                    "help": "set aside what differs in at most BITS of 256; 0: only exact copies",
                },
            ),
            (
                "--private",
                {"action": "store_true", "help": "URLs may lead to this machine and network"},
            ),
        ),
    ),
    "train": Command(
        "pictures and labels to a registered model, in one tracked run", _with_config(_train)
    ),
    "prepare": Command(
        "check labels; write CSV, label map and records",
        _with_config(_prepare),
        (
            (
                "--pictures",
                {"metavar": "DIR", "help": "draw charts, and what the network sees, to DIR"},
            ),
        ),
    ),
    "check": Command(
        "look for mistakes in pictures and labels; exit status 1 on errors",
        _with_config(_check),
        (
            ("--json", {"metavar": "FILE", "help": "write the findings to FILE"}),
            ("--html", {"metavar": "FILE", "help": "the same as a page with pictures"}),
            (
                "--fix",
                {
                    "nargs": "?",
                    "const": "",
                    "metavar": "DIR",
                    "help": "write a repaired copy to the new folder DIR, or to output=",
                },
            ),
        ),
    ),
    "convert": Command(
        "the labels at input=, whatever their format, as another one in the new folder output=",
        _with_config(_convert),
        (
            ("--to", {"metavar": "FORMAT", "help": "voc, yolo, coco or csv"}),
            ("--labels-only", {"action": "store_true", "help": "do not copy the pictures"}),
        ),
    ),
    "diff": Command(
        "two versions of a prepared data set: pictures, boxes and classes that changed",
        _diff,
        (
            ("first", {"help": "a folder that prepare wrote, or data/ of a run"}),
            ("second", {"help": "the same, later"}),
            ("--json", {"metavar": "FILE", "help": "write all that changed to FILE"}),
        ),
    ),
    "evaluate": Command(
        "COCO metrics of source=: a run, models:/, .pb, SavedModel or .tflite",
        _with_config(_evaluate),
    ),
    "export": Command("export the run source= again, into it or to output=", _with_config(_export)),
    "benchmark": Command("latency, size and memory of the file source=", _with_config(_benchmark)),
    "predict": Command(
        "draw what source= finds in input=; write CSV and JSON to output=", _with_config(_predict)
    ),
    "serve": Command(
        "a local page to drop pictures on, and REST, for source=", _with_config(_serve)
    ),
    "webcam": Command(
        "a local page: the live stream of input= with what source= sees", _with_config(_webcam)
    ),
    "sweep": Command(
        "many trainings, ending with the files that nothing beats; pick one, verify all",
        _with_config(_sweep),
        (
            ("action", {"nargs": "?", "help": "pick, verify, or nothing to run the sweep"}),
            ("--max-latency-ms", {"type": float, "metavar": "X", "help": "pick: at most so slow"}),
            ("--min-map", {"type": float, "metavar": "X", "help": "pick: the quickest of so good"}),
            ("--max-size-mb", {"type": float, "metavar": "X", "help": "pick: at most so large"}),
            ("--register", {"action": "store_true", "help": "pick: measure on test and register"}),
        ),
    ),
    "zoo": Command(
        "list the models; fetch NAME: their weights; verify NAME|PATH: prove them equal",
        _zoo,
        (
            ("action", {"nargs": "?", "default": "list", "help": "list, fetch or verify"}),
            ("name", {"nargs": "?", "help": "a model, or the path of a tarball or folder"}),
            (
                "--sort",
                {
                    "default": "name",
                    "metavar": "COLUMN",
                    "help": "name, input, depth, parameters, macs, map, ms or weights",
                },
            ),
        ),
    ),
    "import": Command(
        "a pipeline.config of the TensorFlow 1 Object Detection API as an experiment of odtrain",
        _with_config(_import),
        (
            ("file", {"help": "the pipeline.config"}),
            ("--to", {"default": "configs", "metavar": "DIR", "help": "folder of your configs"}),
            ("--name", {"metavar": "NAME", "help": "of the experiment; else that of the file"}),
        ),
    ),
    "models": Command(
        "list | show NAME | compare A B | promote NAME VERSION | rollback NAME | download URI",
        _with_config(_models),
        (
            ("action", {"help": "list, show, compare, promote, rollback or download"}),
            ("name", {"nargs": "?", "help": "a model; compare: A (run, models:/ or file)"}),
            ("other", {"nargs": "?", "help": "compare: B; promote: the version, or an alias"}),
            ("--to", {"metavar": "DIR", "help": "download: the folder"}),
            (
                "--format",
                {"metavar": "FORMAT", "help": "download, compare: one export format only"},
            ),
            ("--again", {"action": "store_true", "help": "compare: run and time both now"}),
        ),
    ),
    "prelabel": Command(
        "proposals of source= for new pictures input=, to correct in labelImg; merge: take them",
        _with_config(_prelabel),
        (("action", {"nargs": "?", "help": "merge, or nothing to make proposals"}),),
    ),
    "report": Command(
        "one HTML file that tells the run RUN, to send to people",
        _with_config(_report),
        (
            ("run", {"help": "its id"}),
            ("--to", {"metavar": "FILE", "help": "the file; report-ID.html if not given"}),
            (
                "--precision",
                {
                    "type": float,
                    "default": 0.9,
                    "metavar": "P",
                    "help": "that thresholds shall give",
                },
            ),
        ),
    ),
    "track": Command(
        "sync: send what was spooled while the tracking server was away",
        _with_config(_track),
        (
            ("action", {"help": "sync"}),
            ("folder", {"nargs": "?", "help": "of one run; without it, all runs here"}),
        ),
    ),
    "server": Command(
        "MLflow on PostgreSQL with an artifact store, for a team (docs/team.md)",
        _server,
        (
            ("--folder", {"default": "server", "metavar": "DIR", "help": "of all it keeps"}),
            ("--host", {"default": "127.0.0.1", "help": "address to listen at"}),
            ("--port", {"type": int, "default": 5000, "help": "to listen at"}),
            ("--database", {"metavar": "URI", "help": "to use instead of an own PostgreSQL"}),
            ("--allowed-hosts", {"metavar": "NAMES", "help": "by which clients call it"}),
            ("--workers", {"type": int, "default": 2, "help": "processes that answer"}),
        ),
    ),
    "ui": Command(
        "open MLflow's pages on the runs, and print the URL that compares them",
        _with_config(_ui),
        (("--port", {"type": int, "default": 5000, "help": "of the local server"}),),
    ),
}
