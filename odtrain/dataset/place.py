"""What label files say, laid onto the pictures as they are: labelled pictures of known classes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from odtrain.errors import DataError
from odtrain.findings import Finding
from odtrain.labels.annotations import Entry, LabelledImage, place
from odtrain.labels.label_map import read_label_map
from odtrain.media.images import Picture


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
    known = [
        replace(image, objects=tuple(item for item in image.objects if item.name in names))
        for image in images
    ]
    unused = sorted(set(names) - used)
    return (names, known), [
        *(Finding.of("OD202", label_map, f'no box is labelled "{name}".') for name in unused),
        *(finding for image in images for finding in _about_unknown(image, names)),
    ]


def _about_unknown(image: LabelledImage, names: Sequence[str]) -> Iterator[Finding]:
    """OD007 for each box of another class."""
    for item in image.objects:
        if item.name not in names:
            nearest = difflib.get_close_matches(item.name, names, n=1, cutoff=0)[0]
            cause = f'class "{item.name}" is not in the label map; nearest is "{nearest}".'
            file = image.label_file or image.image
            yield Finding.of("OD007", file, cause, box=image.describe(item), picture=image.image)
