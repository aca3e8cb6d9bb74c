"""What label files say, laid onto the pictures as they are: labelled pictures of known classes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from odtrain.dataset.checks.class_names import MOST_COMPARED
from odtrain.errors import DataError
from odtrain.findings import Finding
from odtrain.labels.annotations import Entry, LabelledImage, place
from odtrain.labels.label_map import read_label_map
from odtrain.media.images import Picture

COMPARED_LETTERS = 60
"""Of each name, where the nearest one is looked for."""
MOST_UNKNOWN = 100
"""Unknown names of which the nearest known one is told."""


def labelled(
    entries: Mapping[Path, Entry], pictures: Mapping[Path, Picture]
) -> tuple[list[LabelledImage], list[Finding]]:
    """Each of `pictures` with its objects; OD103, OD105 and what `place` finds."""
    images, findings = [], []
    for file, held in pictures.items():
        image, about_boxes = _labelled(file, entries[file], held)
        images.append(image)
        findings += [*_about_picture(file, entries[file], held), *about_boxes]
    return images, findings


def _labelled(file: Path, entry: Entry, held: Picture) -> tuple[LabelledImage, list[Finding]]:
    objects, about_boxes = place(entry, held.width, held.height)
    image = LabelledImage(
        file,
        entry.label_file,
        held.height,
        held.width,
        objects,
        held.orientation,
        entry.verified,
    )
    return image, [replace(finding, picture=str(file)) for finding in about_boxes]


def _about_picture(file: Path, entry: Entry, held: Picture) -> Iterator[Finding]:
    """OD103 and OD105."""
    if entry.size not in (None, (held.width, held.height)):
        given = entry.size
        gives = f"says {given[0]} x {given[1]}" if given and any(given) else "gives no size"
        cause = f"{gives}, {file.name} has {held.width} x {held.height} pixels."
        yield Finding.of("OD103", entry.label_file, cause)
    if held.ambiguous and entry.objects:
        cause = "EXIF turns this picture, and the label's size does not show whether boxes follow."
        yield Finding.of("OD105", file, cause)


def of_known_classes(
    label_map: str | None, images: Sequence[LabelledImage]
) -> tuple[tuple[tuple[str, ...], Sequence[LabelledImage]], list[Finding]]:
    """Names, sorted or as the user's label map has them, and images with boxes of those only.

    And OD007, OD020 and OD202.
    """
    used = {item.name for image in images for item in image.objects}
    if label_map is None:
        return (tuple(sorted(used)), images), []
    try:
        names = read_label_map(Path(label_map))
    except DataError as error:
        where, problem, remedy = error.args
        about_map = Finding.of("OD020", where, problem, remedy=remedy or None)
        return (tuple(sorted(used)), images), [about_map]
    known = frozenset(names)
    kept = [
        replace(image, objects=tuple(item for item in image.objects if item.name in known))
        for image in images
    ]
    unused = sorted(known - used)
    nearest = _Nearest(names).of
    return (names, kept), [
        *(Finding.of("OD202", label_map, f'no box is labelled "{name}".') for name in unused),
        *(finding for image in images for finding in _about_unknown(image, known, nearest)),
    ]


class _Nearest:
    """Says of unknown names which known one is nearest, of as many as can be compared quickly."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [name[:COMPARED_LETTERS] for name in names[:MOST_COMPARED]]
        self.told: dict[str, str] = {}

    def of(self, name: str) -> str:
        """`; nearest is "cat"`; nothing behind the first `MOST_UNKNOWN`."""
        if name not in self.told and len(self.told) >= MOST_UNKNOWN:
            return ""
        if name not in self.told:
            short = name[:COMPARED_LETTERS]
            nearest = difflib.get_close_matches(short, self.names, n=1, cutoff=0)
            self.told[name] = f'; nearest is "{nearest[0]}"'
        return self.told[name]


def _about_unknown(
    image: LabelledImage, known: Collection[str], nearest: Callable[[str], str]
) -> Iterator[Finding]:
    """OD007 for each box of another class."""
    for item in image.objects:
        if item.name not in known:
            cause = f'class "{item.name}" is not in the label map{nearest(item.name)}.'
            file = image.label_file or image.image
            yield Finding.of("OD007", file, cause, box=image.describe(item), picture=image.image)
