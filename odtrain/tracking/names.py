"""Texts and names as MLflow takes them."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterator, Mapping

LONGEST_PARAM = 6000
LONGEST_NAME = 250
LONGEST_DIGEST = 36
MOST_PARAMS = 100
"""MLflow's limits."""

LONGEST_IMAGE_KEY = 100


def as_text(value: object) -> str:
    """A value as it would be written in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(as_text(item) for item in value)}]"
    return str(value)


@functools.lru_cache(maxsize=4096)
def metric_name(name: str) -> str:
    """`name` with what MLflow refuses spelled by code point: `AP/*` becomes `AP/_2a`."""
    spelled = re.sub(r"[^/\w.\- :]", lambda found: f"_{ord(found[0]):x}", name)
    parts = [part if part not in ("", ".", "..") else "_" for part in spelled.split("/")]
    return "/".join(parts)[:LONGEST_NAME]


def image_key(key: str) -> str:
    """`key` in the letters that MLflow takes; keys that differ still do."""
    plain = re.sub(r"[^a-zA-Z0-9_\-. ~]", "_", key.replace("/", "~"))
    if plain == key.replace("/", "~") and len(plain) <= LONGEST_IMAGE_KEY:
        return plain
    return f"{plain[:LONGEST_IMAGE_KEY]}-{zlib.crc32(key.encode()):08x}"


def file_name(name: str) -> str:
    """`name` as that of a folder."""
    return re.sub(r"[^\w.\- ]", "_", name).strip(". ") or "_"


def portions(items: Mapping[str, str], most: int) -> Iterator[dict[str, str]]:
    """`items` in parts of `most`, as many as one request may have."""
    pairs = list(items.items())
    for start in range(0, len(pairs), most):
        yield dict(pairs[start : start + most])
