"""`odtrain convert`: a labelled data set, read as any format, written as another into a new folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from odtrain.addresses import is_in_store, is_remote
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import Checked, check
from odtrain.dataset.prepare import refuse_errors
from odtrain.dataset.splits import SPLITS
from odtrain.errors import ConfigError, DataError, choose, taken_from, told_if_not_written
from odtrain.findings import Finding
from odtrain.io.atomic import replacing_folder
from odtrain.io.free_names import is_taken
from odtrain.io.remote.files import read_bytes, root_of, stat_of
from odtrain.labels.annotations import LabelledImage
from odtrain.labels.formats import coco, csv_table, voc, yolo
from odtrain.labels.formats.recognise import FORMATS
from odtrain.media.images import turned_by_exif, without_exif
from odtrain.system.progress import Bar

OF_THE_SPLIT = ("OD017", "OD018")
"""Findings that do not matter where nothing is trained."""
SAID = ("OD102", "OD130", "OD131", "OD132", "OD133", "OD134", "OD135", "OD231", "OD232")
"""Findings about what does not arrive in the new files, or arrives changed."""
UNPACKED = ".unpacked"
"""Where the pictures of records are while they are converted."""
YOLO_SPLITS = {"train": "train", "validation": "val", "test": "test"}


class Target(NamedTuple):
    """A format that can be written.

    Attributes:
        write: folder, pictures, their relative names, class names -> nothing.
        lost: what it cannot hold: the attribute of an object or picture -> what people call it.
    """

    write: Callable[[Path, Sequence[LabelledImage], Sequence[Path], Sequence[str]], None]
    lost: tuple[str, ...]


def convert(
    data: DataConfig,
    target: str | None,
    *,
    source: str | None = None,
    output: str | None = None,
    labels_only: bool = False,
) -> str:
    """Write the data set that `data` names, or that lies at `source`, to the new folder `output`.

    The folder is there whole or not at all, and the user's files are only read.

    Args:
        data: the data set, and how it is read.
        target: a row of `TARGETS`.
        source: a folder or one label file; None for `data.images` and `data.annotations`.
        output: the user has to give one.
        labels_only: write no copies of the pictures.

    Returns:
        What was written and what was lost, for people.

    Raises:
        ConfigError: `output` or `target` is missing or cannot be.
        DataError: the data set has errors, or `output` is there already or cannot be written.
    """
    name = choose("--to", target or "", {name: name for name in TARGETS})
    data = _data_at(source, data)
    place = free_folder(output, data)
    with written_whole(place) as folder:
        data = replace(data, prepared=str(folder / UNPACKED))
        checked = check(data)
        findings = [each for each in checked.findings if each.code not in OF_THE_SPLIT]
        refuse_errors(data, findings)
        images = [image for part in SPLITS for image in checked.splits[part]]
        images.sort(key=lambda image: image.image)
        names = common_names([image.image for image in images])
        TARGETS[name].write(folder, images, names, checked.class_names)
        if name == "yolo":
            _write_yolo_lists(folder, dict(zip(images, names, strict=True)), checked)
        changed = 0 if labels_only else _copy_pictures(folder / "images", images, names)
        shutil.rmtree(folder / UNPACKED, ignore_errors=True)
    return _report(name, place, checked, images, findings, changed, labels_only)


def _data_at(source: str | None, data: DataConfig) -> DataConfig:
    """The data set to read: `source` is a folder of all its files, or its one label file."""
    if source is None:
        return data
    given = root_of(source)
    if is_in_store(given):
        one = stat_of(given) is not None
        return replace(
            data,
            images=str(given.parent if one else given),
            annotations=str(given) if one else None,
        )
    if not given.exists():
        raise DataError(
            given, f"is not there{taken_from(given)}.", "Set input= to a folder or a label file."
        )
    if given.is_file():
        return replace(data, images=str(given.parent), annotations=str(given))
    return replace(data, images=str(given), annotations=None)


def free_folder(wanted: str | None, data: DataConfig) -> Path:
    """The folder to write; nothing may be lost by it, and no data set may come to hold itself."""
    if wanted is None:
        raise ConfigError("output", "is not set.", "Give a new folder, such as output=converted.")
    output = Path(wanted)
    if is_remote(wanted):
        raise ConfigError(wanted, "is elsewhere.", f"Give it as output={wanted}")
    if is_taken(output):
        problem = "is there already; nothing was written."
        raise DataError(output, problem, "Give the name of a new folder: output=DIR")
    for root in filter(None, (data.images, data.annotations)):
        if Path(root).is_dir() and output.resolve().is_relative_to(Path(root).resolve()):
            problem = f"lies inside {root}, whose data set would come to hold its own copy."
            raise DataError(output, problem, "Give a folder elsewhere: output=DIR")
    return output


def common_names(pictures: Sequence[Path]) -> list[Path]:
    """The paths of the pictures below the deepest folder that holds them all."""
    root = (
        Path(os.path.commonpath([picture.parent for picture in pictures])) if pictures else Path()
    )
    return [picture.relative_to(root) for picture in pictures]


@contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its place at the end; what killed runs left is removed."""
    with (
        told_if_not_written(output, "Give another output=DIR."),
        replacing_folder(output) as folder,
    ):
        yield folder


