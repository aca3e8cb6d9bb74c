"""`odtrain check --with`: labels that a model sees otherwise, as findings and as proposals to look through."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from odtrain.config.schema import Config, DataConfig
from odtrain.dataset.check import Checked, check
from odtrain.dataset.prepare import refuse_errors
from odtrain.errors import ConfigError, DataError, told_if_not_written
from odtrain.evaluation.label_doubts import (
    CLASSED,
    OVERLOOKED,
    PLACED,
    Doubt,
    label_doubts,
    partners,
)
from odtrain.evaluation.saved_detections import under_names
from odtrain.findings import Finding, findings_json, findings_screen
from odtrain.io.atomic import replacing_folder, write_bytes
from odtrain.io.free_names import is_taken
from odtrain.io.remote.files import read_bytes
from odtrain.labelling.decided import is_decided, labels_digest, read_decided
from odtrain.labelling.prelabel import (
    CLASS_LIST,
    Proposal,
    ProposalRow,
    close_folder,
    naming,
)
from odtrain.labels.annotations import LabelledImage, LabelledObject, ground_truth
from odtrain.labels.formats import voc
from odtrain.model_source import open_source
from odtrain.predict.outputs import NO_PLACE
from odtrain.structures import Detections, GroundTruth
from odtrain.studies.below import look_at, study
from odtrain.studies.folds import detect_held_out
from odtrain.system.progress import Bar

FOLDS = "folds"
"""In place of a model: networks that are trained for it."""
DEFAULT_FOLDER = "to_check"
LEAST = {OVERLOOKED: 0.25, PLACED: 0.35, CLASSED: 0.25}
"""Doubt from which a label is shown to somebody; see docs/labelling.md for what was measured."""
WITNESS = 0.5
"""Part of the labels that a model must see too, for its silence to mean something."""
POOR = (
    "The model sees {} of the {} labels: it overlooks most, and what it does not doubt is not proven right. "
    "Train longer (train.steps), or name a better one."
)
CODES = {OVERLOOKED: "OD141", PLACED: "OD142", CLASSED: "OD143"}


@dataclass(frozen=True, eq=False)
class Doubted:
    """What came of it.

    Attributes:
        findings: the strongest doubts first.
        orientations: path of a picture -> the EXIF orientation that its boxes ask to apply.
        class_names: the first has id 1.
        said: for people.
    """

    findings: tuple[Finding, ...]
    orientations: dict[str, int]
    class_names: tuple[str, ...]
    said: str


@dataclass(frozen=True, eq=False)
class _Seen:
    """Labelled pictures, in the order of what was found in them."""

    images: list[LabelledImage]
    found: list[Detections]
    class_names: tuple[str, ...]

    @property
    def truths(self) -> list[GroundTruth]:
        return [ground_truth(image, self.class_names) for image in self.images]

    def proposed(self, doubt: Doubt) -> LabelledObject:
        """The object as the model sees it; a label that it places or names otherwise is else as it was."""
        image, found = self.images[doubt.picture], self.found[doubt.picture]
        name = self.class_names[int(found.classes[doubt.found]) - 1]
        if doubt.label is not None and doubt.kind == CLASSED:
            return replace(image.objects[doubt.label], name=name)
        ymin, xmin, ymax, xmax = np.clip(found.boxes[doubt.found], 0, 1).tolist()
        if doubt.label is not None:
            return replace(image.objects[doubt.label], yxyx=(ymin, xmin, ymax, xmax))
        return LabelledObject(name, (ymin, xmin, ymax, xmax), difficult=False, truncated=False)

    def score(self, doubt: Doubt) -> float:
        return float(self.found[doubt.picture].scores[doubt.found])

    def confirmed(self) -> int:
        """How many labels the model sees too, as surely as it must be to say that one is missing."""
        sure = [found.above(LEAST[OVERLOOKED]) for found in self.found]
        pairs = zip(self.truths, sure, strict=True)
        return sum(int((partners(truth, found) >= 0).sum()) for truth, found in pairs)


def doubted(config: Config, overrides: Sequence[str], by: str) -> Doubted:
    """Look at all labelled pictures, and write those with doubtful labels into the new folder `output=`.

    Args:
        config: whose data are looked at; and trained on, where `by` is `FOLDS`.
        overrides: that it was composed of.
        by: `FOLDS`, or a model as `source=` takes it.

    Raises:
        ConfigError: `by` is empty.
        DataError: the data have errors, the model knows other classes, or the folder is there already.
        OdtrainError: as of what trains or opens the model.
    """
    if not by:
        raise ConfigError("--with", "names nothing.", "Name a model, or folds: --with SOURCE.")
    folder = Path(config.output or DEFAULT_FOLDER)
    if is_taken(folder):
        raise DataError(
            folder,
            "is there already, perhaps with corrections; nothing was looked at.",
            f"Take those first: odtrain prelabel merge input={folder}. Or give a new folder: output=DIR.",
        )
    checked = check(config.data, config.model)
    refuse_errors(config.data, checked.findings)
    if by != FOLDS:
        found = _found_by(by, config, checked)
        return _result(config, overrides, checked, found, folder, by)
    with study(config, "check", f"labels of {config.data.name} that folds doubt") as tracker:
        found = detect_held_out(config, overrides, checked, tracker)
        who = f"folds of run {tracker.name}"
        result = _result(config, overrides, checked, found, folder, who)
        tracker.log_text(findings_json(result.findings), "data/doubts.json")
        return result


def _found_by(name: str, config: Config, checked: Checked) -> dict[Path, Detections]:
    source = open_source(name, config, tiles=config.evaluate.tiles)
    if not set(source.class_names) & set(checked.class_names):
        raise DataError(
            name,
            f"knows the classes {', '.join(source.class_names)}; {config.data.name} has "
            f"{', '.join(checked.class_names)}.",
            "Name a model of these classes, or odtrain check --with folds, which trains some.",
        )
    found = look_at(checked.images, source.detect)
    named = under_names(found, source.class_names, checked.class_names)
    return dict(zip((image.image for image in checked.images), named, strict=True))


def _result(
    config: Config,
    overrides: Sequence[str],
    checked: Checked,
    found: Mapping[Path, Detections],
    folder: Path,
    who: str,
) -> Doubted:
    images = checked.images
    seen = _Seen(images, [found[image.image] for image in images], checked.class_names)
    known = read_decided(Path(config.data.prepared))
    decided = {
        number
        for number, image in enumerate(images)
        if is_decided(known, checked.pictures[image.image].content, image)
    }
    doubts = [
        doubt
        for doubt in label_doubts(seen.truths, seen.found)
        if doubt.doubt >= LEAST[doubt.kind] and doubt.picture not in decided
    ]
    findings = tuple(_finding(seen, doubt) for doubt in doubts)
    if doubts:
        with told_if_not_written(folder, NO_PLACE):
            _write(folder, seen, doubts, checked, who)
    said = _told(config, overrides, seen, doubts, len(decided), folder, findings)
    turned = {str(file): held.orientation for file, held in checked.pictures.items()}
    return Doubted(findings, turned, checked.class_names, said)


# ---- findings


def _finding(seen: _Seen, doubt: Doubt) -> Finding:
    image, model = seen.images[doubt.picture], seen.proposed(doubt)
    file = image.image if image.label_file is None else image.label_file
    item = model if doubt.label is None else image.objects[doubt.label]
    return Finding.of(
        CODES[doubt.kind],
        file,
        _cause(doubt.kind, model.name, seen.score(doubt)),
        box=image.describe(item),
        picture=image.image,
        seen=None if doubt.kind != PLACED else image.describe(model),
    )


def _cause(kind: str, name: str, score: float) -> str:
    if kind == OVERLOOKED:
        return f"the model sees {name} here (score {score:.2f}), where no label is."
    if kind == PLACED:
        return f"the model places this {name} elsewhere (score {score:.2f})."
    return f"the model sees {name} here (score {score:.2f})."


# ---- proposals


def _write(folder: Path, seen: _Seen, doubts: Sequence[Doubt], checked: Checked, who: str) -> None:
    """Copies of the pictures with their labels as the model would have them, the worst first."""
    by_picture: dict[int, list[Doubt]] = {}
    for doubt in doubts:
        by_picture.setdefault(doubt.picture, []).append(doubt)
    with replacing_folder(folder) as part:
        rows = [
            _row(part, rank, seen, picture, of_it, checked)
            for rank, (picture, of_it) in enumerate(Bar(list(by_picture.items()), doing="write"), 1)
        ]
        close_folder(part, seen.class_names, who, rows)


def _row(
    folder: Path,
    rank: int,
    seen: _Seen,
    picture: int,
    doubts: Sequence[Doubt],
    checked: Checked,
) -> ProposalRow:
    image = seen.images[picture]
    copy = folder / f"{rank:05d}-{image.image.name}"
    objects: list[LabelledObject] = list(image.objects)
    for doubt in reversed(doubts):  # of two about one label the stronger stays
        if doubt.label is None:
            objects.append(seen.proposed(doubt))
        else:
            objects[doubt.label] = seen.proposed(doubt)
    shown = replace(image, image=copy, objects=tuple(objects), verified=False)
    write_bytes(
        copy, read_bytes(image.image, as_held=True), durable=False
    )  # but before the manifest
    voc.write(folder, [shown], [Path(copy.name)])
    proposals = tuple(_proposal(shown, item) for item in objects)
    content = checked.pictures[image.image].content
    worth = {"doubt": round(doubts[0].doubt, 4)}
    return ProposalRow(
        copy.name, str(image.image), content, proposals, worth, replaces=labels_digest(image)
    )


def _proposal(image: LabelledImage, item: LabelledObject) -> Proposal:
    xmin, ymin, xmax, ymax = (float(value) for value in image.corners(item, 2))
    return Proposal(item.name, (xmin, ymin, xmax, ymax), 1.0)


# ---- what is said


def _told(
    config: Config,
    overrides: Sequence[str],
    seen: _Seen,
    doubts: Sequence[Doubt],
    decided: int,
    folder: Path,
    findings: Sequence[Finding],
) -> str:
    labels, confirmed = sum(len(image.objects) for image in seen.images), seen.confirmed()
    left = f" {decided} were looked at before and left out." if decided else ""
    weak = confirmed < WITNESS * labels
    witness = [POOR.format(confirmed, labels)] if weak else []
    if not doubts:
        said = f"Nothing doubtful among {labels} labels in {len(seen.images)} pictures.{left}"
        return "\n".join([said, *witness])
    pictures = len({doubt.picture for doubt in doubts})
    return "\n".join(
        [
            findings_screen(findings),
            f"{len(doubts)} doubts about {labels} labels, in {pictures} of {len(seen.images)} pictures.{left}",
            f"  look at them  labelImg {folder} {folder / CLASS_LIST} {folder}   (as the model would have "
            "them; correct, then space bar)",
            f"  take them     odtrain prelabel merge input={folder} {_naming(config.data, overrides)}",
            *witness,
        ]
    )


def _naming(data: DataConfig, overrides: Sequence[str]) -> str:
    """The settings of the data as they were given, so that labels and what is decided are found again."""
    given = [shlex.quote(one) for one in overrides if one.startswith(("data.", "data="))]
    return " ".join(given) or naming(data)
