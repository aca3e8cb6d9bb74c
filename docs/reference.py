"""Makes the reference pages of the site: settings, commands, Python. What they say is in the code.

    python docs/reference.py DIR

writes them below DIR, to look at; `mkdocs build` makes them itself.
"""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from odtrain.cli.commands import COMMANDS, load
from odtrain.cli.help import shown
from odtrain.cli.parse import parsers
from odtrain.command import Action, Flag
from odtrain.config.comments import group_comments, key_comments
from odtrain.config.compose import compose_config
from odtrain.config.schema import Rules, keys, rules
from odtrain.config.shipped import choices, conf

KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: ""}
HERE = f"{conf().parent}/"
"""Where the shipped pictures are on this machine, which says nothing to a reader."""
GENERAL = "general"
"""The heading of the keys that are in no group."""


def pages() -> dict[str, str]:
    """Every page, by its path on the site."""
    return {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/api.md": API,
    }


# ---- settings


def settings_page() -> str:
    """Every key of the configuration, by group: value, type, what it is, and what it may be."""
    config, said, told = compose_config([]), key_comments(conf()), group_comments(conf())
    sections = [key.partition(".")[0] for key in keys() if "." in key]
    lines = [SETTINGS]
    for group in [*dict.fromkeys([*sections, *told]), GENERAL]:
        lines += _group(group, told)
        for key, kind in keys().items():
            if group == (key.partition(".")[0] if "." in key else GENERAL):
                value = functools.reduce(getattr, key.split("."), config)
                lines += _setting(key, kind, shown(value), said.get(key, "–"))
    return "\n".join(lines)


def _setting(key: str, kind: Any, value: str, said: str) -> Iterator[str]:
    yield f"`{key}={value.replace(HERE, '')}`{{ #{key} }} {may_be(kind, rules(key))}"
    yield f":   {escaped(said)}\n"


def _group(group: str, told: dict[str, tuple[str, str]]) -> Iterator[str]:
    yield f"## {group}\n"
    if group not in told:
        return
    choice, said = told[group]
    yield f"{_sentence(said)}\n"
    if choice == "null" or len(choices(group, [conf()])) > 1:
        yield f"`{group}=` is one of these; `{choice}` if not given:\n"
        yield from (_choice(group, name) for name in choices(group, [conf()]))
        yield ""


def _choice(group: str, name: str) -> str:
    """A choice with the comment that begins its file, up to the first full stop."""
    said = []
    for line in (conf() / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("# @"):
            if not line.startswith("# "):
                break
            said.append(line[2:])
    first = " ".join(said).partition(". ")[0].rstrip(".")
    return f"- `{name}`: {escaped(first)}"


def may_be(kind: Any, rule: Rules) -> str:
    """What a value of a key may be, in words."""
    words = _kind(kind)
    if "choices" in rule:
        words = "one of " + ", ".join("null" if one is None else one for one in rule["choices"])
    if "each_of" in rule:
        words = "list of " + ", ".join(rule["each_of"])
    if "at_least" in rule:
        words += f", at least {rule['at_least']}"
    if "fraction" in rule:
        words += ", 0 to 1" if rule["fraction"] == "all" else ", 0 to less than 1"
    return words


def _kind(kind: Any) -> str:
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in get_args(kind))
    if kind is type(None):
        return "null"
    if get_origin(kind) in (list, dict):
        return "list" if get_origin(kind) is list else "mapping"
    return KINDS.get(kind, "section")


def escaped(text: str) -> str:
    """Text of a comment as Markdown: what looks like HTML or emphasis, outside of code, is only text."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([<>*_|\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _sentence(text: str) -> str:
    whole = text if text.endswith(".") else f"{text}."
    return escaped(whole[0].upper() + whole[1:])


# ---- commands


def commands_page() -> str:
    """Every command with its actions, their words and flags, and the settings they read."""
    lines = [COMMANDS_HEAD]
    for name, (_, said) in COMMANDS.items():
        command = load(name)
        lines += [f"## {name}\n", f"{_sentence(said)}\n"]
        top, below = parsers(name, command)
        for word, action in command.actions.items():
            lines += [f"### {name} {word}\n", f"{_sentence(action.help)}\n"] if word else []
            lines += _action(below.get(word, top).format_usage(), action)
    return "\n".join(lines)


def _action(usage: str, action: Action) -> Iterator[str]:
    words = " ".join(usage.removeprefix("usage: ").split()).replace("[-h] ", "")
    yield f"```text\n{words}{' [key=value ...]' if action.settings else ''}\n```\n"
    for flag in action.flags:
        yield f"`{_spelled(flag)}`\n:   {escaped(flag.options['help'])}\n"
    if action.settings:
        read = ", ".join(f"[`{name}`](settings.md#{name})" for name in action.settings)
        yield f"Reads {read}.\n"


def _spelled(flag: Flag) -> str:
    value = flag.options.get("metavar") or "|".join(map(str, flag.options.get("choices", ())))
    if flag.is_word or flag.is_switch:
        return str(value) if flag.is_word and value else flag.name
    return f"{flag.name} {value or flag.name.lstrip('-').upper()}"


def _write(folder: Path, made: dict[str, str]) -> None:
    for uri, text in made.items():
        file = folder / uri
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    """Write every page below the folder that is named."""
    _write(Path(arguments[0]), pages())


SETTINGS = """# Settings

Any of these is `key=value` behind a command, and `odtrain train --cfg` prints them all. Values are
those of the default configuration; `model=`, `experiment=`, `augment=` and `sweep=` bring values of
their own: `odtrain train --help model=NAME` shows what then holds. What is said of them is from the
files in `conf/`, types and bounds from `odtrain/config/schema.py`.
"""
COMMANDS_HEAD = """# Commands

`odtrain COMMAND --help` says the same in a terminal, with the value of each setting. Of every
command: `-v` tells details too, `-q` warnings alone. Commands that read settings take `--config-dir DIR`
(a folder of your own configs, beside `conf/`), `--overrides "a=1 b=2"` (several in one word) and
`--cfg` (print the configuration and exit).
"""
API = """# Python

What `import odtrain` gives. `overrides` are what the command takes: `["train.steps=100", "data.name=mine"]`.

::: odtrain.api.train

::: odtrain.api.evaluate

::: odtrain.api.check

::: odtrain.api.prepare

::: odtrain.api.compose

::: odtrain.api.load

::: odtrain.api.Detector

::: odtrain.api.Detections

## What is returned and raised

::: odtrain.jobs.train.TrainResult

::: odtrain.jobs.evaluate.EvaluateResult

::: odtrain.findings.Finding

::: odtrain.errors.OdtrainError

## odtrain_runtime

Files alone, without TensorFlow and MLflow.

::: odtrain_runtime.predictor.load

::: odtrain_runtime.predictor.Detector

::: odtrain_runtime.structures.Detections
"""

if __name__ == "__main__":
    main(sys.argv[1:])
