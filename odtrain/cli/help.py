"""What `--help` says: of all commands, or of one with the settings that it reads."""

from __future__ import annotations

import functools
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from odtrain.cli.commands import COMMANDS, load
from odtrain.cli.parse import Asked, parsers
from odtrain.config.shipped import conf, groups
from odtrain.errors import ConfigError

if TYPE_CHECKING:
    from odtrain.config.schema import Config

COLUMN = 36
"""Where comments begin, behind a setting that is shorter."""
WIDEST = 112
"""Characters of a line, on a terminal that has more."""
LONGEST_VALUE = 60
"""Characters of a default that are shown."""


def overview() -> str:
    """All commands, and the groups with their choices."""
    lines = ["usage: odtrain COMMAND [key=value ...]", "", "commands:"]
    lines += [f"  {name:<10} {line}" for name, (_, line) in COMMANDS.items()]
    lines += ["", "configuration groups and their choices (odtrain COMMAND group=choice):"]
    lines += [f"  {name:<10} {', '.join(given)}" for name, given in groups([conf()]).items()]
    lines += [
        "",
        "-v tells details too, -q warnings alone; what was told in a run is in its run.log.",
        "odtrain COMMAND --help: its actions, flags and settings, with what each setting is.",
        f"Every key is explained in {conf()}; odtrain COMMAND --cfg prints them all.",
        '--config-dir DIR adds your own configs; --overrides "a=1 b=2" gives several in one word.',
    ]
    return "\n".join(lines)


def of_command(asked: Asked) -> str:
    """One command or action: usage, flags, and the settings that it reads with their values."""
    command = load(asked.name)
    parser, by_word = parsers(asked.name, command)
    action = command.actions.get(asked.word)
    lines = [by_word.get(asked.word, parser).format_help()]
    if action and action.settings:
        lines += [
            "settings, as key=value behind the command; --cfg prints the whole configuration:"
        ]
        lines += _settings(action.settings, asked)
    if command.named and not asked.word:
        lines.insert(1, f"odtrain {asked.name} ACTION --help: its flags and settings.\n")
    return "\n".join(lines).rstrip()


def _settings(wanted: Sequence[str], asked: Asked) -> Iterator[str]:
    """Settings by group, as lines, with the values that what was typed beside `--help` gives them."""
    from odtrain.config.comments import group_comments, key_comments
    from odtrain.config.schema import keys

    config = _composed(asked)
    comments, groups = key_comments(conf()), group_comments(conf())
    heading = None
    for group, key in _by_group(wanted, list(keys())):
        if group != heading and group:
            choice, said = groups[group]
            taken = "" if choice == "default" else f"; {group}={choice} if not given"
            yield f"\n{group}: {said}{taken}"
        heading = group
        value = functools.reduce(getattr, key.split("."), config)
        yield from _setting(f"{key}={shown(value)}", comments.get(key, ""))


def _composed(asked: Asked) -> Config:
    """What was typed as a configuration; where that has a mistake, the one without it."""
    from odtrain.config.compose import compose_config

    try:
        return compose_config(asked.typed.overrides, asked.typed.config_dir)
    except ConfigError:
        return compose_config([])


def _by_group(wanted: Sequence[str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """Keys with their groups, those without one first."""
    chosen = [key for name in wanted for key in keys if f"{key}.".startswith(f"{name}.")]
    pairs = [("" if "." not in key else key.partition(".")[0], key) for key in chosen]
    return sorted(pairs, key=lambda pair: pair[0] != "")


def _setting(setting: str, said: str) -> list[str]:
    """One setting, and beside it what is said of it."""
    first = f"  {setting}"
    width = min(WIDEST, shutil.get_terminal_size().columns)
    if not said:
        return [first]
    if len(first) > COLUMN - 2:
        return [first, *_wrapped(said, " " * COLUMN, width)]
    return _wrapped(said, f"{first:<{COLUMN}}", width)


def _wrapped(text: str, first: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, COLUMN + 40),
        initial_indent=first,
        subsequent_indent=" " * COLUMN,
        break_on_hyphens=False,
    )


def shown(value: Any) -> str:
    """A value as an override gives it, cut where it is long."""
    text = _written(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_written(each)}' for key, each in value.items())}}}"
    return str(value)