def _copy_pictures(folder: Path, images: Sequence[LabelledImage], names: Sequence[Path]) -> int:
    """Copy every picture; how many lost their EXIF because the labels are of the stored frame."""
    changed = 0
    pairs = zip(images, names, strict=True)
    for image, name in Bar(pairs, doing="copying", total=len(images), delay=1, leave=False):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        data = read_bytes(image.image, as_held=True)
        if image.orientation == 1 and turned_by_exif(image.image, data):
            data = without_exif(data)
            changed += 1
        file.write_bytes(data)
    return changed


def _write_yolo_lists(folder: Path, named: dict[LabelledImage, Path], checked: Checked) -> None:
    """data.yaml, and the lists of pictures it names: the split that odtrain trains with."""
    parts = {}
    for part, called in YOLO_SPLITS.items():
        names = [named[image] for image in checked.splits[part]]
        if names:
            parts[called] = f"{called}.txt"
            lines = [f"./images/{name.as_posix()}\n" for name in names]
            (folder / f"{called}.txt").write_text(
                "".join(lines), encoding="utf-8", errors="surrogateescape"
            )
    text = yolo.data_yaml(parts, checked.class_names)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _report(
    target: str,
    output: Path,
    checked: Checked,
    images: Sequence[LabelledImage],
    findings: Sequence[Finding],
    changed: int,
    labels_only: bool,
) -> str:
    boxes = [item for image in images for item in image.objects]
    source = FORMATS.get(checked.label_format, "labels")
    total = f"{_count(len(images), 'picture')}, {_count(len(boxes), 'box')}"
    lines = [f"{source} to {FORMATS[target]}: {total}"]
    flags = {
        "difficult": _count(sum(item.difficult for item in boxes), "box"),
        "truncated": _count(sum(item.truncated for item in boxes), "box"),
        "verified": _count(sum(image.verified for image in images), "picture"),
    }
    lines += [
        f"  lost: {flags[flag]} marked {flag}; {target} has no place for it"
        for flag in TARGETS[target].lost
        if not flags[flag].startswith("0 ")
    ]
    if target == "voc" and (parts := sum(map(_has_fractions, images))):
        lines.append(
            f"  boxes of {_count(parts, 'picture')} have fractions of pixels: labelImg cuts them off, "
            "the tutorial's xml_to_csv.py fails on them"
        )
    if changed:
        lines.append(
            f"  {_count(changed, 'picture')} labelled as stored, though EXIF turns it: the copy has "
            "no EXIF"
        )
    said = [each for each in findings if each.code in SAID]
    lines += [f"  {each.code} {each.file}: {each.cause}" for each in said[:8]]
    if len(said) > 8:
        lines.append(f"  and {len(said) - 8:,} more such findings; odtrain check lists them")
    what, key = ("labels", "annotations") if labels_only else ("pictures and labels", "images")
    return "\n".join([*lines, f"wrote {what} to {output}; to read them: data.{key}={output}"])


def _count(number: int, thing: str) -> str:
    ending = "" if number == 1 else "es" if thing.endswith("x") else "s"
    return f"{number:,} {thing}{ending}"


def _has_fractions(image: LabelledImage) -> bool:
    return any("." in side for item in image.objects for side in image.corners(item, 2))


def _voc(
    folder: Path, images: Sequence[LabelledImage], names: Sequence[Path], _: Sequence[str]
) -> None:
    voc.write(folder / "annotations", images, names)


def _yolo(
    folder: Path, images: Sequence[LabelledImage], names: Sequence[Path], classes: Sequence[str]
) -> None:
    yolo.write(folder / "labels", images, names, classes)


def _coco(
    folder: Path, images: Sequence[LabelledImage], names: Sequence[Path], classes: Sequence[str]
) -> None:
    coco.write(folder / "annotations" / "instances.json", images, names, classes)


def _csv(
    folder: Path, images: Sequence[LabelledImage], names: Sequence[Path], _: Sequence[str]
) -> None:
    csv_table.write(folder / "labels.csv", images, names)


TARGETS = {
    "voc": Target(_voc, ()),
    "yolo": Target(_yolo, ("difficult", "truncated", "verified")),
    "coco": Target(_coco, ("difficult", "truncated", "verified")),
    "csv": Target(_csv, ("difficult", "truncated", "verified")),
}
