"""Passwords and tokens of addresses, hidden wherever an address is shown, logged, kept or given to a process.

A run keeps addresses without them: who goes on with it names the address again, by an override, in `conf/` or
in the environment.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from odtrain.addresses import with_slashes

HIDDEN = "***"
DATABASES = ("postgres", "mysql", "mariadb", "mssql", "oracle", "sqlite", "cockroachdb", "redis")
"""Schemes whose name of a user is none of the secret, and whose passwords may have any letter but @."""
WITHOUT_PASSWORD = ("", "x-oauth-basic", "x-token-auth")
"""What stands in the place of a password where the name before it is the token."""

ADDRESS = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.\-]{0,30}://|(?:https?|rtsps?|s?ftps?|s3|gs|az|postgres\w*|mysql)(?:\+\w{0,30})?:/)
    (?P<user>(?:(?!(?<=[,;()\[\]{}=|&])[a-z][a-z0-9+.\-]{0,30}://)(?:[^\s/?\#"'`]|["'`](?![,:;)\]}\s]|$)))*)
    (?P<rest>(?:(?!(?<=[,;()\[\]{}=|&])[a-z][a-z0-9+.\-]{0,30}://)(?:[^\s"'`]|["'`](?![,:;)\]}\s]|$)))*)""",
    re.I | re.X,
)
"""A path made of an address has one slash where it had two; of several, a comma or a bracket parts the next."""
NAMED = re.compile(
    r"""(?P<name>(?:[?&;\#]|%3B|%26)(?:[\w.\-\[\]]{0,60}(?:passw|passphrase|pwd|token|secret|signature|credential|auth|api-?key|access-?key|
    subscription-?key|jwt|session)[\w.\-\[\]]{0,60}|(?:[\w\-]{0,60}[_\-.])?(?:pass|sig|sas|key|code|pw))(?:=|%3D))[^\s&;\#"'<>`,\])}]+""",
    re.I | re.X,
)
"""A parameter of an address, which may be told without the address before it: `url: /a.jpg?token=T`."""
Value = TypeVar("Value")


def masked(text: str) -> str:
    """Any text with the secrets of the addresses in it replaced by `***`, and with their slashes."""
    if ":/" in text:
        text = ADDRESS.sub(_without_user, text)
    text = with_slashes(text)
    return NAMED.sub(rf"\g<name>{HIDDEN}", text) if "=" in text else text


def has_secret(text: str) -> bool:
    """Whether `masked` hides something of it."""
    return masked(text) != with_slashes(text)


def without_secrets(value: Value) -> Value:
    """The same value, each text in its lists and mappings `masked`."""
    found: Any = value
    if isinstance(value, str):
        found = masked(value)
    elif isinstance(value, Mapping):
        found = {key: without_secrets(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        found = type(value)(map(without_secrets, value))
    return found  # type: ignore[no-any-return]


def _without_user(found: re.Match[str]) -> str:
    scheme, user, rest = found["scheme"], found["user"], found["rest"]
    database = scheme.lower().startswith(DATABASES)
    if "@" not in user and "@" in rest and _ends_in_rest(user, database):
        more, _, rest = rest.rpartition("@")
        user = f"{user}{more}@"
    before, at, host = user.rpartition("@")
    if not at or before == HIDDEN:
        return f"{scheme}{user}{rest}"
    name, colon, password = before.partition(":")
    if database and not colon:
        return f"{scheme}{user}{rest}"
    shown = f"{name}:{HIDDEN}" if database or password not in WITHOUT_PASSWORD else HIDDEN
    return f"{scheme}{shown}@{host}{rest}"


def _ends_in_rest(user: str, database: bool) -> bool:
    """Whether a password goes on behind a / ? or # in it, rather than a host and its port ending there."""
    name, colon, port = user.partition(":")
    return bool(colon) and (database or not (port.isdigit() or name.startswith("[")))


# ---- errors that are not ours


def forget(problem: BaseException) -> None:
    """Mask what an error, and those that it came from, say: Python prints them as they are."""
    seen: set[int] = set()
    while id(problem) not in seen:
        seen.add(id(problem))
        problem.args = without_secrets(problem.args)
        problem = problem.__cause__ or problem.__context__ or problem


def hide_in_tracebacks() -> None:
    """Mask the tracebacks of this process that nobody catches."""
    sys.excepthook = _print_masked
    threading.excepthook = lambda told: _print_masked(
        told.exc_type, told.exc_value or told.exc_type(), told.exc_traceback
    )


def _print_masked(
    kind: type[BaseException], problem: BaseException, trace: TracebackType | None
) -> None:
    sys.stderr.write(masked("".join(traceback.format_exception(kind, problem, trace))))


# ---- the list of processes


def hide_arguments() -> None:
    """Mask this process's own arguments, which everybody on the machine can read, where the system lets it."""
    if not any(map(has_secret, sys.argv)):
        return
    try:
        status = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        begin, end = int(status[45]), int(status[46])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(begin)
            given = memory.read(end - begin).split(b"\0")
            shown = b"\0".join(os.fsencode(masked(os.fsdecode(each))) for each in given)
            memory.seek(begin)
            memory.write(shown[: end - begin].ljust(end - begin, b"\0"))
    except (OSError, ValueError, IndexError):  # no Linux, or a hardened one
        return
