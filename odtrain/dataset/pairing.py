"""Which label file belongs to which picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from odtrain.findings import Finding
from odtrain.labels.annotations import Entry, normalised
from odtrain.labels.formats.reading import before_upload
from odtrain.labels.formats.recognise import Labels
from odtrain.media.images import SUFFIXES

MAX_UNMATCHED = 100
"""Findings about pictures that one label file tells of and that are not there."""


OTHER_CASE = "Give both names the same letters; in a copy odtrain does it: odtrain check --fix NEW"


class PictureNames:
    """Finds pictures by the names that label files and lists call them."""

    def __init__(self, pictures: Iterable[Path]) -> None:
        """Index `pictures` by name and by stem."""
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        self.by_stem: dict[str, list[Path]] = defaultdict(list)
        self.by_folded: dict[str, list[Path]] = defaultdict(list)
        for picture in pictures:
            self.by_name[normalised(picture.name)].append(picture)
            self.by_stem[normalised(picture.stem)].append(picture)
            self.by_folded[normalised(picture.stem).casefold()].append(picture)

    def find(self, name: str) -> list[Path]:
        """The pictures called `name`: with its suffix, without one, or with another one."""
        name = normalised(name)
        path = PurePath(name)
        matches = self.by_name.get(name) or self.by_stem.get(name)
        if not matches and path.suffix.lower() in SUFFIXES:
            matches = self.by_stem.get(path.stem)
        return matches or []

    def find_any_case(self, name: str) -> Path | None:
        """The only picture whose name differs from `name` in upper and lower case alone."""
        folded = normalised(name).casefold()
        path = PurePath(folded)
        stem = path.stem if path.suffix in SUFFIXES else folded
        matches = self.by_folded.get(stem, [])
        return matches[0] if len(matches) == 1 else None

    def find_path(self, text: str) -> list[Path]:
        """As `find`, of a path: of several pictures, those in the folders that it ends with."""
        path = PurePath(text)
        matches = self.find(path.name)
        return nearest(matches, path.parts[:-1])

    def clashes(self) -> list[list[Path]]:
        """Groups of pictures that share a name without suffix."""
        return [pictures for pictures in self.by_stem.values() if len(pictures) > 1]


def nearest(pictures: list[Path], folders: Sequence[str]) -> list[Path]:
    """Of several pictures, those whose own folders end most like `folders`.

    So `labels/train/1.txt` is of `images/train/1.jpg`, not of `images/test/1.jpg`.
    """
    if len(pictures) < 2 or not folders:
        return pictures

    def shared(picture: Path) -> int:
        pairs = zip(reversed(picture.parent.parts), reversed(folders), strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

    most = max(map(shared, pictures))
    return [picture for picture in pictures if shared(picture) == most]


class Candidates(NamedTuple):
    """What might belong together.

    Attributes:
        entries: picture -> what is said of a picture that it may be.
        ambiguous: pictures that are called as another one that is nearer.
        without: label file -> what it says of pictures that are not there.
        other_case: pictures that differ from what is said in upper and lower case alone, by the
            number of the entry.
    """

    entries: dict[Path, list[Entry]]
    ambiguous: set[Path]
    without: dict[Path, list[Entry]]
    other_case: dict[int, Path]


BACKGROUND = {
    "voc": "save it in labelImg without boxes",
    "yolo": "give it an empty .txt file",
    "csv": "give it a row with empty class and box",
}
"""How a picture without objects is labelled, where it is not so in the tool that wrote the labels."""


def match(
    pictures: Sequence[Path],
    given: Mapping[Path, str],
    labels: Labels,
    broken: Sequence[Finding],
    any_case: bool = False,
) -> tuple[dict[Path, Entry], list[Finding]]:
    """The pictures that are used, each with its entry; OD012 to OD014 and OD102.

    Args:
        pictures: all of them.
        given: picture -> split, where the split is given: then others are not used.
        labels: what label files say.
        broken: what is wrong with them; a picture whose label file cannot be read has one all the same.
        any_case: names may differ in upper and lower case where nothing fits better.
    """
    if not labels.format:
        return {}, []
    used = [picture for picture in pictures if picture in given] if given else pictures
    names = PictureNames(used)
    candidates = _candidates(names, labels.entries, any_case)
    pairs = {picture: _the_one(picture, of_it) for picture, of_it in candidates.entries.items()}
    stems = {normalised(Path(finding.file).stem) for finding in broken}
    nearly = set(candidates.other_case.values())
    return {picture: entry for picture, (entry, _) in pairs.items()}, [
        *(_without_picture(candidates) if len(used) == len(pictures) else ()),
        *_clashing(names, candidates),
        *(finding for _, about in pairs.values() for finding in about),
        *(
            _unlabelled(picture, labels)
            for picture in used
            if picture not in pairs
            and picture not in nearly
            and normalised(picture.stem) not in stems
        ),
    ]


def _unlabelled(picture: Path, labels: Labels) -> Finding:
    """OD102, in the words of the labels' format."""
    shared = any(entry.shared for entry in labels.entries[:1])
    cause = "is in none of the label files." if shared else "has no label file."
    how = BACKGROUND.get(labels.format, "save it without boxes in the tool that wrote the labels")
    remedy = f"It is left out. Label it; if it shows nothing to find, {how}."
    return Finding.of("OD102", picture, cause, remedy=remedy)


