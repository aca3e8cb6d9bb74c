"""Single files of the web: brought here once for each version, gone on with where a connection broke."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests

from odtrain.addresses import with_slashes
from odtrain.errors import CheckpointError, DataError
from odtrain.io.download import TIMEOUT_SECONDS, Wanted, complete, session
from odtrain.io.http_errors import reason
from odtrain.io.locks import alone
from odtrain.io.remote import cache
from odtrain.io.remote.store import FileStat

BY_HAND = "Is the address right? The same command goes on from what came."


def stat(file: Path) -> FileStat | None:
    """Size (-1 where it is not said) and version of what lies at an address; None where nothing does.

    Raises:
        DataError: the server refuses, or is away.
    """
    url = with_slashes(str(file))
    try:
        with (
            session() as asking,
            asking.get(
                url, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT_SECONDS
            ) as answer,
        ):
            if answer.status_code in (requests.codes.not_found, requests.codes.gone):
                return None
            answer.raise_for_status()
            told = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            size = answer.headers.get("Content-Length", "")
            digest = hashlib.sha256(f"{told} {size}".encode()).digest()
            return int(size) if size.isdecimal() else -1, int.from_bytes(digest[:5], "big") * 1000
    except requests.RequestException as error:
        raise DataError(url, f"cannot be fetched: {reason(error, str(error))}.", BY_HAND) from None


def brought(file: Path) -> Path:
    """The copy of what lies at an address now.

    Raises:
        FileNotFoundError: nothing does.
        DataError: the server refuses or is away, or the disk is full.
    """
    url, now = with_slashes(str(file)), stat(file)
    if now is None:
        raise FileNotFoundError(2, "no such file", url)
    copy = _place(url)
    with alone(copy.with_name(f"{copy.name}.lock")):
        size = copy.stat().st_size if copy.is_file() else -1
        if cache.is_of(copy, (size if now[0] < 0 else now[0], now[1])):
            return copy
        # Of this version alone: one that was begun of another is none of this one's beginning.
        wanted = Wanted((url,), copy.with_name(f"{copy.name}.{now[1]}"), None, BY_HAND)
        try:
            complete(wanted, url)
        except requests.RequestException as error:
            problem = f"cannot be fetched: {reason(error, str(error))}."
            raise DataError(url, problem, BY_HAND) from None
        except CheckpointError as error:
            raise DataError(*error.args) from None
        had = wanted.part.stat().st_size
        if now[0] >= 0 and had != now[0]:
            wanted.part.unlink()
            raise DataError(url, "changed while it was fetched.", "Run the command again.")
        cache.keep(copy, (had, now[1]), partial(_move, wanted.part))
        wanted.version.unlink(missing_ok=True)
    return copy


def _move(part: Path, copy: Path) -> None:
    part.replace(copy)


def _place(url: str) -> Path:
    parts = urlsplit(url)
    name = PurePosixPath(parts.path).name or "download"
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache.root() / parts.scheme / (parts.hostname or "host") / folder / name
