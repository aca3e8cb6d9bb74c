"""Who may call a server on this machine.

Browsers send what any page tells them to, also to servers on this machine. So a request must name this
server as its host (a foreign name that points here is refused: DNS rebinding) and, where it comes from a
page, that page must be this server's own (cross-site request forgery).

Who has to show a token shows it as `Authorization: Bearer TOKEN`, or as the password of any name, for which
browsers ask (RFC 6750 and 7617). It is never in the list of processes: a file or the environment has it.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import os
import socket
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from odtrain_runtime.errors import OdtrainError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN_VARIABLE = "ODTRAIN_AUTH_TOKEN"
SHORTEST_TOKEN = 16
"""Letters; a shorter one could be guessed."""
MAKE_ONE = "python -c 'import secrets; print(secrets.token_urlsafe())' makes one."
CHALLENGE = {"WWW-Authenticate": 'Basic realm="odtrain", charset="UTF-8"'}
"""Headers of a refusal, for which a browser asks its user."""
NO_TOKEN = "This server wants its token: Authorization: Bearer TOKEN."
OPEN = ("/health",)
"""Paths that need no token: they say nothing but that the server lives."""


class TokenError(OdtrainError):
    """A token cannot be read, or is none."""


def own_names(host: str, allowed: Iterable[str]) -> frozenset[str]:
    """By which a server at the address `host` may be called, in lower case: its own and what is allowed."""
    names = (*LOOPBACK, host, socket.gethostname(), *allowed)
    return frozenset(name.lower() for name in names)


def refusal(
    header: Callable[[str], str | None], names: Container[str], addresses: bool
) -> str | None:
    """Why a request is not answered; None where it is.

    Args:
        header: the request's header of a name, in any case.
        names: by which the server may be called, in lower case, without ports.
        addresses: whether any IP address is such a name: no foreign page has one of this machine.
    """
    host = header("host") or ""
    name = _name_of(host)
    if name not in names and not (addresses and _is_address(name)):
        return f"This server is not called {host or 'nothing'}.\n"
    if foreign_origin(header) or header("sec-fetch-site") == "cross-site":
        return "Other sites may not use this server.\n"
    return None


def foreign_origin(header: Callable[[str], str | None]) -> bool:
    """Whether a request comes from a page, and that is not this server's own."""
    origin, host = header("origin"), header("host") or ""
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def _name_of(host: str) -> str:
    """A Host header without its port, in lower case."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that enclose no address
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# ---- tokens


def read_token(file: Path | None) -> str | None:
    """The token that callers must show: of a file, else of ODTRAIN_AUTH_TOKEN; None where neither is.

    Raises:
        TokenError: it cannot be read, is too short, or has letters that a header cannot carry.
    """
    if file is None and TOKEN_VARIABLE not in os.environ:
        return None
    where = TOKEN_VARIABLE if file is None else f"--auth-token-file {file}"
    try:
        given = os.environ[TOKEN_VARIABLE] if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise TokenError(where, f"cannot be read: {reason}.", MAKE_ONE) from None
    token = given.strip()
    if len(token) < SHORTEST_TOKEN:
        problem = f"the token has {len(token)} letters, fewer than {SHORTEST_TOKEN}."
        raise TokenError(where, problem, MAKE_ONE)
    if not all("!" <= letter <= "~" for letter in token):
        raise TokenError(where, "the token has blanks, or letters that are not ASCII.", MAKE_ONE)
    return token


def shows(header: Callable[[str], str | None], token: str) -> bool:
    """Whether a request shows the token."""
    kind, _, shown = (header("authorization") or "").partition(" ")
    if kind.lower() == "basic":
        shown = _password(shown.strip())
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.strip().encode("utf-8", "replace"), token.encode())


def _password(credentials: str) -> str:
    """Of `name:password` in base64; empty where it is none."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
