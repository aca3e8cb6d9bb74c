"""What a model finds in pictures: drawn, as CSV, as COCO results, and as labelImg's XML on request."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lxml import etree
from PIL import Image
from tqdm import tqdm

from odtrain.boxes import Detections
from odtrain.config import Config, PredictConfig
from odtrain.drawing import class_label, draw
from odtrain.errors import ConfigError, DataError
from odtrain.pictures import SUFFIXES, UnusableError, read_upright
from odtrain.sources import Source, open_source

CSV_HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "score")
DRAWN = "drawn"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one picture.

    Attributes:
        file: the picture.
        height: of the picture, upright, in pixels.
        width: of the picture, upright, in pixels.
        found: detections from the threshold on.
        image_id: its number, from 1 in order of the names.
    """

    file: Path
    height: int
    width: int
    found: Detections
    image_id: int

    def corners(self) -> list[list[float]]:
        """xmin, ymin, xmax, ymax of every detection, in pixels to a tenth."""
        sides = np.array([self.height, self.width, self.height, self.width], np.float32)
        return [[round(float(v), 1) for v in box[[1, 0, 3, 2]]] for box in self.found.boxes * sides]


def predict(config: Config) -> None:
    """Run `source=` over `input=`; write drawn pictures, predictions.csv and .json to `output=`.

    A picture that cannot be read is told and left out; the others are done.

    Raises:
        ConfigError: input or source is not given.
        DataError: there is no picture, none could be read, or the output cannot be written.
    """
    folder = Path(config.output or "predictions")
    files = find_pictures(config.input, drawn_before=folder / DRAWN)
    source = open_source(config)
    if not source.class_names:
        print(
            f"{source.name} carries no class names: they are class 1, class 2, ... "
            "predict.label_map=FILE gives names.",
            file=sys.stderr,
        )
    try:
        done = list(_predictions(files, source, folder, config.predict))
        if not done:
            raise DataError(str(config.input), "holds no picture that can be read.", "See above.")
        _write_tables(done, source.class_names, folder)
    except OSError as error:
        raise DataError(
            error.filename or folder,
            f"cannot be written: {error.strerror}.",
            "Free space there, or choose another folder: output=DIR.",
        ) from error
    boxes = sum(len(one.found) for one in done)
    print(
        f"{boxes} detections from score {config.predict.threshold:g} in {len(done)} of {len(files)} "
        f"pictures: {folder}"
    )


def find_pictures(pattern: str | None, drawn_before: Path | None = None) -> list[Path]:
    """The pictures that `input=` means: a file, the pictures in a folder, or a glob; sorted by name.

    Args:
        pattern: `~` is the home folder, `**` any folders.
        drawn_before: a folder whose pictures are none of the user's.

    Raises:
        ConfigError: nothing is given.
        DataError: nothing is there.
    """
    if not pattern:
        raise ConfigError("input", "is not given.", "Name a picture, a folder or a glob: input=...")
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    found = path.rglob("*") if path.is_dir() else map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
    ours = drawn_before and drawn_before.resolve()
    pictures = sorted(
        file
        for file in found
        if file.suffix.lower() in SUFFIXES and file.is_file() and ours not in file.resolve().parents
    )
    if not pictures:
        raise DataError(pattern, "no picture is there.", "Name a picture, a folder or a glob.")
    return pictures


def _predictions(
    files: Sequence[Path], source: Source, folder: Path, config: PredictConfig
) -> Iterator[Prediction]:
    """Detect in one picture after the other, and write what is drawn; no pixels are kept."""
    names = output_names(files)
    for number, file in enumerate(tqdm(files, desc="predict", unit="picture"), start=1):
        try:
            image = read_upright(file)
        except UnusableError as error:
            tqdm.write(f"{error.finding}", file=sys.stderr)
            continue
        found = source.detect(image).above(config.threshold)
        height, width = image.shape[:2]
        one = Prediction(file, height, width, found, number)
        picture, xml = (folder / name for name in names[file])
        picture.parent.mkdir(parents=True, exist_ok=True)
        drawn = draw(image, found, source.class_names, config.threshold)
        Image.fromarray(drawn).save(picture, quality=92)
        if config.xml:
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_bytes(voc_xml(one, source.class_names))
        yield one


