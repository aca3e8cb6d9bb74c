"""What a command is. Each room that has some declares them in its `command.py`, beside what they run.

Imports nothing heavy: help, completion and refusals know all commands before anything runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from odtrain.addresses import is_in_store
from odtrain.io.patience import one_patience
from odtrain.secrets import masked
from odtrain.system.garbage import seldom_collecting
from odtrain.system.telemetry import allow_telemetry
from odtrain_runtime.plain import plain_lines

if TYPE_CHECKING:
    from odtrain.config.schema import Config


@dataclass(frozen=True)
class Invocation:
    """What the user typed, taken apart."""

    flags: argparse.Namespace
    overrides: list[str]


@dataclass(frozen=True)
class Composed(Invocation):
    """What the user typed, and the configuration that it makes.

    Attributes:
        config: with all that was `auto` settled.
        settled: the overrides that make it.
    """

    config: Config
    settled: list[str]


Settle: TypeAlias = "Callable[[Config, list[str], str | None], tuple[Config, list[str]]]"
"""Given what was composed, the overrides and the folder of the user's own configs: what takes their place."""


@dataclass(frozen=True)
class Flag:
    """A flag, as `--to`, or a word, as `file`; options are those of argparse's `add_argument`."""

    name: str
    options: Mapping[str, Any]

    @property
    def is_word(self) -> bool:
        """Whether it is a word that stands by itself."""
        return not self.name.startswith("-")

    @property
    def is_switch(self) -> bool:
        """Whether it has no value."""
        return self.options.get("action") in ("store_true", "help")

    @property
    def may_be_bare(self) -> bool:
        """Whether it may stand without its value."""
        return self.is_switch or self.options.get("nargs") == "?"


def flag(name: str, help: str, **options: Any) -> Flag:
    """A flag or a word, with one line of help."""
    return Flag(name, {"help": help, **options})


@dataclass(frozen=True)
class Action:
    """One thing that a command does.

    Attributes:
        run: returns the exit status.
        help: one line; of a command's only action, the command's own line says it.
        flags: its own flags and words.
        settings: groups and keys of the configuration that it reads, the important ones first; an
            action without any takes no overrides.
        example: a command line, for who left out a word.
        stays: whether it runs until somebody ends it.
    """

    run: Callable[[Invocation], int]
    help: str = ""
    flags: tuple[Flag, ...] = ()
    settings: tuple[str, ...] = ()
    example: str = ""
    stays: bool = False

    @property
    def all_flags(self) -> tuple[Flag, ...]:
        """Its own, and those of every action that reads settings."""
        return (*self.flags, *(COMMON_FLAGS if self.settings else ()))


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        actions: by the word that names them; "" is what is done without one.
        default: the action without such a word; None where there must be one.
    """

    actions: Mapping[str, Action]
    default: str | None = ""

    @property
    def named(self) -> dict[str, Action]:
        """The actions that a word names."""
        return {name: action for name, action in self.actions.items() if name}

    @property
    def flags(self) -> dict[str, Flag]:
        """All flags of all actions, by name."""
        flags = [each for action in self.actions.values() for each in action.all_flags]
        return {each.name: each for each in flags if not each.is_word}


def say(text: str) -> None:
    """Print what a command found: names in it may be strangers', addresses may hold secrets."""
    from odtrain.system.progress import aside

    with aside():
        show(masked(plain_lines(text)))


def show(text: str) -> None:
    """Print what may be long; who reads it may stop before the end, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered


def with_config(
    run: Callable[[Composed], int], settle: Settle | None = None
) -> Callable[[Invocation], int]:
    """Compose the configuration first, and `settle` it; print it and stop if `--cfg` was given."""

    def composed(invocation: Invocation) -> int:
        from odtrain.config.compose import as_yaml, compose_config

        flags, overrides = invocation.flags, invocation.overrides
        config, settled = compose_config(overrides, flags.config_dir, aloud=True), overrides
        if settle is not None:
            config, settled = settle(config, overrides, flags.config_dir)
        if flags.cfg:
            show(as_yaml(config).rstrip("\n"))
            return 0
        allow_telemetry(config.tracking.telemetry)

        def run_with(output: str | None) -> int:
            return run(Composed(flags, overrides, replace(config, output=output), settled))

        if config.output is None or not is_in_store(config.output):
            return run_with(config.output)
        from odtrain.io.remote.outputs import written_there

        status, said = written_there(config.output, masked("\n".join(sys.argv[1:])), run_with)
        if said:
            say(said)
        return status

    return composed


def prints(
    text_of: Callable[[Composed], str], settle: Settle | None = None
) -> Callable[[Invocation], int]:
    """As `with_config`; prints what the function returns."""

    def run(given: Composed) -> int:
        say(text_of(given))
        return 0

    return with_config(run, settle)


def looks(run: Callable[[Invocation], int]) -> Callable[[Invocation], int]:
    """For what asks a store and does little else: it is waited for together, however much is asked.

    Half of its time goes into imports, whose objects stay: there is little to be collected.
    """

    def patient(invocation: Invocation) -> int:
        with one_patience(), seldom_collecting():
            return run(invocation)

    return patient


COMMON_FLAGS = (
    flag("--config-dir", "a folder of your own configs, beside conf/", metavar="DIR"),
    flag("--overrides", '"a=1 b=2", several in one word', action="append", default=[]),
    flag("--cfg", "print the configuration and exit", action="store_true"),
)
"""Of every action that reads settings."""
