"""Where pictures come from: folders, archives, videos and lists of URLs, as one stream of candidates.

Nothing of a source is written to, no archive is unpacked to disk, and no link leads out of a folder.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image

from odtrain.errors import DataError, taken_from
from odtrain.io.archives import BombError, Bounded
from odtrain.io.fetch import PICTURE_BYTES, Fetcher, FetchError
from odtrain.media.images import JPEG_QUALITY, SUFFIXES
from odtrain.media.video import SUFFIXES as VIDEO_SUFFIXES
from odtrain.media.video import Frame, open_video
from odtrain.secrets import has_secret, masked
from odtrain_runtime.pictures import UNSUPPORTED_SUFFIXES

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
LIST_SUFFIXES = (".txt", ".urls", ".lst")
DECOMPRESSORS: tuple[tuple[bytes, Callable[[Path], object]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
"""How a compressed file begins, and what reads it."""
MOST_UNPACKED = 4 * 2**30
MOST_TIMES = 20
"""An archive may unpack to `MOST_UNPACKED`, or to so many times its own size: pictures hardly shrink."""
MOST_MEMBERS = 2_000_000
LINKS_AT_ONCE = 8

KNOWN_SUFFIXES = SUFFIXES | UNSUPPORTED_SUFFIXES


class RefusedError(Exception):
    """A candidate is no picture that can be kept; says why."""


@dataclass(frozen=True)
class PictureCandidate:
    """Something that may be a picture.

    Attributes:
        source: a path, `ARCHIVE!MEMBER`, `VIDEO#frame=N` or a URL, without a password.
        read: its bytes; raises a RefusedError where there are none.
        frame: it is a frame of a video.
        known: its source says which it is: without what it hides, two may have the same.
    """

    source: str
    read: Callable[[], bytes]
    frame: bool = False
    known: bool = True


@dataclass(frozen=True)
class Source:
    """What the user named.

    Attributes:
        name: as the user wrote it.
        candidates: all of it, in the order of names, as they are found.
        at_once: how many are worth reading at a time; None for as many as there are cores.
    """

    name: str
    candidates: Callable[[], Iterator[PictureCandidate]]
    at_once: int | None = None


def open_source(name: str, *, every: int, fetcher: Fetcher, without: Sequence[Path]) -> Source:
    """What `name` leads to; what is in it is read later.

    Args:
        name: a path, or a URL.
        every: of the frames of a video, each `every`-th.
        fetcher: gets what URLs hold.
        without: folders that are passed over.

    Raises:
        DataError: it does not exist, or is of no kind that is read.
    """
    if "://" in name:
        return Source(masked(name), lambda: iter([_link(name, fetcher)]), LINKS_AT_ONCE)
    path = Path(name).expanduser()
    lower = path.name.lower()
    if path.is_dir():
        inside = frozenset(folder.resolve() for folder in without)
        return Source(name, lambda: _in_folder(path.resolve(), every, inside))
    if not path.is_file():
        raise DataError(
            name,
            f"no such file or folder{taken_from(name)}.",
            "Give folders, archives, videos, or lists of URLs.",
        )
    if lower.endswith(LIST_SUFFIXES):
        links = read_links(path)
        return Source(name, lambda: (_link(url, fetcher) for url in links), LINKS_AT_ONCE)
    if lower.endswith(ARCHIVE_SUFFIXES) or path.suffix.lower() in VIDEO_SUFFIXES | KNOWN_SUFFIXES:
        return Source(name, lambda: _in_file(path.resolve(), every))
    kinds = " ".join([*ARCHIVE_SUFFIXES, *LIST_SUFFIXES, *sorted(VIDEO_SUFFIXES)])
    raise DataError(
        name,
        "is no picture, folder, archive, video or list of URLs.",
        f"Besides pictures these are read: {kinds}",
    )


def read_links(file: Path) -> list[str]:
    """The lines of a text file that are neither empty nor begin with #, each once.

    Raises:
        DataError: it is no UTF-8 text, or cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            file, f"cannot be read: {error}.", "Give a text file with a URL a line."
        ) from None
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()[:1] not in ("", "#")))


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """A key by which img2 comes before img10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def _link(url: str, fetcher: Fetcher) -> PictureCandidate:
    def read() -> bytes:
        try:
            return fetcher.get(url)
        except FetchError as error:
            raise RefusedError(f"{error}.") from None

    return PictureCandidate(masked(url), read, known=not has_secret(url))


def _in_folder(folder: Path, every: int, without: frozenset[Path]) -> Iterator[PictureCandidate]:
    """Pictures, videos and archives in and below `folder`; hidden ones and links are passed over."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural_order(entry.name))
    except OSError as error:
        yield _refused(str(folder), f"cannot be read: {error.strerror}.")
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith((".", "__MACOSX")) or entry.is_symlink():
            continue
        if entry.is_dir():
            if path not in without:
                yield from _in_folder(path, every, without)
        elif _is_read(entry.name):
            yield from _in_file(path, every)


