"""Object stores through fsspec: what lies there, read whole or in ranges, written whole.

Endpoint and credentials are those of each store's own variables and files; nothing of them passes through
here. Whatever a store answers becomes one line: what is not there is a FileNotFoundError, anything else a
DataError.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from odtrain.addresses import scheme_of
from odtrain.errors import ConfigError, DataError, first_line, is_of_memory

FileStat = tuple[int, int]
"""Size in bytes, and which version: of a file here its modification time in ns."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL or ~/.aws",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
}
"""Where each store's own library looks for them."""
VERSIONS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "updated")
"""What tells one content of an object from the next, the surest first."""
AGAIN = "Run the same command again: what was brought here is kept."
DELETED_AT_ONCE = 1000
BLOCK = 8 * 2**20
"""Of a large object, brought at a time; a smaller one is asked for as a whole."""
R = TypeVar("R")


class Package(NamedTuple):
    """What reads a store: a package of fsspec's, the extra that brings it, and how it is told to behave."""

    name: str
    extra: str
    options: dict[str, Any]


FRESH = {"use_listings_cache": False}
"""Each answer is the store's own of now."""
PACKAGES = {
    "s3": Package(
        "s3fs",
        "s3",
        # One request for an object, not a question for its size before.
        FRESH
        | {"max_concurrency": 1, "config_kwargs": {"connect_timeout": 10, "read_timeout": 30}},
    ),
    "gs": Package("gcsfs", "gcs", FRESH),
    "az": Package("adlfs", "azure", FRESH),
}


@cache
def _filesystem(scheme: str) -> Any:
    package = PACKAGES[scheme]
    if importlib.util.find_spec(package.name) is None:
        raise ConfigError(
            f"{scheme}://",
            f"{package.name} is not installed, which reads it.",
            f"Install it: pip install 'odtrain[{package.extra}]'",
        )
    import fsspec

    return fsspec.filesystem(scheme, **package.options)


def check_can_read(place: str | Path) -> None:
    """Refuse an address that no installed package reads, and one that holds a password.

    Raises:
        ConfigError: it is one.
    """
    scheme, bucket = scheme_of(place), key_of(place).partition("/")[0]
    if "@" in bucket:
        raise ConfigError(
            str(place),
            "holds what looks like credentials.",
            f"Leave them out, and give them as {CREDENTIALS[scheme]}.",
        )
    if not bucket or ".." in Path(place).parts:
        raise ConfigError(str(place), "names no object.", f"Write {scheme}://BUCKET/FOLDER.")
    _filesystem(scheme)


def key_of(place: str | Path) -> str:
    """`bucket/a.jpg` of `s3://bucket/a.jpg`, whether or not it became a path."""
    return re.sub(r"^\w+:/+", "", str(place)).rstrip("/")


def listed(folder: Path) -> dict[str, FileStat]:
    """Key below the folder -> size and version of every object there; the folder's own is `""`.

    Raises:
        DataError: the store refuses, or is away.
    """
    key = key_of(folder)
    with _told(folder, missing_is_empty=True):
        found = _filesystem(scheme_of(folder)).find(key, detail=True)
        return {
            name.removeprefix(key).lstrip("/"): _stat(info)
            for name, info in found.items()
            if info.get("type") != "directory" and not name.endswith("/")
        }
    return {}


def matching(pattern: Path) -> set[Path]:
    """Objects whose names fit a glob, in which `**` is any folders.

    Raises:
        DataError: the store refuses, or is away.
    """
    scheme = scheme_of(pattern)
    with _told(pattern, missing_is_empty=True):
        return {Path(f"{scheme}:/{name}") for name in _filesystem(scheme).glob(key_of(pattern))}
    return set()


def stat(file: Path) -> FileStat | None:
    """Size and version of an object; None where there is none.

    Raises:
        DataError: the store refuses, or is away.
    """
    with _told(file, missing_is_empty=True):
        info = _with_reason(file, lambda fs, key: fs.info(key))
        return None if info.get("type") == "directory" else _stat(info)
    return None


def _stat(info: dict[str, Any]) -> FileStat:
    told = next((str(info[name]) for name in VERSIONS if info.get(name)), "")
    digest = hashlib.sha256(told.strip('"').encode()).digest()
    return int(info["size"] or 0), int.from_bytes(digest[:5], "big") * 1000


def read(file: Path) -> bytes:
    """The whole object.

    Raises:
        FileNotFoundError: there is none.
        DataError: the store refuses, or is away.
    """
    with _told(file):
        data: bytes = _filesystem(scheme_of(file)).cat_file(key_of(file))
    return data