def _candidates(names: PictureNames, entries: Sequence[Entry], any_case: bool) -> Candidates:
    """By the label file's own name first, then by the name it gives."""
    candidates = Candidates(defaultdict(list), set(), defaultdict(list), {})
    for entry in entries:
        matches = _named(names, entry, entry.names)
        matches = matches or _named(names, entry, before_upload(entry.names))
        if not matches and (nearly := _in_other_case(names, entry)):
            candidates.other_case[id(entry)] = nearly
            matches = [nearly] if any_case else []
        if not matches:
            candidates.without[entry.label_file].append(entry)
        for picture in matches:
            candidates.entries[picture].append(entry)
        candidates.ambiguous.update(matches[1:])
    return candidates


def _named(names: PictureNames, entry: Entry, called: Sequence[str]) -> list[Path]:
    """The pictures of the first name that any has; of several, those in folders most like the label's."""
    for path in map(PurePosixPath, called):
        if matches := names.find(path.name):
            return nearest(matches, [*entry.label_file.parent.parts, *path.parts[:-1]])
    return []


def _in_other_case(names: PictureNames, entry: Entry) -> Path | None:
    found = (names.find_any_case(PurePosixPath(name).name) for name in entry.names)
    return next((picture for picture in found if picture), None)


def _clashing(names: PictureNames, candidates: Candidates) -> Iterator[Finding]:
    """OD013 where it is not clear which of several pictures of one name is labelled."""
    labelled = candidates.entries
    for clash in names.clashes():
        if any(picture in labelled for picture in clash) and (
            candidates.ambiguous.intersection(clash)
            or not all(picture in labelled for picture in clash)
        ):
            cause = f"has the name of {', '.join(map(str, clash[1:]))}."
            yield Finding.of("OD013", clash[0], cause)


def _without_picture(candidates: Candidates) -> Iterator[Finding]:
    """OD012, a hundred for one label file at most."""
    for file, entries in candidates.without.items():
        for entry in entries[:MAX_UNMATCHED]:
            shown = " or ".join(f'"{name}"' for name in entry.names)
            cause, remedy = f"no picture is called {shown}", None
            if nearly := candidates.other_case.get(id(entry)):
                cause += f'; "{nearly.name}" differs in upper and lower case alone'
                remedy = OTHER_CASE
            yield Finding.of("OD012", file, f"{cause}.", remedy=remedy)
        if len(entries) > MAX_UNMATCHED:
            more = len(entries) - MAX_UNMATCHED
            cause = f"{more:,} more pictures that it tells of are not there."
            yield Finding.of("OD012", file, cause)


def _the_one(picture: Path, entries: Sequence[Entry]) -> tuple[Entry, list[Finding]]:
    """The entry beside the picture if there is one; else there must be but one, or OD014.

    Files about many pictures may repeat each other: the tutorial's raccoon_labels.csv holds the rows
    of train_labels.csv and test_labels.csv.
    """
    beside = [entry for entry in entries if entry.label_file.parent == picture.parent]
    best = beside or entries
    if len(best) == 1 or _agree(best):
        return best[0], []
    files = list(dict.fromkeys(str(entry.label_file) for entry in best))
    times = "twice " if len(files) < len(best) else ""
    return best[0], [Finding.of("OD014", picture, f"is labelled {times}by {', '.join(files)}.")]


def _agree(entries: Sequence[Entry]) -> bool:
    said = {(entry.objects, entry.size, entry.shared or entry.label_file) for entry in entries}
    return len(said) == 1
