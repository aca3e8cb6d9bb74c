"""`odtrain check --fix`: a repaired copy of a data set, pictures and Pascal VOC XML, and what was changed.

What can be put right without a person is put right in the copy. A picture whose labels only a person can
judge is left out of it and named: a wrong label is worse than none. The user's files are only read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from odtrain.config.schema import DataConfig, ModelConfig
from odtrain.dataset.check import Checked, check
from odtrain.dataset.checks.class_names import probable, slips
from odtrain.dataset.checks.leakage import difference
from odtrain.dataset.convert import common_names, free_folder, written_whole
from odtrain.dataset.pairing import OTHER_CASE
from odtrain.dataset.splits import SPLITS
from odtrain.errors import DataError
from odtrain.findings import Finding, findings_table
from odtrain.io.free_names import numbered
from odtrain.io.remote.files import read_bytes
from odtrain.labels.annotations import (
    TOLERANCE,
    Entry,
    LabelledImage,
    LabelledObject,
    WrittenObject,
    overlapping,
    place,
)
from odtrain.labels.formats import voc
from odtrain.media.images import (
    Picture,
    encode,
    finding_of,
    record_format,
    turned_by_exif,
    without_exif,
)
from odtrain.system.progress import Bar
from odtrain_runtime.pictures import FORMATS, UnusableError

CHANGES_FILE = "CHANGES.md"
LEFT_OUT = (
    "OD003",
    "OD004",
    "OD005",
    "OD010",
    "OD011",
    "OD012",
    "OD014",
    "OD019",
    "OD030",
    "OD031",
    "OD102",
)
"""Findings about files that the copy goes without."""
INSIDE = 0.5
"""A box with at least this share of its area inside the picture is cut; others were drawn elsewhere."""
SAME_SHAPE = 0.02
"""Relative difference of two aspect ratios up to which one size is the other one scaled."""
SHOWN = 20
"""Changes that are printed; the file in the copy has all."""


@dataclass
class Log:
    """What was done, a line each.

    Attributes:
        changes: in what the copy differs.
        left_out: what it goes without, and why.
    """

    changes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def change(self, code: str, file: Path, what: str) -> None:
        """Note what was changed because of a finding of `code`."""
        self.changes.append(f"{code} {file}: {what}")

    def leave_out(self, code: str, file: Path | str, why: str) -> None:
        """Note a file that the copy goes without."""
        self.left_out.append(f"{code} {file}: {why}")


@dataclass(frozen=True)
class Repaired:
    """What became of a data set.

    Attributes:
        folder: of the copy.
        log: what was done.
        findings: of the copy.
    """

    folder: Path
    log: Log
    findings: tuple[Finding, ...]


class NeedsAPersonError(Exception):
    """Labels that cannot be put right here: the code of the finding, and why."""


def repair(data: DataConfig, model: ModelConfig, output: str | None, checked: Checked) -> Repaired:
    """Write a repaired copy to the new folder `output`, whole or not at all, and check it.

    Args:
        data: the data set that was checked.
        model: the network that is to learn it.
        output: the user has to give one.
        checked: all that is known of the data set.

    Raises:
        ConfigError: `output` is missing.
        DataError: `output` is there already or cannot be written, or nothing would be left.
    """
    place = free_folder(output, data)
    log = Log()
    for finding in checked.findings:
        if finding.code == "OD012" and finding.remedy == OTHER_CASE:
            log.change("OD012", Path(finding.file), f"{finding.cause} It was taken.")
    if log.changes:
        checked = check(data, model, any_case=True)
    images = _repaired_images(data, checked, log)
    if not images:
        problem = "would be empty: no picture can be used."
        raise DataError(place, problem, "Look at the findings first: odtrain check")
    with written_whole(place) as folder:
        _write(folder, images, checked, log)
        findings = check(_settings_of_copy(data, folder), model).findings
        (folder / CHANGES_FILE).write_text(_as_markdown(log), encoding="utf-8", errors="replace")
    return Repaired(place, log, findings)


def _settings_of_copy(data: DataConfig, folder: Path) -> DataConfig:
    """How the copy is read: the split lies in its folders where it was given."""
    return replace(
        data,
        images=str(folder),
        annotations=None,
        format="voc",
        train_list=None,
        validation_list=None,
        test_list=None,
        prepared=str(folder / ".prepared"),
    )


# ---- which pictures, with which objects


def _repaired_images(data: DataConfig, checked: Checked, log: Log) -> list[LabelledImage]:
    for finding in checked.findings:
        if finding.code in LEFT_OUT:
            log.leave_out(finding.code, finding.file, finding.cause)
        if finding.code in ("OD006", "OD032", "OD033"):
            log.change(finding.code, Path(finding.file), f"{finding.cause} It was left out.")
    unsure = {Path(finding.file) for finding in checked.findings if finding.code == "OD014"}
    unsure |= set(_wrongly_named(checked, log))
    known = checked.class_names if data.label_map is not None else ()
    meant = slips(checked.images, known)
    images = []
    for picture, held in checked.pictures.items():
        if picture not in unsure:
            try:
                repairer = _Repairer(picture, checked.entries[picture], held, log)
                images.append(repairer.repaired(meant, known))
            except NeedsAPersonError as error:
                log.leave_out(error.args[0], picture, error.args[1])
    return _without_copies(images, checked, log)


def _wrongly_named(checked: Checked, log: Log) -> Iterator[Path]:
    """Pictures that share a label file with one whose full name that file gives (OD013)."""
    of_file: dict[Path, list[Path]] = {}
    for picture, entry in checked.entries.items():
        if not entry.shared:
            of_file.setdefault(entry.label_file, []).append(picture)
    for file, pictures in of_file.items():
        named = [p for p in pictures if p.name in checked.entries[p].names]
        for picture in pictures:
            if len(pictures) > 1 and named != [picture]:
                log.leave_out("OD013", picture, f"{file} may be about another picture.")
                yield picture


class _Repairer:
    """Puts the labels of one picture right."""

    def __init__(self, picture: Path, entry: Entry, held: Picture, log: Log) -> None:
        """Keep what is known of `picture`."""
        self.picture, self.entry, self.held, self.log = picture, entry, held, log
        self.notes: list[tuple[str, str]] = []

    def repaired(self, meant: dict[str, tuple[str, str]], known: Sequence[str]) -> LabelledImage:
        """The picture with its objects put right, and a line in the log for each change.

        Raises:
            NeedsAPersonError: a class or a box cannot be guessed, or it would become background.
        """
        if self.entry.left_out and not self.entry.objects:
            raise NeedsAPersonError("OD133", "all that is labelled would be left out.")
        size = self.held.width, self.held.height
        written = [self._in_pixels(item) for item in self.entry.objects]
        written = [self._in_order(item) for item in self._scaled(written)]
        written = [cut for item in written if (cut := self._inside(item)) is not None]
        named = [replace(item, name=self._named(item, meant, known)) for item in written]
        as_pixels = replace(self.entry, objects=tuple(named), relative=False)
        objects, about = place(as_pixels, *size)
        if self.entry.objects and not objects:
            raise NeedsAPersonError("OD136", "none of its boxes can be used.")
        for finding in about:
            if finding.code == "OD107":
                self._note("OD107", f"{finding.box} was there twice; one was kept.")
        image = LabelledImage(
            self.picture,
            self.entry.label_file,
            self.held.height,
            self.held.width,
            tuple(self._single(objects)),
            self.held.orientation,
            self.entry.verified,
        )
        if self.entry.size not in (None, size):
            self._note("OD103", f"the label file now says {size[0]} x {size[1]}.")
        for code, what in self.notes:
            self.log.change(code, self.entry.label_file, self.entry.about(what))
        return image

    def _note(self, code: str, what: str) -> None:
        self.notes.append((code, what))

    def _scaled(self, written: list[WrittenObject]) -> list[WrittenObject]:
        """Boxes of a picture that was resized after labelling, scaled to what it is now.

        Only where they prove it: some leave the picture, and all fit the size that the file gives.
        """
        width, height = self.held.width, self.held.height
        given = self.entry.size or (0, 0)
        if not all(given) or given == (width, height) or self.entry.relative:
            return written
        x, y = width / given[0], height / given[1]
        if abs(x / y - 1) > SAME_SHAPE or not any(_leaves(i, width, height) for i in written):
            return written
        if any(_leaves(item, *given) for item in written):
            return written
        self._note("OD008", f"boxes scaled from {given[0]} x {given[1]} to {width} x {height}.")
        return [
            replace(item, xyxy=(a * x, b * y, c * x, d * y))
            for item in written
            for a, b, c, d in [item.xyxy]
        ]

    def _in_pixels(self, item: WrittenObject) -> WrittenObject:
        size = self.held.width, self.held.height
        if self.entry.is_in_pixels(item, *size):
            self._note("OD008", f"{item.describe()} was taken as pixels, which it is.")
            return item
        return self.entry.in_pixels(item, *size)

    def _in_order(self, item: WrittenObject) -> WrittenObject:
        xmin, ymin, xmax, ymax = item.xyxy
        ordered = min(xmin, xmax), min(ymin, ymax), max(xmin, xmax), max(ymin, ymax)
        if ordered != item.xyxy and xmin != xmax and ymin != ymax:
            self._note("OD009", f"{item.describe()}: corners put in order.")
            return replace(item, xyxy=ordered)
        return item

    def _inside(self, item: WrittenObject) -> WrittenObject | None:
        """The object, cut at the border of the picture; None for one without area.

        Raises:
            NeedsAPersonError: most of it lies outside.
        """
        width, height = self.held.width, self.held.height
        xmin, ymin, xmax, ymax = item.xyxy
        area = (xmax - xmin) * (ymax - ymin)
        if area <= 0:
            self._note("OD009", f"{item.describe()} has no area and was left out.")
            return None
        cut = max(xmin, 0.0), max(ymin, 0.0), min(xmax, width), min(ymax, height)
        if cut == item.xyxy:
            return item
        inside = max(cut[2] - cut[0], 0) * max(cut[3] - cut[1], 0)
        if inside < INSIDE * area:
            cause = f"{item.describe()} leaves the picture, which is {width} x {height}."
            raise NeedsAPersonError("OD008", cause)
        code = "OD008" if _leaves(item, width, height) else "OD104"
        self._note(code, f"{item.describe()} was cut at the border.")
        return replace(item, xyxy=cut)

    def _named(
        self, item: WrittenObject, meant: dict[str, tuple[str, str]], known: Sequence[str]
    ) -> str:
        if item.name not in meant and (not known or item.name in known):
            return item.name
        code, name = meant.get(item.name) or ("OD007", probable(item.name, known))
        if name is None:
            raise NeedsAPersonError("OD007", f'class "{item.name}" is not in the label map.')
        self._note(code, f'{item.describe()}: class "{item.name}" renamed to "{name}".')
        return name

    def _single(self, objects: Sequence[LabelledObject]) -> list[LabelledObject]:
        """The objects without those that are another one once more."""
        again = {twin for code, twin, _, _ in overlapping(objects) if code == "OD119"}
        size = self.held.width, self.held.height
        for item in objects:
            if item in again:
                self._note("OD119", f"{item.in_pixels(*size).describe()} was nearly there twice.")
        return [item for item in objects if item not in again]


def _leaves(item: WrittenObject, width: int, height: int) -> bool:
    xmin, ymin, xmax, ymax = item.xyxy
    return max(-xmin, -ymin, xmax - width, ymax - height) > TOLERANCE


def _without_copies(
    images: Sequence[LabelledImage], checked: Checked, log: Log
) -> list[LabelledImage]:
    """One of each group of equal pictures whose labels agree: that of test before one of training."""
    by_file = {image.image: image for image in images}
    split = {image.image: part for part in SPLITS for image in checked.splits[part]}
    dropped: set[Path] = set()
    for group in checked.scenes.same:
        present = [file for file in group if file in by_file]
        if not present:
            continue
        kept = max(present, key=lambda file: SPLITS.index(split.get(file, "train")))
        for file in present:
            if file != kept and difference(by_file[kept], by_file[file]) is None:
                code = "OD206" if split.get(file) == split.get(kept) else "OD106"
                log.leave_out(code, file, f"equals {kept}, which was kept.")
                dropped.add(file)
    return [image for image in images if image.image not in dropped]


# ---- the files


def _write(folder: Path, images: Sequence[LabelledImage], checked: Checked, log: Log) -> None:
    names = _new_names(images, checked, log)
    written = []
    for image in Bar(images, doing="repairing", delay=1, leave=False):
        file = folder / "images" / names[image.image]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_picture_bytes(image, checked.pictures[image.image], log))
        written.append(replace(image, orientation=1))
    voc.write(folder / "annotations", written, [names[image.image] for image in images])


def _picture_bytes(image: LabelledImage, held: Picture, log: Log) -> bytes:
    """The file's own bytes where every tool shows them alike, else its pixels written anew.

    Raises:
        DataError: the picture changed since it was looked at.
    """
    try:
        data = read_bytes(image.image, as_held=True)
        if held.verbatim and turned_by_exif(image.image, data):
            log.change(
                "OD203", image.image, "EXIF, which would turn it away from its boxes, removed."
            )
            return without_exif(data)
        if held.verbatim:
            return data
        new = encode(image.image, data, held)
    except (OSError, UnusableError) as error:
        why = finding_of(error) if isinstance(error, UnusableError) else error
        raise DataError(image.image, f"changed meanwhile: {why}.", "Run it again.") from None
    how = "upright and " if held.orientation != 1 else ""
    log.change(
        "OD203", image.image, f"pixels written {how}as {record_format(held.format).upper()}."
    )
    return new


def _new_names(images: Sequence[LabelledImage], checked: Checked, log: Log) -> dict[Path, Path]:
    """Picture -> its name in the copy: below its split where that was given, with a true suffix."""
    files = [image.image for image in images]
    given = checked.given
    inside = dict(zip(files, common_names(files), strict=True))
    by_folders = given and all(
        part in _parts(inside[file]) for file, part in given.items() if file in inside
    )
    names: dict[Path, Path] = {}
    taken: set[str] = set()
    for file in files:
        name = inside[file] if not given or by_folders else Path(given[file], file.name)
        suffix = _true_suffix(file, checked.pictures[file])
        if suffix != name.suffix:
            log.change("OD101", file, f"is called {name.stem}{suffix} in the copy.")
        names[file] = _free_name(name.with_suffix(suffix), taken)
    return names


def _free_name(name: Path, taken: set[str]) -> Path:
    """`name`, numbered if its label file would be another one's."""
    free = next(n for n in numbered(name) if str(n.with_suffix("")).casefold() not in taken)
    taken.add(str(free.with_suffix("")).casefold())
    return free


