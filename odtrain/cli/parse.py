"""Takes what the user typed apart: the action, its flags and words, and overrides."""

from __future__ import annotations

import argparse
import shlex
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from odtrain.cli.commands import COMMANDS, load, no_such, owners
from odtrain.command import COMMON_FLAGS, Action, Command, Flag, Invocation
from odtrain.errors import ConfigError

HELP = ("-h", "--help")
VERBOSITY = {"-v": 1, "--verbose": 1, "-q": -1, "--quiet": -1}
"""What of all commands says how much is told: details, or warnings alone."""

IN_SIGHT = "--auth-token"
"""No flag: whoever looks at the list of processes would read it."""


@dataclass
class Typed:
    """Tokens by kind.

    Attributes:
        words: neither flags nor their values nor overrides, in order.
        flags: each with its value, in order.
        overrides: as `key=value`.
        help: whether help is asked for.
        verbosity: as `odtrain.system.logs.show` takes it.
    """

    words: list[str] = field(default_factory=list)
    flags: list[tuple[str, ...]] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    help: bool = False
    verbosity: int = 0

    @property
    def config_dir(self) -> str | None:
        """The folder of the user's own configs."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config-dir", nargs="?")
        tokens = [token for one in self.flags for token in one]
        found: str | None = parser.parse_known_args(tokens)[0].config_dir
        return found


@dataclass(frozen=True)
class Asked:
    """A well-formed command line.

    Attributes:
        name: of the command.
        word: that names the action; "" for the one without.
        typed: the tokens.
    """

    name: str
    word: str
    typed: Typed

    @property
    def action(self) -> Action:
        """What is to be done."""
        return load(self.name).actions[self.word]

    @property
    def title(self) -> str:
        """The command with its action."""
        return f"{self.name} {self.word}".rstrip()

    def invocation(self) -> Invocation:
        """The flags' values and the overrides.

        Raises:
            ConfigError: a word is missing or too much, a value is of the wrong type.
        """
        parser, by_word = parsers(self.name, load(self.name))
        own = [*self.typed.words, *(token for one in self.typed.flags for token in one)]
        flags = by_word.get(self.word, parser).parse_args(own)
        return Invocation(flags, [*self.typed.overrides, *_in_one_word(flags)])


def parse(arguments: Sequence[str]) -> Asked:
    """Take a command line apart.

    Raises:
        ConfigError: no such command or action, or a flag that it does not have.
    """
    name, *rest = arguments
    command = load(name)
    typed = taken_apart(rest, command.flags)
    asked = Asked(name, _action(name, command, typed), typed)
    if not typed.help:
        _check_flags(asked)
    return asked


def taken_apart(rest: Sequence[str], flags: Mapping[str, Flag]) -> Typed:
    """The tokens behind a command's name, by kind.

    `--key value` and `--key=value` are overrides too, unless odtrain has a flag of that name: that is how
    `mlflow run -P key=value` passes them on.

    Raises:
        ConfigError: a value is missing, or is a secret that must not stand there.
    """
    typed, pending = Typed(), deque(rest)
    while pending:
        token = pending.popleft()
        name, has_value, _ = token.partition("=")
        if name == IN_SIGHT:
            problem = "is not taken: everybody on this machine can read the words of a command."
            raise ConfigError(name, problem, "Give --auth-token-file FILE, or ODTRAIN_AUTH_TOKEN.")
        if token in HELP:
            typed.help = True
        elif token in VERBOSITY:
            typed.verbosity += VERBOSITY[token]
        elif name in flags or (name.startswith("--") and _is_flag(name)):
            takes_next = not has_value and pending and _takes(flags.get(name), pending[0])
            typed.flags.append((token, pending.popleft()) if takes_next else (token,))
        elif name.startswith("--"):
            if not has_value and not pending:
                raise ConfigError(token, "has no value.", "Give --key value, or key=value.")
            typed.overrides.append(token[2:] if has_value else f"{token[2:]}={pending.popleft()}")
        elif has_value and "://" not in name:  # a URL may have = behind its ?
            typed.overrides.append(token)
        else:
            typed.words.append(token)
    return typed


def parsers(name: str, command: Command) -> tuple[argparse.ArgumentParser, dict[str, Parser]]:
    """Argparse's parser of a command, and those of its named actions."""
    top = Parser(prog=f"odtrain {name}", description=COMMANDS[name][1], allow_abbrev=False)
    if "" in command.actions:
        top.take(command.actions[""])
    if not command.named:
        return top, {}
    below = top.add_subparsers(title="actions", metavar="ACTION")
    return top, {
        word: below.add_parser(
            word, help=action.help, description=action.help, allow_abbrev=False
        ).take(action)
        for word, action in command.named.items()
    }


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are ours: one screen, exit status 1."""

    action = Action(lambda invocation: 0)

    def take(self, action: Action) -> Parser:
        """Let it have the flags of an action."""
        self.action = action
        for each in action.all_flags:
            self.add_argument(each.name, **each.options)
        return self

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        if self.action.example and "arguments are required" in message:
            words = [each.options["metavar"] for each in self.action.flags if each.is_word]
            where, problem = self.prog.removeprefix("odtrain "), f"needs {' '.join(words)}."
            raise ConfigError(where, problem, f"For example: odtrain {self.action.example}")
        raise ConfigError(self.prog, message, self.format_usage().strip())


def _is_flag(name: str) -> bool:
    return name in [each.name for each in COMMON_FLAGS] or bool(owners(name))


def _takes(its: Flag | None, token: str) -> bool:
    """Whether a flag takes the next token; one that this command does not have is refused anyway."""
    if its is None or its.may_be_bare:
        return not (its and its.is_switch) and not token.startswith("-") and "=" not in token
    return True


def _action(name: str, command: Command, typed: Typed) -> str:
    """The word that names the action, taken from the words."""
    if command.named and typed.words:
        word = typed.words.pop(0)
        if word not in command.named:
            raise no_such("action", word, command.named, f"{name} {word}")
        return word
    if typed.help:
        return ""
    if command.default is None:
        raise ConfigError(name, "needs an action.", f"Choose one of: {', '.join(command.named)}.")
    return command.default


def _check_flags(asked: Asked) -> None:
    own, title = {each.name for each in asked.action.all_flags}, asked.title
    remedy = f"odtrain {title} --help lists its flags."
    if asked.typed.overrides and not asked.action.settings:
        raise ConfigError(asked.typed.overrides[0], f"{title} has no settings.", remedy)
    for token, *_ in asked.typed.flags:
        name = token.partition("=")[0]
        if name not in own:
            whose = ", ".join(owners(name, asked.name))
            problem = f"{name} is a flag of {whose}." if whose else f"{title} has no settings."
            raise ConfigError(f"odtrain {title}" if whose else name, problem, remedy)


def _in_one_word(flags: argparse.Namespace) -> list[str]:
    """The overrides that `--overrides "a=1 b=2"` gives."""
    overrides = []
    for several in getattr(flags, "overrides", ()):
        try:
            overrides += shlex.split(several)
        except ValueError as error:
            where, remedy = f"--overrides {several}", "Close every quote, or double it."
            raise ConfigError(where, f"{error}.", remedy) from None
    return overrides
