"""Whether weights can be had: each address is asked, and nothing of the weights is fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import requests

from odtrain.io.http_errors import reason, status
from odtrain.io.markdown import table
from odtrain.io.packages import LockedError, PackageError, UnreachedError, check, packaged
from odtrain.secrets import masked
from odtrain.system.progress import Bar
from odtrain.zoo.catalog import closed_lines, model_names, no_model, no_weights, settings_of

ALIVE, DEAD, CLOSED, UNREACHED = "alive", "dead", "closed", "not reached"
SECONDS = (10, 20)
"""To connect, and to the first bytes."""
LOCKED = (401, 402, 403, 407, 451)
"""Answers of a server that has it and does not give it (RFC 9110, RFC 7725)."""
GZIP = b"\x1f\x8b"


class Answer(NamedTuple):
    """What an address said.

    Attributes:
        state: alive, dead (it is reached and has not the file), closed (it does not give it) or not reached.
        why: in a few words; empty where it is alive.
    """

    state: str
    why: str = ""


def status_table(names: Sequence[str], config_dir: str | None = None) -> str:
    """Ask each address of these models, all where none is named; a Markdown table, and what is closed.

    Raises:
        ConfigError: no such model, or one without published weights.
    """
    known = model_names(config_dir)
    for name in names:
        if name not in known:
            raise no_model(f"zoo status {name}", "no such model.", known)
    entries = {name: settings_of(name, config_dir)["zoo"] for name in names or known}
    published = {name: entry for name, entry in entries.items() if entry is not None}
    if not published:
        raise no_weights(names[0])
    asked = [(name, each) for name, entry in published.items() for each in entry["sources"]]
    with Bar[tuple[str, str]](asked, doing="Asking", unit="source") as bar:
        rows = list(_rows(bar))
    lines = [*table(["model", "address", "answer", "why"], rows), *closed_lines(published)]
    return "\n".join(lines)


def _rows(asked: Bar[tuple[str, str]]) -> Iterator[list[str]]:
    answers: dict[str, Answer] = {}
    for name, source in asked:
        if source not in answers:
            answers[source] = ask(source)
        yield [name, masked(source), *answers[source]]


def ask(source: str) -> Answer:
    """What one address answers; an index of packages is asked for the version alone."""
    package = packaged(source)
    if package is None:
        return _ask_server(source)
    try:
        check(package)
    except UnreachedError as error:
        return Answer(UNREACHED, masked(str(error)))
    except LockedError as error:
        return Answer(CLOSED, masked(str(error)))
    except PackageError as error:
        return Answer(DEAD, masked(str(error)))
    return Answer(ALIVE)


def _ask_server(url: str) -> Answer:
    headers = {"Range": "bytes=0-1", "Accept-Encoding": "identity"}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=SECONDS) as answer:
            if answer.status_code in LOCKED:
                return Answer(CLOSED, status(answer))
            if answer.status_code >= 500:
                return Answer(UNREACHED, status(answer))
            if not answer.ok:
                return Answer(DEAD, status(answer))
            head = next(answer.iter_content(2), b"")
    except requests.RequestException as error:
        return Answer(UNREACHED, reason(error, "no connection to the server"))
    if url.endswith(("gz", "tgz")) and not head.startswith(GZIP):
        return Answer(CLOSED, "what it sends is no .tar.gz: a page that asks to sign in, perhaps")
    return Answer(ALIVE)