def _parts(name: Path) -> set[str]:
    return {part.lower() for part in name.parts[:-1]}


def _true_suffix(file: Path, held: Picture) -> str:
    """The file's own suffix if it tells what the copy's bytes are, else the usual one for them."""
    kind = held.format if held.verbatim else record_format(held.format).upper()
    return file.suffix if file.suffix.lower() in FORMATS[kind] else FORMATS[kind][0]


# ---- what is said


def _as_markdown(log: Log) -> str:
    parts = ["# Changes", "", "What this copy was repaired from was not touched.", ""]
    for title, lines in (("Changed", log.changes), ("Left out", log.left_out)):
        parts += [f"## {title}: {len(lines)}", "", *(f"- {line}" for line in lines), ""]
    return "\n".join(parts)


def describe(repaired: Repaired) -> str:
    """What was done on one screen, and what is left for a person."""
    log = repaired.log
    lines = [f"repaired copy: {repaired.folder}"]
    for title, entries in (("changed", log.changes), ("left out", log.left_out)):
        lines += [f"{title}: {len(entries)}", *(f"  {entry}" for entry in entries[:SHOWN])]
        if len(entries) > SHOWN:
            lines.append(
                f"  and {len(entries) - SHOWN} more, all in {repaired.folder / CHANGES_FILE}"
            )
    left = Counter(f.code for f in repaired.findings if f.severity != "info")
    lines += [f"  still there: {code}, {number} times" for code, number in sorted(left.items())]
    summary = findings_table(repaired.findings, of_each=0).splitlines()[-1]
    lines.append(f"the copy, checked: {summary}; to train on it: data.images={repaired.folder}")
    return "\n".join(lines)
