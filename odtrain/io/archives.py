"""Published weights as files: strangers' tarballs unpacked safely, checkpoints found in them."""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from odtrain.errors import CheckpointError
from odtrain.io.atomic import replacing_folder
from odtrain.io.checksums import sha256_of
from odtrain.io.locks import alone

TARBALLS = (".tar.gz", ".tgz", ".tar")

MOST_BYTES = 4 * 2**30
"""An archive may unpack to this much; the zoo's largest, Faster R-CNN NAS, has 1.1 GB."""

MOST_MEMBERS = 10_000

BROKEN = (gzip.BadGzipFile, EOFError, zlib.error)
"""What reading a compressed file raises that is damaged, or ends early."""

LONGEST_READ = 16 * 2**20
"""No honest header is read in one piece of more bytes."""


def cache_folder() -> Path:
    """Where downloads and unpacked archives are kept: below `$XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "odtrain" / "zoo"


EXPORTED = (".pb", ".tflite", ".h5", ".keras", ".onnx")


def locate(checkpoint: str | Path) -> Path:
    """The prefix of a checkpoint's files, such as `FOLDER/model.ckpt`.

    Args:
        checkpoint: a prefix, one of its files, a folder that holds it, or a tarball.

    Raises:
        CheckpointError: there is none; it says what was looked for.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.is_file() and path.name.endswith(TARBALLS):
        return _in_folder(unpack(path), named=path)
    prefix = _without_suffix(path)
    if prefix.name == "checkpoint" and path.is_file():
        return _in_folder(path.parent)
    if path.suffix in EXPORTED and path.is_file():
        raise CheckpointError(
            path,
            "an exported model, not a checkpoint: it has no variables to go on from.",
            "Give the .tar.gz it came from, or its model.ckpt. Of a frozen .pb, odtrain zoo adopt makes one.",
        )
    if not _index(prefix).is_file():
        raise CheckpointError(
            path,
            "no such tarball, folder or checkpoint.",
            f"Looked for {path.absolute()} and {_index(prefix).absolute()}. "
            "Give a .tar.gz, a folder or a model.ckpt prefix.",
        )
    return _complete(prefix)


def unpack(archive: Path) -> Path:
    """A folder of the cache that holds what is in `archive`; unpacked once, however many ask.

    Raises:
        CheckpointError: not a tarball, truncated, larger than `MOST_BYTES`, or with members that
            would be written elsewhere or are not plain files; or the cache cannot be written.
    """
    with _writing(archive):
        folder = cache_folder() / sha256_of(archive)[:16]
        with alone(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                with replacing_folder(folder) as part:
                    _extract(archive, part)
    return folder


def is_whole(archive: Path) -> bool:
    """Whether an archive, gzipped or not, can be read to its end: half a download cannot.

    One that has no end is told by `unpack`.
    """
    try:
        with _decompressed(archive) as stream:
            _read_to_the_end(Bounded(stream, MOST_BYTES))
    except BROKEN:
        return False
    except BombError:
        pass
    return True


class BombError(Exception):
    """An archive unpacks to more than it may, or asks for more memory than an honest one does."""


class Bounded:
    """A stream that a decompression bomb cannot make read without end.

    Its methods raise a BombError beyond `most_bytes`, or for one read of more than `LONGEST_READ`.
    """

    def __init__(self, stream: BinaryIO, most_bytes: int) -> None:
        self.stream = stream
        self.most_bytes = most_bytes

    def read(self, size: int) -> bytes:
        """As a file's."""
        if size > LONGEST_READ:
            raise BombError(f"it has a header of {size:,} bytes")
        block = self.stream.read(size)
        self._check(self.stream.tell())
        return block

    def seek(self, offset: int) -> int:
        """As a file's."""
        self._check(offset)
        return self.stream.seek(offset)

    def tell(self) -> int:
        """As a file's."""
        return self.stream.tell()

    def _check(self, position: int) -> None:
        if position > self.most_bytes:
            raise BombError(f"it unpacks to more than {self.most_bytes:,} bytes")


def _extract(archive: Path, folder: Path) -> None:
    """Unpack `archive` into the empty `folder`, or raise."""
    try:
        with _decompressed(archive) as stream:
            bounded = Bounded(stream, MOST_BYTES)
            with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as tar:
                members = list(_checked(archive, tar))
                tar.extractall(folder, members=members, filter="data")
            _read_to_the_end(bounded)
    except (BombError, tarfile.FilterError) as error:
        raise _refused(archive, str(error)) from error
    except (tarfile.TarError, *BROKEN) as error:
        raise CheckpointError(
            archive,
            f"not a whole tarball ({error}).",
            "Download it again: it is truncated, or something else under this name.",
        ) from error


def _read_to_the_end(stream: Bounded) -> None:
    """Read what is left: the checksum at the very end is part of being whole."""
    while stream.read(2**20):
        pass


def _decompressed(archive: Path) -> BinaryIO:
    """The tar stream inside `archive`, gzipped or not."""
    with archive.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(archive)) if gzipped else archive.open("rb")


