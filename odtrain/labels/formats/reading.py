"""What the readers of all formats share: the files they may look at, what they found, limits.

Label files come from strangers: nothing but the files in `Sources` is ever opened, none beyond
`MAX_BYTES`, and what is wrong with one file takes `MAX_FAULTS` findings at most.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from odtrain.errors import unless_memory
from odtrain.findings import Finding
from odtrain.io.remote.files import local
from odtrain.labels.annotations import Entry, UnreadableError, WrittenObject, normalised

MAX_BYTES = 100_000_000
"""Of one label file. As Python values, JSON can take 25 times its size."""
MAX_FAULTS = 100
CONTROLS = dict.fromkeys([*range(32), *range(127, 160), 0xFFFE, 0xFFFF], " ")
UPLOADED = re.compile(r"[0-9a-f]{8}-.")
Corners = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax."""

CROWD = "crowd region"
"""What `data.crowd` is about, as `Entry.left_out` has it."""
UNLABELLED = "region without a label"
NESTED = "nested object"
UNUSABLE = "unusable object"
"""One that a finding of severity error is about."""
TALLIES = {
    "polygon": ("OD231", "polygons are taken by their bounds"),
    "mask": ("OD231", "masks are taken by their bounds"),
    "crowd_taken": ("OD231", "crowd regions are taken by their bounds"),
    "rotated": ("OD132", "rotated boxes are taken by their bounds"),
    "deleted": ("OD232", "objects marked as deleted are left out"),
    "task": ("OD232", "tasks that nobody has labelled are left out"),
    "annotator": ("OD232", "earlier annotations are left out: of each task the last one counts"),
    "disagree": ("OD232", "class numbers are left out: class/text is another name"),
    "no_region": ("OD232", "relations, choices and other entries that are no regions are left out"),
    **{
        name: ("OD233", f"XML files are not in the encoding that they should be; read as {name}")
        for name in ("cp949", "cp1252", "latin-1")
    },
    **{
        name: ("OD233", f"XML files begin with blanks or name another encoding; read as {shown}")
        for name, shown in {"utf-8-sig": "UTF-8", "utf-16": "UTF-16"}.items()
    },
}
"""What is counted over all files of a data set -> the finding that says how many there were."""
LEFT_OUT = {CROWD: "OD232", UNLABELLED: "OD135"}
"""What is counted, against the objects that are kept, over all files -> the finding that says so."""
SHOWN_UNREAD = 5


class Sources(NamedTuple):
    """The files that a reader may look at.

    Attributes:
        labels: under the folder of label files, in the order of their names.
        others: all else that belongs to the data set: lists of class names may be among them.
        stems: normalised names, without suffix, of the pictures.
        named: the user has named the format; what is of another one is an error then.
        unpacked: the pictures come out of records, so that the labels do too.
        crowd: crowd regions are objects like any other.
    """

    labels: Sequence[Path]
    others: Sequence[Path] = ()
    stems: frozenset[str] = frozenset()
    named: bool = False
    unpacked: bool = False
    crowd: bool = False

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """The label files whose names end so."""
        return [file for file in self.labels if file.suffix.lower() in suffixes]

    def of_picture(self, file: Path) -> bool:
        """Whether there is a picture of the same name, so that `file` must be its labels."""
        names = [file.stem, *before_upload([file.stem])]
        return any(normalised(name) in self.stems for name in names)


@dataclass
class Reading:
    """What a reader found.

    Attributes:
        entries: one for each picture that a file tells of.
        findings: what is wrong with the files.
        files: how many were of the reader's format.
        crowd: crowd regions are objects like any other.
    """

    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    crowd: bool = False
    _faults: Counter[Path] = field(default_factory=Counter)
    _tallies: Counter[str] = field(default_factory=Counter)
    _shapes: dict[Path, Counter[str]] = field(default_factory=dict)
    _left_out: list[str] = field(default_factory=list)

    def fault(self, file: Path, code: str, cause: str, remedy: str | None = None) -> None:
        """Say that something in `file` cannot be used."""
        self._faults[file] += 1
        if self._faults[file] <= MAX_FAULTS:
            self.findings.append(Finding.of(code, file, cause, remedy=remedy))

    def spoil(self, file: Path, code: str, cause: str, remedy: str | None = None) -> None:
        """Say that an object of the picture that is being read cannot be used."""
        self.fault(file, code, cause, remedy)
        self.leave_out(UNUSABLE)

    def refuse(self, error: UnreadableError) -> None:
        """Say that a file cannot be used at all."""
        self.findings.append(error.finding)

    def tally(self, what: str) -> None:
        """Count a thing of `TALLIES`."""
        self._tallies[what] += 1

    def shapeless(self, file: Path, shape: str) -> None:
        """Leave out an object whose shape has no box."""
        shown = printable(shape)[:40]
        self._shapes.setdefault(file, Counter())[shown] += 1
        self.leave_out(shown)

    def leave_out(self, what: str) -> None:
        """Note that an object of the picture that is being read is left out."""
        self._left_out.append(what)

    def left_out(self) -> tuple[str, ...]:
        """What was left out since this was last asked: of one picture, where it is asked after each."""
        since = tuple(self._left_out)
        self._left_out.clear()
        return since

    def unread(self, file: Path, what: Sequence[str]) -> None:
        """Say what in a file stands where nothing is read (OD134)."""
        if what:
            more = len(what) - SHOWN_UNREAD
            shown = [*what[:SHOWN_UNREAD], *([f"{more:,} more"] if more > 0 else [])]
            self.findings.append(
                Finding.of("OD134", file, f"is not read whole: {'; '.join(shown)}.")
            )

    def concluded(self, root: Path) -> Iterator[Finding]:
        """All findings, last those that are about many things at once, found under `root`."""
        yield from self.findings
        for file, count in self._faults.items():
            if count > MAX_FAULTS:
                cause = f"{count - MAX_FAULTS:,} more of its objects cannot be used."
                yield Finding.of("OD032", file, cause)
        for file, shapes in self._shapes.items():
            said = ", ".join(f"{shapes[shape]} of type {shape}" for shape in sorted(shapes)[:9])
            yield Finding.of("OD131", file, f"has shapes without a box: {said}.")
        for what, count in self._tallies.items():
            code, cause = TALLIES[what]
            yield Finding.of(code, root, f"{count:,} {cause}.")
        left_out = Counter(what for entry in self.entries for what in entry.left_out)
        kept = sum(len(entry.objects) for entry in self.entries)
        for what, code in LEFT_OUT.items():
            if count := left_out[what]:
                cause = f"left out as {plural(what)}: {count:,} of {count + kept:,} objects."
                yield Finding.of(code, root, cause)


