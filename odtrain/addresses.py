"""Addresses of object stores and of the web, which travel as paths.

`Path` makes `s3:/bucket/a.jpg` of `s3://bucket/a.jpg`. In that form an address has a name, a suffix and a
folder as any file has; `odtrain.io.remote` reads and writes what it names, and people are shown the address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STORES = ("s3", "gs", "az")
WEB = ("http", "https")
REMOTE = re.compile(r"(s3|gs|az|https?):/")
ONE_SLASH = re.compile(r"(?<![\w+.\-])(s3|gs|az|https?):/(?=[^/\s])")

_TOLD_AS: dict[str, str] = {}


def is_remote(place: str | Path) -> bool:
    """Whether an address, or the path made of one, is elsewhere."""
    return REMOTE.match(str(place)) is not None


def is_in_store(place: str | Path) -> bool:
    """Whether it is in an object store."""
    return is_remote(place) and scheme_of(place) in STORES


def scheme_of(place: str | Path) -> str:
    """`s3` of `s3://bucket/a.jpg`."""
    return str(place).partition(":")[0]


@contextmanager
def told_as(folder: Path, address: str) -> Iterator[None]:
    """Meanwhile a folder here stands in for an address, and people are shown that."""
    _TOLD_AS[str(folder)] = address
    try:
        yield
    finally:
        del _TOLD_AS[str(folder)]


def with_slashes(text: str) -> str:
    """Any text with its addresses as people write them: with both slashes."""
    for folder, address in _TOLD_AS.items():
        text = text.replace(folder, address)
    return ONE_SLASH.sub(r"\1://", text) if ":/" in text else text