def bring(file: Path, part: Path, known: FileStat | None = None) -> None:
    """Write the content of an object to a file here.

    Args:
        file: the object.
        part: where it is written; not whole where this raises.
        known: which version it must be; None for that of now.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is another one now, or the store refuses or is away.
    """
    if known is not None and known[0] <= BLOCK:
        data = read(file)
        if len(data) != known[0]:
            raise changed(file)
        part.write_bytes(data)
        return
    ranges = Ranges(file)
    if known not in (None, (ranges.size, ranges.version)):
        raise changed(file)
    with part.open("wb") as stream:
        for begin in range(0, ranges.size, BLOCK):
            stream.write(ranges.read(begin, min(begin + BLOCK, ranges.size)))


def write(file: Path, data: bytes) -> None:
    """Make or replace an object; it is there whole or not at all.

    Raises:
        DataError: the store refuses, or is away.
    """
    with _told(file):
        _filesystem(scheme_of(file)).pipe_file(key_of(file), data)


def upload(source: Path, file: Path) -> None:
    """As `write`, of a file here of any size.

    Raises:
        DataError: the store refuses, is away, or kept another size.
    """
    with _told(file):
        _filesystem(scheme_of(file)).put_file(str(source), key_of(file))
    kept = stat(file)
    if kept is None or kept[0] != source.stat().st_size:
        raise DataError(file, "was not kept whole by the store.", AGAIN)


def remove(files: Sequence[Path]) -> None:
    """Delete objects, those that are gone already too.

    Raises:
        DataError: the store refuses, or is away.
    """
    for begin in range(0, len(files), DELETED_AT_ONCE):
        several = files[begin : begin + DELETED_AT_ONCE]
        with _told(several[0], missing_is_empty=True):
            _filesystem(scheme_of(several[0])).rm([key_of(file) for file in several])


class Ranges:
    """One version of an object, read in ranges, by any number of threads.

    Attributes:
        file: the object.
        size: in bytes.
        version: which one it is.
    """

    def __init__(self, file: Path) -> None:
        """Ask for the object as it is now.

        Raises:
            FileNotFoundError: there is none.
            DataError: the store refuses, or is away.
        """
        self.file = file
        with _told(file):
            opened = _with_reason(file, lambda fs, key: fs.open(key, "rb", cache_type="none"))
        self.size, self.version = _stat(opened.details)
        # fsspec's files ask for a range under the version that they were opened with.
        self._fetch: Callable[[int, int], bytes] = opened._fetch_range

    def read(self, begin: int, end: int) -> bytes:
        """Bytes from `begin` to before `end`.

        Raises:
            DataError: the object is another one now, or the store refuses or is away.
        """
        with _told(self.file):
            data = self._fetch(begin, end)
        if len(data) != end - begin:
            raise changed(self.file)
        return data


def changed(file: Path) -> DataError:
    """What is said of an object that is not the one any more that was begun to be read."""
    return DataError(file, "changed while it was read.", "Run the command again.")


# ---- what stores answer


@contextmanager
def _told(place: Path, missing_is_empty: bool = False) -> Iterator[None]:
    """Turn what a store's library raises into what a user can act on.

    Args:
        place: that is asked for.
        missing_is_empty: an object that is not there is none, not an error.
    """
    try:
        yield
    except (ConfigError, DataError):
        raise
    except Exception as error:  # each library has errors of its own
        if is_of_memory(error):
            raise
        if isinstance(error, FileNotFoundError) and not _is_of_bucket(error):
            if not missing_is_empty:
                raise FileNotFoundError(errno.ENOENT, "no such object", str(place)) from None
            return
        raise _explained(place, error) from error


def _with_reason(file: Path, ask: Callable[[Any, str], Any]) -> Any:
    """What a question about an object gives; a refusal says why where its content is asked for alone."""
    fs, key = _filesystem(scheme_of(file)), key_of(file)
    try:
        return ask(fs, key)
    except PermissionError:
        fs.cat_file(key, start=0, end=1)
        raise


def _is_of_bucket(error: FileNotFoundError) -> bool:
    return re.search(r"bucket.*not exist|container.*not exist", str(error), re.I) is not None


def _explained(place: Path, error: Exception) -> DataError:
    scheme = scheme_of(place)
    words = first_line(error).removesuffix(".")
    if "FileExpired" in type(error).__name__ or "pre-conditions" in words:
        return changed(place)
    if isinstance(error, FileNotFoundError):
        bucket = f"{scheme}://{key_of(place).partition('/')[0]}"
        return DataError(bucket, "there is no such bucket.", "Is its name right, and the endpoint?")
    if re.search(r"skew|too large|request has expired|not yet valid", words, re.I) and re.search(
        r"time|expired", words, re.I
    ):
        return DataError(place, f"refused: {words}.", "Set this machine's clock: it is off.")
    if isinstance(error, PermissionError) or "redential" in words:
        problem = f"refused: {words}." if words else "refused."
        return DataError(place, problem, f"Credentials are those of {CREDENTIALS[scheme]}.")
    return DataError(place, f"the store does not answer as it should: {words}.", AGAIN)