def read_bytes(file: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a label file.

    Raises:
        UnreadableError: OD030: it cannot be read, or is larger than `limit`.
    """
    try:
        with local(file, as_held=True).open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise UnreadableError(
            Finding.of("OD030", file, f"cannot be read: {unless_memory(error).strerror}.")
        ) from None
    if len(data) > limit:
        cause = f"is larger than {limit // 1_000_000} MB."
        raise UnreadableError(
            Finding.of("OD030", file, cause, remedy="Split it into several files.")
        )
    return data


def decode(data: bytes) -> tuple[str, str]:
    """Text in one of the encodings that label tools write, and that encoding's name.

    UTF-8 and UTF-16 by their marks, else UTF-8 if it is that, else what Korean and Western Windows
    write: labelImg's classes.txt is in the locale's encoding.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace"), "utf-16"
    for encoding in ("utf-8-sig", "cp949", "cp1252"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1"), "latin-1"


def printable(text: str) -> str:
    """`text` without control and half characters, with which no file could be written again."""
    return text.translate(CONTROLS).encode("utf-8", "replace").decode()


def class_name(value: Any) -> str:
    """A class name as a label file gives it, in one spelling; empty if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    try:
        return normalised(printable(str(value)))
    except ValueError:  # an integer of thousands of digits
        return ""


def number(value: Any) -> float | None:
    """A finite number, also one in a string; None if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def numbers(values: Any) -> list[float] | None:
    """A list of finite numbers; None if it is anything else."""
    if not isinstance(values, list):
        return None
    results = [number(value) for value in values]
    return None if None in results else [result for result in results if result is not None]


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) in pixels; None if they are none."""
    sides = [side for side in (number(width), number(height)) if side and 0.5 < side < 1e9]
    return (round(sides[0]), round(sides[1])) if len(sides) == 2 else None


def flag(value: Any) -> bool:
    """Whether a yes-or-no value says yes, in any of the spellings that label tools have."""
    return str(value).strip().lower() in ("1", "true", "yes") if value is not None else False


def picture_name(written: Any) -> str:
    r"""The relative path that a label file gives for a picture: / between folders, none above.

    Takes \ and / as separators; what would lead out of the folder of pictures is dropped, since
    pictures are looked up by their names and never opened by what a label file says.
    """
    if not isinstance(written, str):
        return ""
    path = PureWindowsPath(printable(written))
    return "/".join(part for part in path.parts if part not in (path.anchor, "..", "."))


def before_upload(names: Sequence[str]) -> list[str]:
    """What pictures of these names were called before Label Studio put eight digits and - before it."""
    parted = [name.rpartition("/") for name in names]
    return [f"{folder}{slash}{base[9:]}" for folder, slash, base in parted if UPLOADED.match(base)]


def bounds(points: Sequence[Sequence[float]]) -> Corners:
    """The smallest upright box around points (x, y), of which there must be one at least."""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return min(xs), min(ys), max(xs), max(ys)


def rotated_bounds(corners: Corners, degrees: float, pivot: tuple[float, float]) -> Corners:
    """The smallest upright box around `corners` turned clockwise, on the screen, about `pivot`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    xmin, ymin, xmax, ymax = corners
    offsets = [(x - pivot[0], y - pivot[1]) for x in (xmin, xmax) for y in (ymin, ymax)]
    turned = [(pivot[0] + x * cos - y * sin, pivot[1] + x * sin + y * cos) for x, y in offsets]
    return bounds(turned)


def centre_of(corners: Corners) -> tuple[float, float]:
    """The middle of a box, x and y."""
    return (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2


def entry_of_picture(
    file: Path,
    names: Sequence[str],
    size: tuple[int, int] | None,
    objects: Sequence[WrittenObject],
    left_out: tuple[str, ...] = (),
    **flags: bool,
) -> Entry:
    """An entry, with what names the picture more than once or not at all left out."""
    known = tuple(dict.fromkeys(filter(None, names)))
    return Entry(file, known, size, tuple(objects), left_out=left_out, **flags)


def counted(what: str, number: int) -> str:
    """`2 crowd regions`."""
    return f"{number:,} {what if number == 1 else plural(what)}"


def plural(what: str) -> str:
    """`crowd regions`, `regions without a label`."""
    return what.replace("region", "regions") if "region" in what else f"{what}s"