def output_names(files: Sequence[Path]) -> dict[Path, tuple[Path, Path]]:
    """Where the drawn picture and the XML of each file go, so that no two meet.

    Folders are kept from where the files' own part. An XML is called like its picture, as labelImg
    looks for it, unless two pictures differ in their suffix alone.
    """
    root = os.path.commonpath([file.parent for file in files])
    inside = {file: file.relative_to(root) for file in files}
    of_stem = Counter(name.with_suffix("") for name in inside.values())
    names = {}
    for file, name in inside.items():
        whole = name.with_name(f"{name.stem}{name.suffix.lower().replace('.', '-')}")
        xml = name.stem if of_stem[name.with_suffix("")] == 1 else whole.name
        names[file] = (
            Path(DRAWN, name.parent, f"{whole.name}.jpg"),
            Path("xml", name.parent, f"{xml}.xml"),
        )
    return names


def _write_tables(done: Sequence[Prediction], class_names: Sequence[str], folder: Path) -> None:
    table = folder / "predictions.csv"
    with table.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CSV_HEADER)
        for one in done:
            writer.writerows(_rows(one, class_names))
    results = [result for one in done for result in _coco_results(one)]
    (folder / "predictions.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


def _rows(one: Prediction, class_names: Sequence[str]) -> Iterator[list[object]]:
    for number, score, corners in zip(
        one.found.classes.tolist(), one.found.scores.tolist(), one.corners(), strict=True
    ):
        name = class_label(class_names, number)
        yield [str(one.file), one.width, one.height, name, *corners, f"{score:.4f}"]


def _coco_results(one: Prediction) -> Iterator[dict[str, object]]:
    """COCO's results form; `file_name` is ours, since the ids are those of this prediction."""
    for number, score, (xmin, ymin, xmax, ymax) in zip(
        one.found.classes.tolist(), one.found.scores.tolist(), one.corners(), strict=True
    ):
        yield {
            "image_id": one.image_id,
            "file_name": str(one.file),
            "category_id": number,
            "bbox": [xmin, ymin, round(xmax - xmin, 1), round(ymax - ymin, 1)],
            "score": round(score, 5),
        }


def voc_xml(one: Prediction, class_names: Sequence[str]) -> bytes:
    """What was found as labelImg writes it, for correcting there: whole pixels, not `verified`."""
    root = etree.Element("annotation")
    for tag, name in (
        ("folder", one.file.parent.name),
        ("filename", one.file.name),
        ("path", str(one.file)),
    ):
        # XML has no way to write what is no Unicode in a name.
        etree.SubElement(root, tag).text = os.fsencode(name).decode("utf-8", "replace")
    etree.SubElement(etree.SubElement(root, "source"), "database").text = "Unknown"
    size = etree.SubElement(root, "size")
    for tag, value in (("width", one.width), ("height", one.height), ("depth", 3)):
        etree.SubElement(size, tag).text = str(value)
    etree.SubElement(root, "segmented").text = "0"
    for number, corners in zip(one.found.classes.tolist(), one.corners(), strict=True):
        xmin, ymin, xmax, ymax = (int(value) for value in corners)
        xmin, ymin = max(xmin, 1), max(ymin, 1)
        cut = xmin == 1 or ymin == 1 or xmax == one.width or ymax == one.height
        item = etree.SubElement(root, "object")
        for tag, text in (
            ("name", class_label(class_names, number)),
            ("pose", "Unspecified"),
            ("truncated", str(int(cut))),
            ("difficult", "0"),
        ):
            etree.SubElement(item, tag).text = text
        box = etree.SubElement(item, "bndbox")
        for tag, value in (("xmin", xmin), ("ymin", ymin), ("xmax", xmax), ("ymax", ymax)):
            etree.SubElement(box, tag).text = str(value)
    etree.indent(root, "\t")
    return bytes(etree.tostring(root, encoding="utf-8")) + b"\n"