def _is_read(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix in KNOWN_SUFFIXES | VIDEO_SUFFIXES or name.lower().endswith(ARCHIVE_SUFFIXES)


def _in_file(file: Path, every: int) -> Iterator[PictureCandidate]:
    lower = file.name.lower()
    if lower.endswith(".zip"):
        yield from _in_archive(file, _in_zip(file))
    elif lower.endswith(ARCHIVE_SUFFIXES):
        yield from _in_archive(file, _in_tar(file))
    elif file.suffix.lower() in VIDEO_SUFFIXES:
        yield from _in_video(file, every)
    else:
        yield PictureCandidate(str(file), partial(_read_file, file))


def _read_file(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return _bounded_read(stream)
    except OSError as error:
        raise RefusedError(f"cannot be read: {error.strerror}.") from None


def _bounded_read(stream: BinaryIO) -> bytes:
    """All of `stream`, in pieces, so that a size that somebody claims reserves no memory."""
    data = bytearray()
    while block := stream.read(2**20):
        data += block
        if len(data) > PICTURE_BYTES:
            raise RefusedError(f"has more than {PICTURE_BYTES:,} bytes.")
    return bytes(data)


def _refused(source: str, why: str) -> PictureCandidate:
    def read() -> bytes:
        raise RefusedError(why)

    return PictureCandidate(source, read)


def _in_video(file: Path, every: int) -> Iterator[PictureCandidate]:
    """Each `every`-th frame, and the video as refused where it cannot be read any further."""
    try:
        with open_video(file) as video:
            for frame in video:
                video.packets.clear()  # of sound, which is not wanted
                if frame.number % every == 0:
                    yield PictureCandidate(
                        f"{file}#frame={frame.number}", partial(_as_jpeg, frame), frame=True
                    )
            if video.problem:
                yield _refused(str(file), f"{video.problem} What came before is kept.")
    except DataError as error:
        yield _refused(str(file), str(error.args[1]))


def _as_jpeg(frame: Frame) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(frame.image).save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return encoded.getvalue()


def _in_archive(file: Path, members: Iterator[PictureCandidate]) -> Iterator[PictureCandidate]:
    """`members`, and the archive as refused where it breaks off, is a bomb or is locked."""
    broken = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
    try:
        yield from members
    except BombError as error:
        yield _refused(str(file), f"{error}; what came before that is kept.")
    except (*broken, EOFError, OSError, ValueError) as error:
        yield _refused(str(file), f"is not a whole archive ({error}); what came before is kept.")


def _most_bytes(file: Path) -> int:
    return max(MOST_UNPACKED, MOST_TIMES * file.stat().st_size)


def _wanted_member(name: str) -> bool:
    """A picture, neither hidden nor what macOS puts beside each."""
    parts = re.split(r"[/\\]", name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts if part not in (".", ".."))
    return not hidden and Path(parts[-1]).suffix.lower() in KNOWN_SUFFIXES


def _in_zip(file: Path) -> Iterator[PictureCandidate]:
    left = _most_bytes(file)
    with zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > MOST_MEMBERS:
            raise BombError(f"it has more than {MOST_MEMBERS:,} members")
        wanted = [info for info in archive.infolist() if _wanted_member(info.filename)]
        for info in sorted(wanted, key=lambda info: natural_order(info.filename)):
            source = f"{file}!{info.filename}"
            try:
                with archive.open(info) as stream:
                    data = _bounded_read(cast(BinaryIO, stream))
            except RefusedError as error:
                data, left = b"", left - PICTURE_BYTES
                yield _refused(source, str(error))
            except (RuntimeError, NotImplementedError) as error:  # a password; a rare compression
                yield _refused(source, f"{str(error).rstrip('.')}.")
            except (zipfile.BadZipFile, zlib.error, EOFError, lzma.LZMAError, OSError) as error:
                yield _refused(source, f"is damaged in the archive ({error}).")
            else:
                left -= len(data)
                yield PictureCandidate(source, partial(bytes, data))
            if left < 0:
                raise BombError(f"it unpacks to more than {_most_bytes(file):,} bytes")


def _in_tar(file: Path) -> Iterator[PictureCandidate]:
    with _decompressed(file) as stream:
        bounded = cast(BinaryIO, Bounded(stream, _most_bytes(file)))
        with tarfile.open(fileobj=bounded, mode="r:") as archive:
            for count, member in enumerate(archive, start=1):
                vars(archive)["members"] = []  # or a tarball of millions is remembered whole
                if count > MOST_MEMBERS:
                    raise BombError(f"it has more than {MOST_MEMBERS:,} members")
                if member.isreg() and _wanted_member(member.name):
                    yield _tar_candidate(f"{file}!{member.name}", archive, member)


def _tar_candidate(
    source: str, archive: tarfile.TarFile, member: tarfile.TarInfo
) -> PictureCandidate:
    stream = archive.extractfile(member)
    if member.size > PICTURE_BYTES or stream is None:
        return _refused(source, f"has more than {PICTURE_BYTES:,} bytes.")
    try:
        return PictureCandidate(source, partial(bytes, _bounded_read(cast(BinaryIO, stream))))
    except RefusedError as error:
        return _refused(source, str(error))


def _decompressed(file: Path) -> BinaryIO:
    """The tar stream inside `file`, compressed or not."""
    with file.open("rb") as stream:
        head = stream.read(6)
    opener = next((opener for start, opener in DECOMPRESSORS if head.startswith(start)), None)
    return cast(BinaryIO, opener(file)) if opener else file.open("rb")
