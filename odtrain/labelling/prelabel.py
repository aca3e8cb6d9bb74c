"""`odtrain prelabel`: new pictures with a model's proposals as labelImg's XML, to be corrected there."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from odtrain.addresses import is_remote, with_slashes
from odtrain.config.schema import Config, DataConfig, PredictConfig
from odtrain.dataset.check import Checked, check
from odtrain.errors import ConfigError, DataError, told_if_not_written
from odtrain.io.atomic import sync, write_bytes, write_text
from odtrain.io.checksums import sha256_of
from odtrain.io.free_names import is_taken
from odtrain.io.remote.files import local, read_bytes
from odtrain.labelling.ranking import Worth, order
from odtrain.media.find import find_pictures
from odtrain.media.images import finding_of
from odtrain.media.phash import difference_hash
from odtrain.model_files.thresholds import Thresholds, choose_thresholds
from odtrain.model_source import Source, open_source
from odtrain.predict.outputs import NO_PLACE, Prediction, voc_xml
from odtrain.structures import Detect, Detections
from odtrain.system.progress import Bar
from odtrain_runtime.pictures import UnusableError, read_upright
from odtrain_runtime.provenance import write_labels

logger = logging.getLogger(__name__)

MANIFEST = "prelabel.json"
CLASS_LIST = "classes.txt"
"""The class names, one a line: what labelImg and labelme take as their list."""
VERSION = 1
DEFAULT_FOLDER = "to_label"


@dataclass(frozen=True, eq=False)
class ScoredPicture:
    """What a model sees in a new picture.

    Attributes:
        file: the user's picture.
        size: (height, width) in pixels, upright.
        sha256: of the file, hexadecimal.
        likeness: its difference hash.
        found: at low scores too.
    """

    file: Path
    size: tuple[int, int]
    sha256: str
    likeness: str
    found: Detections


@dataclass(frozen=True)
class Proposal:
    """A proposed box, as the XML has it.

    Attributes:
        name: of its class.
        xyxy: xmin, ymin, xmax, ymax in pixels.
        score: 0 to 1.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class ProposalRow:
    """A picture in the folder to correct, as the manifest holds it.

    Attributes:
        name: of the copy.
        source: where it was copied from.
        sha256: of both, hexadecimal.
        proposals: what the model proposed.
        worth: why it stands where it stands; see `worth.Worth`.
        merged: name it has in the data set, noted before it is copied there.
        taken: whether it was copied to the end.
        replaces: of a picture of the data set whose labels are corrected, their `labels_digest`; else empty.
    """

    name: str
    source: str
    sha256: str
    proposals: tuple[Proposal, ...]
    worth: dict[str, float]
    merged: str | None = None
    taken: bool = False
    replaces: str = ""


def prelabel(config: Config) -> str:
    """Write copies of the pictures of `input=` with proposals, ordered, into the new folder `output=`.

    Pictures that the data set of `data.*` has already, or that are there twice, are left out.

    Returns:
        What was written and what to do with it, for people.

    Raises:
        ConfigError: `source` or `input` is not given, or the model has no class names.
        DataError: there is no new picture, or the folder is there already or cannot be written.
    """
    folder = _new_folder(config.output)
    files = find_pictures(config.input)
    source = open_source(config.source, config, tiles=config.predict.tiles)
    thresholds = _thresholds(config.predict, source)
    known = _known(config.data, source.class_names)
    contents = {held.content for held in known.pictures.values()} if known else set()
    looks, left_out = _look_at(files, source.detect, contents)
    if not looks:
        raise DataError(
            str(config.input),
            f"shows nothing new: {_left(left_out)}.",
            "Name new pictures: input=DIR.",
        )
    ordered = order(
        [look.found for look in looks],
        [look.likeness for look in looks],
        [held.likeness for held in known.pictures.values()] if known else (),
        _boxes_by_class(known, source.class_names) if known else {},
    )
    with told_if_not_written(folder, NO_PLACE):
        rows = [
            _write(folder, looks[place], worth, rank, thresholds, source.class_names)
            for rank, (place, worth) in enumerate(Bar(ordered, doing="write"), 1)
        ]
        close_folder(folder, source.class_names, source.name, rows)
    return _told(folder, rows, left_out, config.data)


def close_folder(
    folder: Path, class_names: Sequence[str], source: str, rows: Sequence[ProposalRow]
) -> None:
    """Write what comes behind the pictures: the class list, and last, when all is on disk, the manifest."""
    write_text(folder / CLASS_LIST, write_labels(class_names))
    sync(folder)
    write_manifest(folder, source, rows)


def write_manifest(folder: Path, source: str, rows: Sequence[ProposalRow]) -> None:
    """Write what was proposed, so that `merge` can say what became of it."""
    content = {"version": VERSION, "source": source, "pictures": [asdict(row) for row in rows]}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / MANIFEST, text)


