"""What `input=` names: pictures and videos here, in a store or at a URL, and cameras."""

from __future__ import annotations

import glob
import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
from PIL import Image

from odtrain.addresses import is_in_store, is_remote, with_slashes
from odtrain.config.schema import PredictConfig
from odtrain.errors import ConfigError, DataError, taken_from
from odtrain.io.atomic import replacing
from odtrain.io.fetch import Fetcher, FetchError, SlowError
from odtrain.io.remote.files import found, is_file, local
from odtrain.io.remote.store import FileStat, matching
from odtrain.media import images as pictures
from odtrain.media import video
from odtrain.secrets import masked
from odtrain.system.progress import Bar

CAMERA = re.compile(r"camera:(\d+)")
URL = re.compile(r"https?://", re.IGNORECASE)
LIST_SUFFIX = ".txt"
UNSAFE = re.compile(r"[^\w.-]+")
NAME_SOMETHING = "Name a picture, a video, a folder, a glob, a URL or camera:0: input=..."


@dataclass(frozen=True)
class Medium:
    """A picture or a video.

    Attributes:
        file: where it is.
        name: as the user knows it: its path, or the URL it came from, without a password.
        moving: whether it is a video, or a GIF of several frames.
        stat: size and version of what is in a store; None where it is here.
    """

    file: Path
    name: str
    moving: bool
    stat: FileStat | None = None

    @property
    def here(self) -> Path:
        """The file on this machine, brought from a store unless it was before.

        Raises:
            DataError: the store refuses, or is away.
        """
        return local(self.file, self.stat)


def camera_number(text: str | None) -> int | None:
    """N of `camera:N`; None for anything else."""
    found = CAMERA.fullmatch(text or "")
    return int(found[1]) if found else None


def find_media(
    config: PredictConfig, text: str | None, folder: Path, ours: str, going_on: bool = False
) -> list[Medium]:
    """The pictures and videos that `input=` means, sorted by name within a folder or glob.

    Args:
        config: limits of what is fetched from a URL.
        text: a file, a folder, a glob, a URL, or a .txt with one of these a line.
        folder: of the output; what is fetched is kept there.
        ours: what odtrain drew before, below `folder`: none of the user's pictures.
        going_on: whether what was fetched before is taken as it is.

    Raises:
        ConfigError: nothing is given.
        DataError: nothing is there, or it cannot be fetched.
    """
    if not text:
        raise ConfigError("input", "is not given.", NAME_SOMETHING)
    entries = _entries(text, "picture, video or URL")

    def expand(entry: str) -> Iterable[Medium]:
        if URL.match(entry):
            file = fetch(entry, folder / "fetched", config, going_on)
            return [Medium(file, masked(entry), _moves(file))]
        suffixes = pictures.SUFFIXES | video.SUFFIXES
        what = "picture or video"
        if is_in_store(entry):
            stored = _in_store(entry, suffixes, what, NAME_SOMETHING).items()
            return [
                Medium(file, with_slashes(str(file)), file.suffix.lower() in video.SUFFIXES, stat)
                for file, stat in stored
            ]
        files = find_files(entry, suffixes, folder / ours, what, NAME_SOMETHING)
        return [Medium(file, str(file), _moves(file)) for file in files]

    media = [medium for entry in entries for medium in expand(entry)]
    return _told_apart({medium.file: medium for medium in media}.values())


def _told_apart(media: Iterable[Medium]) -> list[Medium]:
    """Each under a name of its own, also where addresses differ in a secret alone."""
    media = list(media)
    times = Counter(medium.name for medium in media)
    return [
        each if times[each.name] == 1 else replace(each, name=f"{each.name} ({each.file.name})")
        for each in media
    ]


def find_pictures(pattern: str | None) -> list[Path]:
    """The pictures that a file, a folder or a glob names, sorted; or a .txt with one of these a line.

    Raises:
        ConfigError: nothing is given.
        DataError: nothing is there.
    """
    remedy = "Name a picture, a folder or a glob."
    if not pattern:
        raise ConfigError("input", "is not given.", remedy)
    return [
        file
        for entry in _entries(pattern, "picture")
        for file in find_files(entry, pictures.SUFFIXES, None, "picture", remedy)
    ]


def _entries(text: str, what: str) -> list[str]:
    """What `input=` names: itself, or each line of a .txt that is there."""
    path = Path(text).expanduser()
    if path.suffix.lower() != LIST_SUFFIX or not is_file(path):
        return [text]
    lines = local(path).read_text(encoding="utf-8-sig").splitlines()
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not entries:
        raise DataError(path, "names nothing.", f"Write one {what} a line.")
    # What is named in a list that is elsewhere is there too: it says nothing of files that are here.
    beside = with_slashes(str(path.parent))
    return [
        entry if not is_remote(path) or is_remote(entry) else f"{beside}/{entry.lstrip('/')}"
        for entry in entries
    ]


