"""Which picture trains, which validates and which tests: given by lists, by folders, or drawn.

A drawn split depends on nothing but the pictures' names, contents and classes, and the seed: not on
the order of files, and a picture that is added later leaves most others where they were.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

from odtrain.config.schema import DataConfig
from odtrain.dataset.pairing import PictureNames
from odtrain.errors import ConfigError, DataError, taken_from
from odtrain.findings import Finding
from odtrain.io.cells import text_in
from odtrain.io.remote.files import local
from odtrain.labels.annotations import LabelledImage, normalised

SPLITS = ("train", "validation", "test")
RUNS = 4
"""A scene too large to be drawn whole is cut into runs of a quarter of what is drawn."""
FOLDER_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}


def given_split(
    config: DataConfig, root: Path, pictures: Sequence[Path]
) -> tuple[dict[Path, str], list[Finding]]:
    """The split that lists or, without lists, folders give.

    Returns:
        picture -> split, for those that have one; empty where the split is to be drawn. And OD015,
        OD016 and OD201.

    Raises:
        DataError: a list cannot be read.
    """
    if not pictures:
        return {}, []
    lists = {
        split: Path(file)
        for split in SPLITS
        if (file := getattr(config, f"{split}_list")) is not None
    }
    split, findings = (
        _split_by_lists(lists, pictures) if lists else (split_by_folders(root, pictures), [])
    )
    left_out = len(pictures) - len(split)
    if not split or not left_out:
        return split, findings
    place = "in none of the lists" if lists else "outside the folders of the splits"
    pictures_are = "1 picture is" if left_out == 1 else f"{left_out} pictures are"
    return split, [*findings, Finding.of("OD201", root, f"{pictures_are} {place}.")]


def _split_by_lists(
    lists: dict[str, Path], pictures: Sequence[Path]
) -> tuple[dict[Path, str], list[Finding]]:
    names = PictureNames(pictures)
    split: dict[Path, str] = {}
    findings = []
    for part, file in lists.items():
        for name in dict.fromkeys(read_list(file)):
            matches = names.find_path(name)
            if not matches:
                findings.append(_not_found(file, name, names))
            for picture in matches:
                if split.setdefault(picture, part) != part:
                    cause = f'"{name}" is in the {split[picture]} list too.'
                    findings.append(Finding.of("OD016", file, cause))
    if {"train", "test"} <= lists.keys():
        return split, findings
    rest = "test" if "train" in lists else "train"
    return {picture: split.get(picture, rest) for picture in pictures}, findings


def _not_found(file: Path, name: str, names: PictureNames) -> Finding:
    nearly = names.find_any_case(Path(name).name)
    also = f'; "{nearly.name}" differs in upper and lower case alone' if nearly else ""
    return Finding.of("OD015", file, f'no picture is called "{name}"{also}.')


def read_list(file: Path) -> list[str]:
    """The picture names in a text file, one a line, or in a CSV's column `filename`; folders with `/`.

    Raises:
        DataError: it cannot be read, or is a CSV without that column.
    """
    try:
        lines = local(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Give a text file of picture names, or a CSV with the column filename."
        raise DataError(file, f"cannot be read{taken_from(file)}: {error}.", remedy) from None
    if file.suffix.lower() == ".csv":
        rows = csv.DictReader(lines)
        if "filename" not in (rows.fieldnames or ()):
            remedy = "Its first line is to be: filename,width,height,class,xmin,ymin,xmax,ymax"
            raise DataError(file, 'has no column "filename".', remedy)
        lines = [text_in(row["filename"] or "") for row in rows]
    return [PureWindowsPath(line.strip()).as_posix() for line in lines if line.strip()]


def split_by_folders(root: Path, pictures: Sequence[Path]) -> dict[Path, str]:
    """The tutorial's layout: pictures in `train` and `test`; empty if that is not how they lie."""
    split = {}
    for picture in pictures:
        for folder in reversed(picture.relative_to(root).parts[:-1]):
            if folder.lower() in FOLDER_NAMES:
                split[picture] = FOLDER_NAMES[folder.lower()]
                break
    parts = set(split.values())
    return split if "train" in parts and len(parts) > 1 else {}


def complete_split(
    config: DataConfig,
    images: Sequence[LabelledImage],
    given: dict[Path, str],
    scenes: Sequence[Sequence[Path]],
) -> dict[str, list[LabelledImage]]:
    """Every split, with what is not given drawn from the training pictures.

    Args:
        config: for the fractions, the folds, the lists and the seed.
        images: all that are used, in any order.
        given: picture -> split, as far as it is given.
        scenes: groups of pictures that are drawn together.

    Raises:
        ConfigError: folds of a data set whose test and validation parts are given.
    """
    if config.folds and given and not drawn_splits(config, given):
        remedy = "Leave out one of the two, or data.folds."
        raise ConfigError("data.folds", "test and validation are both given.", remedy)
    names = Counter(normalised(image.image.name) for image in images)

    def rank(image: LabelledImage) -> tuple[str, str]:
        name = normalised(image.image.name)
        return name, repr(image.objects) if names[name] > 1 else ""

    ordered = sorted(images, key=rank)
    split = {image.image: given.get(image.image, "train") for image in ordered}
    for part in drawn_splits(config, given):
        train = [image for image in ordered if split[image.image] == "train"]
        split.update(dict.fromkeys(_drawn(config, part, given, train, scenes), part))
    return {part: [image for image in ordered if split[image.image] == part] for part in SPLITS}


