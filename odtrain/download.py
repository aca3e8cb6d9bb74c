"""Large files over http: resumed where they broke off, checked, fetched once however many ask."""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from tqdm import tqdm

from odtrain.archives import sha256_of
from odtrain.errors import CheckpointError

ATTEMPTS = 5
WAIT_SECONDS = 1.0
"""Before the second attempt; each further wait is twice as long."""
TIMEOUT_SECONDS = (10, 60)
"""To connect, and between two pieces."""


@dataclass(frozen=True)
class Wanted:
    """One file to download.

    Attributes:
        url: http or https.
        file: where it is to be; `file.part` holds it while it is incomplete.
        sha256: its digest, or None: then that of the first download is kept in `file.sha256`.
        by_hand: what to do where there is no network, the remedy of every error.
    """

    url: str
    file: Path
    sha256: str | None
    by_hand: str

    @property
    def part(self) -> Path:
        """The incomplete file."""
        return self.file.with_name(f"{self.file.name}.part")

    @property
    def version(self) -> Path:
        """What remembers which version of the file the incomplete one is of."""
        return self.file.with_name(f"{self.file.name}.version")

    @property
    def pin(self) -> Path:
        """What remembers the digest of the first download."""
        return self.file.with_name(f"{self.file.name}.sha256")


def file_in(folder: Path, url: str) -> Path:
    """Where `url` is kept in `folder`: a folder of its own, under the name it has there."""
    name = PurePosixPath(urlsplit(url).path).name or "download"
    return folder / hashlib.sha256(url.encode()).hexdigest()[:12] / name


def download(wanted: Wanted) -> Path:
    """`wanted.file`, downloaded unless it is there already.

    Raises:
        CheckpointError: no network, no such file, a digest that differs, a full disk.
    """
    try:
        wanted.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{wanted.file}.lock"):
            if wanted.file.is_file():
                return _unchanged(wanted)
            _get(wanted)
            return _accepted(wanted)
    except requests.RequestException as error:  # itself an OSError
        raise _failed(wanted, f"cannot be downloaded: {_reason(error)}.") from error
    except OSError as error:
        raise _failed(wanted, f"cannot be kept in {wanted.file.parent}: {error}.") from error


def _get(wanted: Wanted) -> None:
    """Complete `wanted.part`, going on after every break."""
    for attempt in range(ATTEMPTS):
        try:
            return _go_on(wanted)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ):
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(WAIT_SECONDS * 2**attempt)


def _go_on(wanted: Wanted) -> None:
    """Append what is missing to `wanted.part`; a server that cannot sends all of it again."""
    have = wanted.part.stat().st_size if wanted.part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if wanted.version.is_file():
            headers["If-Range"] = wanted.version.read_text(encoding="utf-8")
    with requests.get(wanted.url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            wanted.part.unlink()
            raise requests.ConnectionError("the partial download did not fit; begun again")
        answer.raise_for_status()
        going_on = answer.status_code == requests.codes.partial_content
        if not going_on:
            _remember_version(answer, wanted)
        _save(answer, wanted, have if going_on else 0)


def _remember_version(answer: requests.Response, wanted: Wanted) -> None:
    """Keep what tells the server later whether it still has the file that was begun."""
    tag = answer.headers.get("ETag", "")
    weak = not tag or tag.startswith("W/")
    version = answer.headers.get("Last-Modified") if weak else tag
    wanted.version.unlink(missing_ok=True)
    if version:
        wanted.version.write_text(version, encoding="utf-8")


def _save(answer: requests.Response, wanted: Wanted, have: int) -> None:
    """Write an answer's body behind the first `have` bytes of `wanted.part`."""
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=wanted.file.name)
    with bar, wanted.part.open("ab" if have else "wb") as stream:
        for block in answer.iter_content(2**18):
            stream.write(block)
            bar.update(len(block))
        if total is not None and stream.tell() < total:
            raise requests.ConnectionError(f"broke off after {stream.tell():,} of {total:,} bytes")


def _accepted(wanted: Wanted) -> Path:
    """The whole download under its name, if its digest is right; an unknown one is pinned."""
    digest = sha256_of(wanted.part)
    if wanted.sha256 and digest != wanted.sha256:
        wanted.part.unlink()
        raise _failed(wanted, f"its sha256 is {digest}, not {wanted.sha256}: it was not kept.")
    if not wanted.sha256:
        wanted.pin.write_text(f"{digest}\n", encoding="ascii")
        tqdm.write(
            f"{wanted.url}: no checksum is published. From now on its sha256 must be\n"
            f"  {digest} ({wanted.pin})",
            file=sys.stderr,
        )
    wanted.version.unlink(missing_ok=True)
    wanted.part.replace(wanted.file)
    return wanted.file


def _unchanged(wanted: Wanted) -> Path:
    """The file that is there, if it still is what was downloaded."""
    pinned = wanted.pin.read_text(encoding="ascii").strip() if wanted.pin.is_file() else None
    expected = wanted.sha256 or pinned
    digest = sha256_of(wanted.file)
    if expected and digest != expected:
        raise CheckpointError(
            wanted.file,
            f"its sha256 is {digest}, not {expected}.",
            "It changed since it was downloaded. Delete it to have it downloaded again.",
        )
    return wanted.file


def _failed(wanted: Wanted, problem: str) -> CheckpointError:
    return CheckpointError(wanted.url, problem, wanted.by_hand)


def _reason(error: requests.RequestException) -> str:
    """Why, in a few words; requests' own text for a connection is a nest of object addresses."""
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return str(error) if " of " in str(error) else "no connection to the server"
    return str(error)