def _in_store(
    pattern: str, suffixes: Iterable[str], what: str, remedy: str
) -> dict[Path, FileStat]:
    """As `find_files`, of a store.

    Raises:
        DataError: nothing is there, or the store refuses or is away.
    """
    base = Path(re.split(r"[^/]*[*?\[]", pattern, maxsplit=1)[0])
    there = found(base)
    if base in there:
        return there
    chosen = None if base == Path(pattern) else matching(Path(pattern))
    wanted = frozenset(suffixes)
    files = {
        file: stat
        for file, stat in there.items()
        if (chosen is None or file in chosen) and file.suffix.lower() in wanted
    }
    if not files:
        raise DataError(pattern, f"no {what} is there.", remedy)
    return files


def find_files(
    pattern: str, suffixes: Iterable[str], drawn_before: Path | None, what: str, remedy: str
) -> list[Path]:
    """A file of any suffix, the files of some suffixes in a folder, or those of a glob; sorted.

    Args:
        pattern: `~` is the home folder, `**` any folders.
        suffixes: in lower case, with their dots.
        drawn_before: a folder whose files are none of the user's.
        what: is looked for, for messages.
        remedy: of the message.

    Raises:
        DataError: nothing is there.
    """
    if is_in_store(pattern):
        return list(_in_store(pattern, suffixes, what, remedy))
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    inside = path.rglob("*") if path.is_dir() else map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
    ours = drawn_before and drawn_before.resolve()
    wanted = frozenset(suffixes)
    files = sorted(
        file
        for file in inside
        if file.suffix.lower() in wanted and file.is_file() and ours not in file.resolve().parents
    )
    if not files:
        raise DataError(pattern, f"no {what} is there{taken_from(pattern)}.", remedy)
    return files


def _moves(file: Path) -> bool:
    """Whether a file is a video: by its suffix, and where that says nothing by its bytes."""
    suffix = file.suffix.lower()
    if suffix in video.SUFFIXES:
        return True
    if suffix in pictures.SUFFIXES and suffix != ".gif":
        return False
    try:
        with Image.open(file) as image:
            return image.format == "GIF" and getattr(image, "n_frames", 1) > 1
    except MemoryError:
        raise
    except Exception:  # whatever Pillow says of what is no picture, or a damaged one
        return suffix not in pictures.SUFFIXES


# ---- URLs


def fetch(url: str, folder: Path, config: PredictConfig, going_on: bool = False) -> Path:
    """The file behind a URL, kept in `folder`; one that is there already does where a run goes on.

    Raises:
        DataError: there is no such file, or it is larger or slower than the configuration allows.
    """
    file = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{_file_name(url)}"
    if going_on and file.is_file():
        return file
    fetcher = Fetcher(config.private, "predict.private=true", attempts=1)
    try:
        with replacing(file) as part:
            receive = partial(_receive, part, url, config)
            fetcher.taken(url, receive, config.max_download_seconds)
    except SlowError:
        raise _too_slow(url, config) from None
    except FetchError as error:
        raise DataError(url, f"cannot be fetched: {error}.", "Is the address right?") from None
    return file


def _receive(part: Path, url: str, config: PredictConfig, answer: requests.Response) -> None:
    limit = config.max_download_mb * 1e6
    deadline = time.monotonic() + config.max_download_seconds
    said = answer.headers.get("Content-Length", "")
    length = int(said) if said.isdecimal() else 0
    bar = Bar[None](total=length or None, unit="B", doing="fetching", delay=1, leave=False)
    with bar, part.open("wb") as stream:
        pieces = iter(partial(answer.raw.read1, 2**16), b"")
        for block in pieces if length <= limit else [b""]:
            stream.write(block)
            bar.update(len(block))
            if max(length, stream.tell()) > limit:
                raise _beyond(url, f"is larger than {config.max_download_mb:g} MB", "mb")
            if time.monotonic() > deadline:
                raise _too_slow(url, config)


def _too_slow(url: str, config: PredictConfig) -> DataError:
    return _beyond(url, f"takes more than {config.max_download_seconds:g} s", "seconds")


def _beyond(url: str, problem: str, limit: str) -> DataError:
    key = f"predict.max_download_{limit}"
    return DataError(url, f"{problem}: it was not fetched.", f"Allow more: {key}=N.")


def _file_name(url: str) -> str:
    """The last part of a URL's path, harmless as a file name."""
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    return UNSAFE.sub("_", name).strip("._")[-80:] or "download"
