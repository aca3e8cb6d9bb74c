"""Pictures from anywhere -> img1.jpg, img2.jpg, ... in one folder, with a manifest of their origins.

A picture gets its number once. It is written under its name first and into the manifest then: what a
kill left in between is known by its content when the same source is read again.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from PIL import Image

from odtrain.collect.manifest import MANIFEST, ManifestRow, append_row, read_manifest
from odtrain.collect.sources import PictureCandidate, RefusedError, Source, open_source
from odtrain.errors import DataError
from odtrain.io.atomic import Settling, make_folder, write_bytes, write_text
from odtrain.io.cells import write_rows
from odtrain.io.fetch import Fetcher
from odtrain.io.locks import alone
from odtrain.media.images import encode, inspect, record_format
from odtrain.media.phash import NEAR, WORDS, as_words, distances
from odtrain.secrets import masked
from odtrain.system.workers import in_threads
from odtrain_runtime.pictures import UnusableError
from odtrain_runtime.plain import plain

EVERY = 30
"""Of the frames of a video: about one a second."""
REFUSED = "refused.csv"
MOST_REFUSED = 10_000
"""Of one source: with so many that cannot be used, it is not looked at any further."""
SHOWN_REFUSED = 5
NAME = re.compile(r"img([0-9]+)\.(jpg|png)")
SUFFIX = {"jpeg": ".jpg", "png": ".png"}
EXIF_TAKEN = (0x8769, 0x9003)
"""EXIF's own block, and DateTimeOriginal in it (EXIF 2.32)."""
LABEL_SUFFIXES = (".xml", ".txt", ".json")


@dataclass(frozen=True)
class Looked:
    """A candidate that is a picture: a row without a name yet, and the bytes to keep."""

    row: ManifestRow
    data: bytes
    frame: bool


@dataclass(frozen=True)
class Refused:
    """A candidate that is not kept."""

    source: str
    why: str


@dataclass
class Collected:
    """What one call did.

    Attributes:
        folder: where the pictures are.
        aside: where duplicates are.
        added: names in the folder.
        set_aside: how many look like one that is kept; those with the very same bytes share a file.
        known: how many were collected before, or lie there already.
        frames_dropped: frames of videos that look like a picture that is kept.
        changes: what was done to the added ones -> how many.
        refused: what could not be kept.
        labelled: how many of the added ones have a label file beside them, which was left there.
    """

    folder: Path
    aside: Path
    added: list[str] = field(default_factory=list)
    set_aside: int = 0
    known: int = 0
    frames_dropped: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    labelled: int = 0


def collect(
    sources: Sequence[str],
    folder: Path,
    *,
    every: int = EVERY,
    near: int = NEAR,
    private: bool = False,
) -> Collected:
    """Copy every picture of `sources` to `folder`; what looks like one of them, to the folder beside it.

    Args:
        sources: folders, archives, videos, pictures, text files of URLs, URLs.
        folder: made if it is not there; added to if it is.
        every: of the frames of a video, each `every`-th.
        near: bits by which the difference hashes of near duplicates may differ; 0: only copies are.
        private: URLs may lead to this machine and its network.

    Raises:
        DataError: a source does not exist or is of no kind that is read (nothing is collected
            then), another collect works on `folder`, or what is in it was not collected.
    """
    fetcher = Fetcher(private)
    aside = folder.with_name(f"{folder.name}-duplicates")
    without = (folder, aside)
    opened = [open_source(name, every=every, fetcher=fetcher, without=without) for name in sources]
    with _alone(folder):
        shelf = _Shelf(make_folder(folder), aside, near)
        try:
            for source in opened:
                _take(source, shelf)
        finally:
            fetcher.stop()
            shelf.settling.now()
            _write_refused(folder, shelf.done.refused)
    return shelf.done


def _take(source: Source, shelf: _Shelf) -> None:
    looks = in_threads(shelf.look, source.candidates(), source.name, source.at_once)
    before = len(shelf.done.refused)
    for looked in looks:
        if isinstance(looked, Refused):
            shelf.done.refused.append(looked)
            if len(shelf.done.refused) - before >= MOST_REFUSED:
                why = (
                    f"{MOST_REFUSED:,} of its pictures cannot be used; the rest was not looked at."
                )
                shelf.done.refused.append(Refused(source.name, why))
                return
        elif looked is None:
            shelf.done.known += 1
        else:
            shelf.keep(looked)