def drawn_splits(config: DataConfig, given: Mapping[Path, str]) -> list[str]:
    """The splits besides training that neither lists nor folders give, in the order of drawing."""
    return [
        part
        for part in ("test", "validation")
        if part not in given.values() and getattr(config, f"{part}_list") is None
    ]


def _drawn(
    config: DataConfig,
    part: str,
    given: dict[Path, str],
    train: Sequence[LabelledImage],
    scenes: Sequence[Sequence[Path]],
) -> list[Path]:
    """The pictures of `train` that become the split `part`: a fold of it, or a fraction."""
    salt = f"{part} {config.seed}"
    if config.folds and part == drawn_splits(config, given)[0]:
        return fold(train, config.folds, config.fold, salt, scenes)
    kept = 1 if part == "test" else 2
    fraction: float = getattr(config, f"{part}_fraction")
    count = min(max(1, int(len(train) * fraction + 0.5)), len(train) - kept)
    return draw(train, count, salt, scenes) if fraction > 0 and count > 0 else []


def draw(
    images: Sequence[LabelledImage], count: int, salt: str, scenes: Sequence[Sequence[Path]]
) -> list[Path]:
    """About `count` of `images`, each class in proportion, every scene whole."""
    strata = _strata(images, count, salt, scenes)
    drawn: list[list[LabelledImage]] = []
    left: list[list[LabelledImage]] = []
    for name, quota in _quotas(strata, count).items():
        for unit in strata[name]:
            fits = len(unit) <= quota
            (drawn if fits else left).append(unit)
            quota -= len(unit) if fits else 0
    for unit in left:  # where no scene was small enough: one that misses the number by less
        missing = count - sum(map(len, drawn))
        if len(unit) <= min(2 * missing, len(images) - count + missing - 1):
            drawn.append(unit)
    return [image.image for unit in drawn for image in unit]


def fold(
    images: Sequence[LabelledImage],
    folds: int,
    number: int,
    salt: str,
    scenes: Sequence[Sequence[Path]],
) -> list[Path]:
    """Fold `number` (from 0) of `folds`: disjoint, together all of `images`, each class spread evenly."""
    members: list[list[Path]] = [[] for _ in range(folds)]
    for units in _strata(images, len(images) // folds, salt, scenes).values():
        of_stratum = [0] * folds
        for unit in sorted(units, key=len, reverse=True):
            least = min(range(folds), key=lambda i: (of_stratum[i], len(members[i])))
            of_stratum[least] += len(unit)
            members[least] += [image.image for image in unit]
    return members[number]


def _strata(
    images: Sequence[LabelledImage], count: int, salt: str, scenes: Sequence[Sequence[Path]]
) -> dict[str, list[list[LabelledImage]]]:
    """Rarest class -> what is drawn whole, in the random but repeatable order that `salt` gives."""

    def rank(unit: list[LabelledImage]) -> bytes:
        key = f"{salt} {normalised(unit[0].image.name)}"
        return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

    counts = Counter(name for image in images for name in _class_set(image))
    strata: dict[str, list[list[LabelledImage]]] = defaultdict(list)
    for unit in sorted(_units(images, count, scenes), key=rank):
        strata[_rarest_class(unit, counts)].append(unit)
    return strata


def _units(
    images: Sequence[LabelledImage], count: int, scenes: Sequence[Sequence[Path]]
) -> list[list[LabelledImage]]:
    """What is drawn whole: scenes, and pictures on their own.

    A scene of more than `count` pictures stays in training as it is. Where that would leave little
    else to draw from, it is cut into runs of neighbours.
    """
    by_file = {image.image: image for image in images}
    present = [[by_file[file] for file in scene if file in by_file] for scene in scenes]
    alone = by_file.keys() - {file for scene in scenes for file in scene}
    units = [scene for scene in present if scene]
    units += [[image] for image in images if image.image in alone]
    if not too_large(units, count):
        return units
    run = max(1, count // RUNS)
    return [
        unit[start : start + length]
        for unit in units
        for length in [run if len(unit) > count else len(unit)]
        for start in range(0, len(unit), length)
    ]


def too_large(units: Sequence[Sequence[object]], count: int) -> bool:
    """Whether units of more than `count` pictures leave too little else to draw so many from."""
    rest = sum(len(unit) for unit in units if len(unit) <= count)
    return rest < 2 * count and any(len(unit) > count for unit in units)


def _class_set(image: LabelledImage) -> set[str]:
    return {labelled.name for labelled in image.objects}


def _rarest_class(unit: list[LabelledImage], counts: Counter[str]) -> str:
    """The class in `unit` that the fewest pictures show; empty for background."""
    names = {name for image in unit for name in _class_set(image)}
    return min(names, key=lambda name: (counts[name], name), default="")


def _quotas(strata: dict[str, list[list[LabelledImage]]], count: int) -> dict[str, int]:
    """How many pictures each stratum gives: in proportion, by the largest remainder.

    Background (the stratum without a name) is last in ties, and never gives all: a split without
    boxes measures nothing.
    """
    sizes = {
        name: sum(map(len, strata[name])) for name in sorted(strata, key=lambda n: (n == "", n))
    }
    shares = {name: count * size / sum(sizes.values()) for name, size in sizes.items()}
    quota = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(sizes, key=lambda name: quota[name] - shares[name])
    for name in by_remainder[: count - sum(quota.values())]:
        quota[name] += 1
    if "" in quota and len(quota) > 1 and quota[""] == sum(quota.values()) > 0:
        quota[""] -= 1
        quota[max((name for name in sizes if name), key=lambda name: sizes[name])] += 1
    return quota