def read_manifest(folder: Path) -> tuple[str, list[ProposalRow]]:
    """The source of the proposals, and the pictures in their order.

    Raises:
        DataError: the folder holds no manifest that can be read.
    """
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
        return content["source"], [_row_from(row) for row in content["pictures"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            file,
            "holds no list of proposals.",
            "Name a folder that odtrain prelabel has written: input=DIR.",
        ) from error


def _row_from(values: dict[str, Any]) -> ProposalRow:
    proposals = tuple(
        Proposal(each["name"], tuple(each["xyxy"]), each["score"]) for each in values["proposals"]
    )
    return ProposalRow(**{**values, "proposals": proposals})


# ---- before


def _new_folder(output: str | None) -> Path:
    folder = Path(output or DEFAULT_FOLDER)
    if is_taken(folder):
        raise DataError(
            folder,
            "is there already, perhaps with corrections; nothing was written.",
            "Take those first: odtrain prelabel merge. Or give a new folder: output=DIR.",
        )
    return folder


def _thresholds(settings: PredictConfig, source: Source) -> Thresholds:
    if not source.class_names:
        raise ConfigError(
            f"source={source.name}",
            "carries no class names, so that labels cannot be written.",
            "Give them: predict.label_map=FILE.",
        )
    return choose_thresholds(settings, source.class_names, source.passport, source.name)


def _known(data: DataConfig, class_names: Sequence[str]) -> Checked | None:
    """The data set that the pictures are for; None where `data.*` names none of the model's classes."""
    if not is_remote(data.images) and not Path(data.images).is_dir():
        return None
    checked = check(data)
    return checked if set(checked.class_names) & set(class_names) else None


def _boxes_by_class(known: Checked, class_names: Sequence[str]) -> dict[int, int]:
    boxes = Counter(
        item.name for images in known.splits.values() for image in images for item in image.objects
    )
    return {number: boxes[name] for number, name in enumerate(class_names, start=1)}


# ---- pictures


def _look_at(
    files: Sequence[Path], detect: Detect, known: set[str]
) -> tuple[list[ScoredPicture], Counter[str]]:
    """What the model sees in each new picture, and how many were left out, by reason."""
    looks: dict[str, ScoredPicture] = {}
    left_out: Counter[str] = Counter()
    for file in Bar(files, doing="look"):
        try:
            digest = sha256_of(file)
            if digest in known or digest in looks:
                left_out["in the data set already" if digest in known else "there twice"] += 1
                continue
            image = read_upright(local(file, as_held=True))
        except (UnusableError, OSError) as error:
            problem = finding_of(error) if isinstance(error, UnusableError) else error
            logger.warning(problem)
            left_out["not readable"] += 1
            continue
        likeness = difference_hash(Image.fromarray(image))
        looks[digest] = ScoredPicture(file, image.shape[:2], digest, likeness, detect(image))
    return list(looks.values()), left_out


def _write(
    folder: Path,
    look: ScoredPicture,
    worth: Worth,
    rank: int,
    thresholds: Thresholds,
    class_names: Sequence[str],
) -> ProposalRow:
    """Copy a picture, whose name begins with its rank since labelImg sorts by name, and write its XML."""
    copy = folder / f"{rank:05d}-{look.file.name}"
    write_bytes(copy, read_bytes(look.file, as_held=True), durable=False)  # but before the manifest
    shown = thresholds.keep(look.found)
    one = Prediction(copy, look.size[0], look.size[1], shown, image_id=rank)
    write_bytes(copy.with_suffix(".xml"), voc_xml(one, class_names), durable=False)
    proposals = tuple(
        Proposal(class_names[number - 1], _as_written(corners), round(score, 4))
        for number, corners, score in zip(
            shown.classes.tolist(), one.corners(), shown.scores.tolist(), strict=True
        )
    )
    values = {key: round(value, 4) for key, value in asdict(worth).items()}
    return ProposalRow(copy.name, with_slashes(str(look.file)), look.sha256, proposals, values)


def _as_written(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """Whole pixels with a minimum of 1, as labelImg's writer has them and `voc_xml` too."""
    xmin, ymin, xmax, ymax = (int(value) for value in corners)
    return max(xmin, 1), max(ymin, 1), xmax, ymax


# ---- what is said


def _left(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no picture"


def _told(
    folder: Path, rows: Sequence[ProposalRow], left_out: Counter[str], data: DataConfig
) -> str:
    boxes = sum(len(row.proposals) for row in rows)
    lines = [f"{boxes} proposals in {len(rows)} pictures, the most worthwhile first: {folder}"]
    if left_out:
        lines.append(f"Left out: {_left(left_out)}.")
    labelling = f"labelImg {folder} {folder / CLASS_LIST} {folder}"
    lines += [
        f"  correct them  {labelling}   (space bar: this picture is right)",
        f"  take them     odtrain prelabel merge input={folder} {naming(data)}",
    ]
    return "\n".join(lines)


def naming(data: DataConfig) -> str:
    """The settings that name a data set, for a command that is printed."""
    labels = f" data.annotations={data.annotations}" if data.annotations else ""
    return f"data.images={data.images}{labels} data.name={data.name}"