def _alone(folder: Path) -> AbstractContextManager[None]:
    busy = DataError(folder, "another odtrain collects into it.", "Wait until it is done.")
    return alone(folder.parent / f".{folder.name}.lock", busy=busy)


class _Shelf:
    """The folder, what is in it, and what was seen before."""

    def __init__(self, folder: Path, aside: Path, near: int) -> None:
        self.folder, self.aside, self.near = folder, aside, near
        self.done = Collected(folder, aside)
        self.seen: set[tuple[str, str]] = set()
        self.links: set[str] = set()
        self.by_content: dict[str, ManifestRow] = {}
        self.kept: list[str] = []
        self.words = np.empty((0, WORDS), np.uint64)
        for row in read_manifest(folder):
            self._remember(row)
        self.unlisted = self._unlisted()
        self.copies: dict[tuple[str, str], Path] | None = None
        self.last_copy: Counter[str] = Counter()
        self.last = max(self._numbers(), default=0)
        self.settling = Settling(folder / MANIFEST)

    def _remember(self, row: ManifestRow) -> None:
        self.seen.add((masked(row.source), row.source_sha256))
        self.by_content.setdefault(row.sha256, row)
        if "://" in row.source:
            self.links.add(row.source)
        if not row.duplicate_of:
            if len(self.kept) == len(self.words):
                more = np.empty((max(64, len(self.words)), WORDS), np.uint64)
                self.words = np.concatenate([self.words, more])
            self.words[len(self.kept)] = as_words([row.likeness])[0]
            self.kept.append(row.file)

    def _unlisted(self) -> dict[str, str]:
        """sha256 -> name of pictures that are in the folder, but not in the manifest."""
        listed = set(self.kept)
        names = [file.name for file in self.folder.iterdir() if NAME.fullmatch(file.name)]
        return {
            _sha256((self.folder / name).read_bytes()): name for name in names if name not in listed
        }

    def _numbers(self) -> Iterator[int]:
        for name in (*self.kept, *self.unlisted.values()):
            if match := NAME.fullmatch(name):
                yield int(match[1])

    def look(self, candidate: PictureCandidate) -> Looked | Refused | None:
        """Read and decode a candidate, in any thread; None if it was collected before."""
        if candidate.known and candidate.source in self.links:
            return None
        try:
            data = candidate.read()
            if (candidate.source, _sha256(data)) in self.seen:
                return None
            return _looked_at(candidate, data)
        except RefusedError as error:
            return Refused(candidate.source, str(error))
        except UnusableError as error:
            return Refused(candidate.source, error.cause)

    def keep(self, looked: Looked) -> None:
        """Store a picture, in the order of the sources; look at whether it is new."""
        row = replace(looked.row, collected=datetime.now(timezone.utc).isoformat("T", "seconds"))
        if (row.source, row.source_sha256) in self.seen:
            self.done.known += 1
            return
        twin, bits = self._twin(row)
        if twin is None:
            row = self._number(row, looked.data)
            self.done.added.append(row.file)
            self.done.changes.update([row.changes] if row.changes else [])
            self.done.labelled += _has_labels(row.source)
        elif looked.frame:
            self.done.frames_dropped += 1
            return
        else:
            row = self._put_aside(replace(row, duplicate_of=twin, differing_bits=bits), looked.data)
        append_row(self.folder, row)
        self.settling.due(self.folder / row.file)
        self._remember(row)

    def _twin(self, row: ManifestRow) -> tuple[str | None, str]:
        """The kept picture that `row` equals or looks like, and the bits by which they differ."""
        same = self.by_content.get(row.sha256)
        if same:
            return same.duplicate_of or same.file, "0"
        if self.near and self.kept:
            bits = distances(as_words([row.likeness])[0], self.words[: len(self.kept)])
            nearest = int(bits.argmin())
            if bits[nearest] <= self.near:
                return self.kept[nearest], str(bits[nearest])
        return None, ""

    def _number(self, row: ManifestRow, data: bytes) -> ManifestRow:
        name = self.unlisted.pop(row.sha256, None)
        if name is None:
            self.last += 1
            name = f"img{self.last}{Path(row.file).suffix}"
            write_bytes(self.folder / name, data, durable=False)  # but with its row
        return replace(row, file=name)

    def _put_aside(self, row: ManifestRow, data: bytes) -> ManifestRow:
        """Write what is set aside as imgN-copyM, unless the very same bytes are there already."""
        self.done.set_aside += 1
        same = self.by_content.get(row.sha256)
        if same and same.duplicate_of:
            return replace(row, file=same.file)
        self.aside.mkdir(exist_ok=True)
        file = self._free_copy(Path(row.duplicate_of).stem, row)
        if not file.exists():
            write_bytes(file, data, durable=False)  # but with its row
        return replace(row, file=f"../{self.aside.name}/{file.name}")

    def _free_copy(self, stem: str, row: ManifestRow) -> Path:
        """The next `stem`-copyN, or the one that holds these very bytes."""
        if self.copies is None:
            self.copies = {}
            for file in sorted(self.aside.glob("*-copy*.*")):
                self._remember_copy(file, _sha256(file.read_bytes()))
        if (stem, row.sha256) not in self.copies:
            name = f"{stem}-copy{self.last_copy[stem] + 1}{Path(row.file).suffix}"
            self._remember_copy(self.aside / name, row.sha256)
        return self.copies[stem, row.sha256]

    def _remember_copy(self, file: Path, sha256: str) -> None:
        stem, _, number = file.stem.rpartition("-copy")
        if self.copies is not None and number.isdecimal():
            self.copies[stem, sha256] = file
            self.last_copy[stem] = max(self.last_copy[stem], int(number))


