"""YOLO text: a file a picture, a line an object: class number, then fractions of the picture.

`class cx cy width height`, perhaps with a score behind, or `class x1 y1 x2 y2 x3 y3 ...` around a
shape. The names of the classes are in a file of their own: classes.txt, obj.names or data.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from odtrain.findings import Finding
from odtrain.labels.annotations import LabelledImage, UnreadableError, WrittenObject
from odtrain.labels.formats.reading import (
    Corners,
    Reading,
    Sources,
    bounds,
    class_name,
    decode,
    entry_of_picture,
    number,
    read_bytes,
)
from odtrain_runtime.provenance import unnumbered

MAX_LABEL_BYTES = 10_000_000
MAX_NAMES_BYTES = 200_000
NAME_LISTS = ("classes.txt", "labels.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
"""labelImg's and Label Studio's; others'; CVAT's; Roboflow's; labelImg's own list."""
NAME_TABLES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
OTHER_TEXTS = (
    "notes.txt",
    "readme.txt",
    "readme.dataset.txt",
    "readme.roboflow.txt",
    "license.txt",
)
"""Text beside labels that is none."""


def read(sources: Sources) -> Reading:
    """Every .txt file that holds YOLO's lines, or bears the name of a picture."""
    reading = Reading()
    names = _Names(sources, reading)
    for file in sources.with_suffix(".txt"):
        if file.name.lower() in (*NAME_LISTS, *OTHER_TEXTS):
            continue
        expected = sources.of_picture(file)
        try:
            text, _ = decode(read_bytes(file, MAX_LABEL_BYTES))
        except UnreadableError as error:
            if expected:
                reading.refuse(error)
            continue
        lines = [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
        if expected or (lines and all(_looks_right(words) for _, words in lines)):
            reading.files += 1
            objects = _objects(file, lines, names.beside(file) if lines else [], reading)
            reading.entries.append(
                entry_of_picture(
                    file, [file.stem], None, objects, reading.left_out(), relative=True
                )
            )
    return reading


def _looks_right(words: Sequence[str]) -> bool:
    return len(words) >= 5 and all(number(word) is not None for word in words)


def _objects(
    file: Path, lines: Iterable[tuple[int, Sequence[str]]], names: Sequence[str], reading: Reading
) -> list[WrittenObject]:
    objects = []
    for position, words in lines:
        values = [value for value in map(number, words) if value is not None]
        corners = _corners(values[1:], reading) if len(values) == len(words) else None
        if corners is None:
            reading.spoil(file, "OD032", *_about_line(position, words))
        elif not names:
            continue
        elif values[0] != int(values[0]) or not 0 <= values[0] < len(names):
            cause = (
                f"line {position} has class {words[0][:20]}; the list has 0 to {len(names) - 1}."
            )
            reading.spoil(file, "OD033", cause)
        elif name := names[int(values[0])]:
            objects.append(WrittenObject(name, corners, at=f"line {position}"))
        else:
            cause = f"line {position} has class {words[0][:20]}, which has no name in the list."
            reading.spoil(file, "OD033", cause)
    return objects


def _about_line(position: int, words: Sequence[str]) -> tuple[str, str | None]:
    """What is wrong with a line that is none of YOLO, and what to do where that is known."""
    line = " ".join(words)
    said = f'line {position} is "{line[:60]}"'
    parted, decimal = re.sub(r"[,;]+(?=\s|$)|;", " ", line).split(), line.replace(",", ".").split()
    if len(words) >= 5 and _is_box(decimal):
        return f"{said}, with commas for points.", "Write each number with a point, as 0.5."
    if _is_box(parted) or _is_box(line.replace(",", " ").split()):
        sign = ";" if ";" in line else ","
        problem = f'{said}, with "{sign}" between its numbers.'
        return problem, "Put blanks alone between the numbers."
    if number(words[0]) is None and _is_box(["0", *words[1:]]):
        problem = f'{said}: "{words[0][:40]}" is no class number.'
        return problem, "Write the class's number in the list of classes, the first is 0."
    return f"{said}, not class cx cy width height.", "Correct the line, or delete it."


def _is_box(words: Sequence[str]) -> bool:
    """Whether words are class, centre and size, or outline, and all numbers."""
    count = len(words)
    fits = count in (5, 6) or (count >= 7 and count % 2 == 1)
    return fits and all(number(word) is not None for word in words)


def _corners(values: Sequence[float], reading: Reading) -> Corners | None:
    if len(values) in (4, 5):  # the fifth is a score
        cx, cy, width, height = values[:4]
        return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    if len(values) >= 6 and len(values) % 2 == 0:
        reading.tally("polygon")
        return bounds(list(zip(values[::2], values[1::2], strict=True)))
    return None


class _Names:
    """The lists of class names of a data set; the one nearest to a label file counts."""

    def __init__(self, sources: Sources, reading: Reading) -> None:
        self.reading = reading
        self.lists: dict[Path, list[str]] = {}
        self.told = False
        files = [*sources.labels, *sources.others]
        ranked = [(rank, file) for file in files if (rank := _rank(file)) is not None]
        for _, file in sorted(ranked):
            if file.parent not in self.lists and (names := _read_names(file, reading)):
                self.lists[file.parent] = names

    def beside(self, file: Path) -> list[str]:
        """The names in the file's folder, or the next above it, or the only ones there are."""
        for folder in file.parents:
            if folder in self.lists:
                return self.lists[folder]
        different = {tuple(names): names for names in self.lists.values()}
        if len(different) == 1:
            return next(iter(different.values()))
        if not self.told:
            self.told = True
            cause = (
                "no class names: no classes.txt, obj.names or data.yaml lies with the labels or one "
                "folder up."
            )
            if different:
                shown = ", ".join(str(folder) for folder in self.lists)
                cause = f"which class names? The lists in {shown} differ."
            self.reading.fault(file, "OD034", cause)
        return []


def _rank(file: Path) -> int | None:
    """How much a file is to be trusted as a list of names, less is more; None if it is none."""
    name = file.name.lower()
    if name in NAME_LISTS:
        return NAME_LISTS.index(name)
    if name in NAME_TABLES:
        return len(NAME_LISTS)
    return len(NAME_LISTS) + 1 if file.suffix.lower() in (".names", ".yaml", ".yml") else None


def _read_names(file: Path, reading: Reading) -> list[str]:
    """The class names in a list or YAML file; empty if it holds none."""
    try:
        text, encoding = decode(read_bytes(file, MAX_NAMES_BYTES))
    except UnreadableError as error:
        reading.refuse(error)
        return []
    if file.suffix.lower() in (".yaml", ".yml"):
        return _yaml_names(text)
    if encoding not in ("utf-8-sig", "utf-16"):
        reading.findings.append(Finding.of("OD233", file, f"is not UTF-8; read as {encoding}."))
    names = unnumbered([class_name(line) for line in text.splitlines()])
    while names and not names[-1]:
        names.pop()
    return names


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases: merged into each other, a few lines of them fill any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As in the class above."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("has an alias")
        return super().compose_node(parent, index)


def _yaml_names(text: str) -> list[str]:
    """The list under `names`, or the values of a table by number."""
    try:
        values: Any = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return []
    names = values.get("names") if isinstance(values, dict) else None
    if isinstance(names, dict):
        numbered = {number(key): value for key, value in names.items()}
        names = [numbered.get(float(i), "") for i in range(min(len(numbered), 10_000))]
    return [class_name(name) for name in names] if isinstance(names, list) else []


def write(
    folder: Path, images: Sequence[LabelledImage], names: Sequence[Path], classes: Sequence[str]
) -> None:
    """One file a picture below `folder`, whose classes.txt names the numbers.

    Args:
        folder: gets the folders of `names` too.
        images: to write.
        names: of the pictures, relative to the folder of pictures.
        classes: the first is 0.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    for image, name in zip(images, names, strict=True):
        file = folder / name.with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{numbers[item.name]} {_fractions(item.yxyx)}\n" for item in image.objects]
        file.write_text("".join(lines), encoding="utf-8")


def _fractions(yxyx: Corners) -> str:
    """Centre and size; more digits than labelImg's six, so that pixels come back as they were."""
    ymin, xmin, ymax, xmax = yxyx
    values = (xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin
    return " ".join(f"{value:.12f}" for value in values)


def data_yaml(parts: Mapping[str, str], classes: Sequence[str]) -> str:
    """The data.yaml of Ultralytics: lists of pictures by split, and the names by number."""
    values = {**parts, "nc": len(classes), "names": dict(enumerate(classes))}
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
