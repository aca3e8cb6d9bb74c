"""Who may call a server on this machine.

Browsers send what any page tells them to, also to servers on this machine. So a request must name this
server as its host (a foreign name that points here is refused: DNS rebinding) and, where it comes from a
page, that page must be this server's own (cross-site request forgery).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Container, Iterable
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
