"""Checksums beside files, as `sha256sum` writes and checks them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from odtrain.errors import TrackingError

SUMS = "SHA256SUMS"


def sha256_of(file: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def checksums(tops: Iterable[Path]) -> str:
    """A line for every file at or below `tops`, named from the folder that holds its top."""
    lines = []
    for top in sorted(tops):
        files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        lines += [
            f"{sha256_of(file)}  {file.relative_to(top.parent).as_posix()}\n" for file in files
        ]
    return "".join(lines)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the list of a folder's files with theirs."""
    return (
        hashlib.sha256(checksums([path]).encode()).hexdigest() if path.is_dir() else sha256_of(path)
    )


def of_files(text: str, tops: Iterable[str]) -> str:
    """Those lines of `text` whose files are at or below `tops`."""
    names = set(tops)
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if _listed(line)[1].split("/")[0] in names)


def verify(folder: Path, tops: Collection[str] | None = None) -> None:
    """Compare the files of a downloaded model with the checksums beside them.

    Args:
        folder: of the files.
        tops: files and folders in it that are looked at; None for all.

    Raises:
        TrackingError: a file is missing or differs, or there are no checksums.
    """
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except OSError as problem:
        raise TrackingError(
            folder, f"holds no {SUMS}.", "Was this model registered by odtrain? Download it again."
        ) from problem
    lines = text if tops is None else of_files(text, tops)
    for wanted, name in map(_listed, lines.splitlines()):
        file = folder / name
        if not file.is_file() or sha256_of(file) != wanted:
            raise TrackingError(file, "is damaged or missing.", "Download the model again.")


def _listed(line: str) -> tuple[str, str]:
    digest, _, name = line.rstrip("\n").partition("  ")
    return digest, name
