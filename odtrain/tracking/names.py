"""Texts and names as MLflow takes them."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping

LONGEST_PARAM = 6000
LONGEST_TAG = 8000
LONGEST_NAME = 250
LONGEST_DIGEST = 36
MOST_PARAMS = 100
"""MLflow's limits."""

LONGEST_IMAGE_KEY = 100
RUN_ID = r"[0-9a-f]{32}|offline-[0-9a-f]{12}"
"""MLflow's of a run, or that of a folder whose run no server has yet."""
CHAMPION = "champion"
"""The alias of the version that is to be used."""
SHOWN_DIGEST = 12
"""Letters of a data set's digest that people see."""

LONGEST_FILE_STEM = 60
"""Letters that fit in a file's name of 255 bytes whatever their script."""


def as_text(value: object) -> str:
    """A value as it would be written in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(as_text(item) for item in value)}]"
    return str(value)


def text_value(value: object, longest: int | None = None) -> str:
    """A value as every store takes it: cut, and what no database holds (NUL, half a surrogate) spelled."""
    text = as_text(value).replace("\0", "\\x00")
    return text.encode(errors="backslashreplace").decode()[:longest]


@functools.lru_cache(maxsize=4096)
def key_name(name: str) -> str:
    """`name` as a key of MLflow: of a metric, a parameter, a tag of anything.

    What MLflow takes stays as it is. Else what it refuses is spelled by code point, and a digest keeps names
    apart that would be spelled alike, or cut alike: `AP/*` becomes `AP/_2a-` and 12 letters.
    """
    spelled = re.sub(r"[^/\w.\- :]", lambda found: f"_{ord(found[0]):x}", name)
    parts = [part if part not in ("", ".", "..") else "_" for part in spelled.split("/")]
    plain = "/".join(parts)
    plain = f"_{plain}" if plain.startswith("..") else plain
    return (
        name if plain == name and len(name) <= LONGEST_NAME else _apart(name, plain, LONGEST_NAME)
    )


def image_key(key: str) -> str:
    """`key` in the letters that MLflow takes in the key of a picture; keys that differ still do."""
    flat = key.replace("/", "~")
    plain = re.sub(r"[^a-zA-Z0-9_\-. ~]", "_", flat)
    kept = plain == flat and "~" not in key and len(plain) <= LONGEST_IMAGE_KEY
    return plain if kept else _apart(key, plain, LONGEST_IMAGE_KEY)


def artifact_path(path: str) -> str:
    """`path` (posix) with what a server would cut off or read otherwise replaced: `a#1.jpg`, `%41.jpg`."""
    return "/".join(map(_artifact_part, path.split("/")))


def _artifact_part(part: str) -> str:
    plain = re.sub(r"[#?\x00-\x1f\x7f\ud800-\udfff]|%(?=[0-9a-fA-F]{2})", "_", part)
    if plain == part:
        return part
    stem, dot, suffix = plain.rpartition(".")
    return (
        f"{_apart(part, stem, LONGEST_FILE_STEM)}.{suffix}"
        if dot
        else _apart(part, plain, LONGEST_FILE_STEM)
    )


def file_name(name: str) -> str:
    """`name` as that of a folder; names that differ still do."""
    plain = re.sub(r"[^\w.\- ]", "_", name).strip(". ") or "_"
    fits = len(plain.encode()) <= 4 * LONGEST_FILE_STEM
    return name if plain == name and fits else _apart(name, plain, LONGEST_FILE_STEM)


def _apart(name: str, plain: str, longest: int) -> str:
    """`plain`, cut to fit with a digest of `name` behind it."""
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{plain[: longest - len(digest) - 1]}-{digest}"


def portions(items: Mapping[str, str], most: int) -> Iterator[dict[str, str]]:
    """`items` in parts of `most`, as many as one request may have."""
    pairs = list(items.items())
    for start in range(0, len(pairs), most):
        yield dict(pairs[start : start + most])