def _checked(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of `tar`, each of them harmless."""
    total = 0
    for count, member in enumerate(tar, start=1):
        total += member.size
        parts = re.split(r"[/\\]", member.name)
        if not (member.isreg() or member.isdir()):
            raise _refused(archive, f'"{member.name}" is a link or a device')
        if member.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise _refused(archive, f'"{member.name}" would be written outside its folder')
        if total > MOST_BYTES:
            raise _refused(archive, f"it unpacks to more than {MOST_BYTES:,} bytes")
        if count > MOST_MEMBERS:
            raise _refused(archive, f"it has more than {MOST_MEMBERS:,} members")
        yield member


def _refused(archive: Path, why: str) -> CheckpointError:
    return CheckpointError(
        archive,
        f"not unpacked: {why}.",
        "No zoo archive does that. Do not trust it; get the archive from its publisher.",
    )


@contextmanager
def _writing(archive: Path) -> Iterator[None]:
    """Turn a full disk, or a folder that may not be written, into what the user can do about it."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            archive,
            f"cannot be unpacked into {cache_folder()}: {error}.",
            "Make room or give permission there, or set XDG_CACHE_HOME to another folder.",
        ) from error


def _in_folder(folder: Path, named: Path | None = None) -> Path:
    """The prefix of the checkpoint in `folder`, or in the folders of an archive (then `named`)."""
    folders = [folder, *sorted(p for p in folder.rglob("*") if p.is_dir())] if named else [folder]
    for candidate in folders:
        for prefix in _candidates(candidate):
            if _index(prefix).is_file():
                return _complete(prefix)
    raise CheckpointError(
        named or folder,
        "no checkpoint in it.",
        "Looked for what its file `checkpoint` names, for model.ckpt.index, "
        "and for the newest *-STEP.index.",
    )


def _candidates(folder: Path) -> Iterator[Path]:
    """Prefixes in `folder`, the likeliest first.

    The `checkpoint` file was often written on another machine: of the path in it only the last
    part counts.
    """
    state = folder / "checkpoint"
    if state.is_file():
        text = state.read_text(encoding="utf-8", errors="replace")
        if match := re.search(r'^\s*model_checkpoint_path:\s*"([^"]+)"', text, re.MULTILINE):
            yield folder / re.split(r"[/\\]+", match[1])[-1]
    yield folder / "model.ckpt"
    steps = {p: re.fullmatch(r".*-(\d+)\.index", p.name) for p in folder.glob("*.index")}
    numbered = {p: int(match[1]) for p, match in steps.items() if match}
    for file in sorted(numbered, key=lambda p: numbered[p], reverse=True):
        yield file.with_suffix("")


def _complete(prefix: Path) -> Path:
    """`prefix`, if its data is beside its index."""
    if not any(prefix.parent.glob(f"{_escaped(prefix.name)}.data-*-of-*")):
        raise CheckpointError(
            prefix,
            "its index is there, its data is not.",
            f"Put {prefix.name}.data-00000-of-00001 beside {prefix.name}.index.",
        )
    return prefix


def _escaped(name: str) -> str:
    """`name` for a glob pattern that matches it literally."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _without_suffix(path: Path) -> Path:
    """The prefix that a checkpoint's file belongs to; other paths stay as they are."""
    return path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))


def _index(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")