def _looked_at(candidate: PictureCandidate, data: bytes) -> Looked:
    """Decode the whole picture, and make of it what is kept.

    JPEG and PNG that every program shows alike are kept byte for byte. What EXIF turns is turned,
    because labelImg shows it turned and most converters do not; what TensorFlow does not read, or
    reads otherwise, is encoded anew: as JPEG what was JPEG, else as PNG.

    Raises:
        UnusableError: it is no whole picture of a format that is read.
    """
    name = Path(candidate.source)
    picture = inspect(name, data, None)
    kept = encode(name, data, picture)
    source_sha256 = picture.content
    changes = [f"from {picture.format}"] if picture.format not in ("JPEG", "MPO", "PNG") else []
    if picture.orientation != 1:
        changes.append("turned upright")
    if not picture.verbatim and not changes:
        changes.append("encoded anew as 8-bit RGB")
    row = ManifestRow(
        file=f"img{SUFFIX[record_format(picture.format)]}",
        source=candidate.source,
        collected="",
        taken=_taken(data),
        width=picture.width,
        height=picture.height,
        bytes=len(kept),
        sha256=_sha256(kept),
        source_bytes=len(data),
        source_sha256=source_sha256,
        changes=", ".join(changes),
        duplicate_of="",
        differing_bits="",
        likeness=picture.likeness,
    )
    return Looked(row, kept, candidate.frame)


def _taken(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            block, tag = EXIF_TAKEN
            value = str(image.getexif().get_ifd(block).get(tag, ""))
    except MemoryError:
        raise
    except Exception:  # a broken EXIF block says nothing about the pixels
        return ""
    return value if re.fullmatch(r"[0-9: ]{1,20}", value) else ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _has_labels(source: str) -> bool:
    path = Path(source)
    return any(path.with_suffix(suffix).is_file() for suffix in LABEL_SUFFIXES)


def _write_refused(folder: Path, refused: Sequence[Refused]) -> None:
    """What this call could not keep, for a look and another try; none leaves no file."""
    file = folder / REFUSED
    if not refused:
        file.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    write_rows(text, [("source", "reason"), *((each.source, each.why) for each in refused)])
    write_text(file, text.getvalue())


def collected_summary(done: Collected) -> str:
    """What was done on one screen, for people."""
    names = f": {done.added[0]} to {done.added[-1]}" if done.added else ""
    lines = [f"{done.folder}: {len(done.added)} new{names}"]
    lines += [f"  {count} {changes}" for changes, count in sorted(done.changes.items())]
    if done.known:
        lines.append(f"  {done.known} were here already")
    if done.set_aside:
        lines.append(f"  {done.set_aside} look like others, set aside in {done.aside}")
    if done.frames_dropped:
        lines.append(f"  {done.frames_dropped} frames look like others, dropped")
    if done.labelled:
        lines.append(
            f"  {done.labelled} have label files beside them, which were not taken: labelled "
            "pictures need no collecting, odtrain reads them where they lie"
        )
    if done.refused:
        lines.append(f"  {len(done.refused)} refused, listed in {done.folder / REFUSED}:")
        lines += [
            f"    {plain(each.source)}: {plain(each.why)}" for each in done.refused[:SHOWN_REFUSED]
        ]
        if len(done.refused) > SHOWN_REFUSED:
            lines.append(f"    and {len(done.refused) - SHOWN_REFUSED} more")
    return "\n".join(lines)
