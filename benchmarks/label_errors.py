"""How well doubtful labels are found: known errors are put in, and `odtrain check --with folds` looks for them.

    python -m benchmarks.label_errors FOLDER FILE.json SEED data.images=DIR data.annotations=DIR [KEY=VALUE]

Of the boxes 5 % each are removed, moved, or given another class (where there are several), in a copy with
VOC labels. Networks are trained fold by fold on the copy; what is finished in FOLDER is not trained again. Of
each kind with k errors: the share of errors among the first k doubts, and the share of errors that the first
2k find; the same by cleanlab's own scores of the same detections, where it is installed.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from odtrain.config.compose import compose_config
from odtrain.dataset.check import Checked, check
from odtrain.evaluation.label_doubts import CLASSED, KINDS, OVERLOOKED, PLACED, label_doubts
from odtrain.io.atomic import read_json, write_json
from odtrain.labels.annotations import LabelledObject, ground_truth
from odtrain.labels.formats import voc
from odtrain.structures import Detections, GroundTruth, pairwise_iou
from odtrain.studies.folds import detect_held_out
from odtrain.tracking.tracker import Tracker

SHARE = 0.05
"""Of the boxes, for each kind of error."""
MOVED = (0.25, 0.5)
"""Sides by which a box is moved, in x and in y."""
LOWER = {"high": 0.5, "low": 0.2}
"""Scores that count as sure for a detector of few pictures; cleanlab's own are 0.95 and 0.5."""
FOUND = 0.5
"""Overlap (IoU) with the removed box from which an overlooked object counts as found."""


@dataclass(frozen=True)
class Wrong:
    """An error that was put in.

    Attributes:
        kind: one of `KINDS`.
        name: of the picture.
        yxyx: the box as it is labelled now, or was before it was removed.
    """

    kind: str
    name: str
    yxyx: tuple[float, float, float, float]


@dataclass(frozen=True)
class Ranked:
    """A doubt to look at: its kind, the picture's name, and the box it is about."""

    kind: str
    name: str
    yxyx: tuple[float, float, float, float]


def main(arguments: Sequence[str]) -> None:
    """Put errors in, train, rank, and count."""
    folder, file, seed = Path(arguments[0]).resolve(), Path(arguments[1]), int(arguments[2])
    overrides = list(arguments[3:])
    folder.mkdir(parents=True, exist_ok=True)
    clean = check(compose_config(overrides).data)
    wrong = _spoil(clean, folder / "labels", random.Random(seed))
    own = [f"data.annotations={folder / 'labels'}", "data.format=voc"]
    own += [f"data.prepared={folder / 'prepared'}", f"outputs={folder / 'outputs'}"]
    own += [f"tracking.uri=sqlite:///{folder / 'mlflow.db'}", "tracking.system_metrics=false"]
    config = compose_config([*overrides, *own])
    checked = check(config.data)
    tracker = Tracker(config.tracking, Path(config.outputs))
    with tracker.start("check", "label errors"):
        found = detect_held_out(config, overrides, checked, tracker)
    images = checked.images
    truths = [ground_truth(image, checked.class_names) for image in images]
    seen = [found[image.image] for image in images]
    ways = {"odtrain": _ours(truths, seen)}
    if find_spec("cleanlab"):
        ways["cleanlab"] = _cleanlabs(truths, seen, {})
        ways["cleanlab, lower"] = _cleanlabs(truths, seen, LOWER)
    result = {way: _scores(ranked, wrong) for way, ranked in ways.items()}
    for way, kinds in result.items():
        for kind, numbers in kinds.items():
            print(f"{way:15} {kind:13} {numbers}")
    given = [each for each in arguments[3:] if not each.startswith(("data.images", "data.anno"))]
    write_json(
        file, {**read_json(file), f"{config.data.name} {seed}": {"settings": given, **result}}
    )


# ---- errors


def _spoil(clean: Checked, folder: Path, chance: random.Random) -> list[Wrong]:
    """Write VOC labels with errors, each box with one at most."""
    images = sorted(clean.images, key=lambda image: image.image.name)
    places = [(i, j) for i, image in enumerate(images) for j in range(len(image.objects))]
    chance.shuffle(places)
    number = max(1, round(SHARE * len(places)))
    kinds = [OVERLOOKED, PLACED] + ([CLASSED] if len(clean.class_names) > 1 else [])
    wanted = {
        place: kind for n, kind in enumerate(kinds) for place in places[n * number :][:number]
    }
    shutil.rmtree(folder, ignore_errors=True)
    wrong = []
    for i, image in enumerate(images):
        objects = []
        for j, item in enumerate(image.objects):
            kind = wanted.get((i, j))
            spoilt = None if kind == OVERLOOKED else item
            if kind == PLACED:
                spoilt = _moved(item, chance)
            elif kind == CLASSED:
                others = [name for name in clean.class_names if name != item.name]
                spoilt = replace(item, name=chance.choice(others))
            if kind:
                wrong.append(Wrong(kind, image.image.name, (spoilt or item).yxyx))
            objects += [spoilt] if spoilt else []
        voc.write(folder, [replace(image, objects=tuple(objects))], [Path(image.image.name)])
    return wrong


def _moved(item: LabelledObject, chance: random.Random) -> LabelledObject:
    """The box by a quarter to half of its sides elsewhere, within the picture."""
    ymin, xmin, ymax, xmax = item.yxyx
    shifts = [chance.choice([-1, 1]) * chance.uniform(*MOVED) for _ in range(2)]
    down, right = shifts[0] * (ymax - ymin), shifts[1] * (xmax - xmin)
    box = np.clip([ymin + down, xmin + right, ymax + down, xmax + right], 0, 1)
    return replace(item, yxyx=tuple(box.tolist()))


# ---- rankings


def _ours(truths: Sequence[GroundTruth], found: Sequence[Detections]) -> list[Ranked]:
    ranked = []
    for doubt in label_doubts(truths, found):
        truth, seen = truths[doubt.picture], found[doubt.picture]
        box = seen.boxes[doubt.found] if doubt.label is None else truth.boxes[doubt.label]
        ranked.append(Ranked(doubt.kind, truth.name, tuple(box.tolist())))
    return ranked


def _cleanlabs(
    truths: Sequence[GroundTruth], found: Sequence[Detections], sure: Mapping[str, float]
) -> list[Ranked]:
    """By cleanlab's scores of boxes, lowest first; `sure` where other than its own is taken for sure."""
    from cleanlab.object_detection import rank

    numbers = [each.classes for pictures in (truths, found) for each in pictures]
    classes = max(int(ids.max(initial=1)) for ids in numbers)
    labels = [
        {"bboxes": _xyxy(t.boxes, t), "labels": t.classes - 1, "image_name": t.name} for t in truths
    ]
    predictions = [_by_class(seen, t, classes) for t, seen in zip(truths, found, strict=True)]
    given: dict[str, Any] = {"labels": labels, "predictions": predictions}
    ways: dict[str, Callable[..., Any]] = {
        OVERLOOKED: rank.compute_overlooked_box_scores,
        PLACED: rank.compute_badloc_box_scores,
        CLASSED: rank.compute_swap_box_scores,
    }
    ranked: list[tuple[float, Ranked]] = []
    for kind, scores_of in ways.items():
        named = {"low": kind == PLACED, "high": kind != PLACED}
        own = {f"{name}_probability_threshold": sure[name] for name in sure if named[name]}
        for number, scores in enumerate(scores_of(**given, **own)):
            truth = truths[number]
            boxes = truth.boxes if kind != OVERLOOKED else _in_their_order(found[number], classes)
            ranked += [
                (float(score), Ranked(kind, truth.name, tuple(box.tolist())))
                for score, box in zip(scores, boxes, strict=True)
                if not np.isnan(score)
            ]
    return [each for _, each in sorted(ranked, key=lambda pair: pair[0])]


def _xyxy(boxes: Any, truth: GroundTruth) -> Any:
    return boxes[:, [1, 0, 3, 2]] * np.array([truth.width, truth.height] * 2)


def _by_class(seen: Detections, truth: GroundTruth, classes: int) -> Any:
    """An array of (n, 5) arrays, one a class: xmin, ymin, xmax, ymax in pixels, and score."""
    rows = np.concatenate([_xyxy(seen.boxes, truth), seen.scores[:, None]], axis=1)
    result = np.empty(classes, object)
    for number in range(classes):
        result[number] = rows[seen.classes == number + 1]
    return result


def _in_their_order(seen: Detections, classes: int) -> Any:
    return np.concatenate([seen.boxes[seen.classes == number + 1] for number in range(classes)])


# ---- counting


def _scores(ranked: Sequence[Ranked], wrong: Sequence[Wrong]) -> dict[str, dict[str, float]]:
    result = {}
    for kind in KINDS:
        errors = [each for each in wrong if each.kind == kind]
        if errors:
            hits = [_hit(each, errors) for each in ranked if each.kind == kind]
            first, twice = hits[: len(errors)], hits[: 2 * len(errors)]
            result[kind] = {
                "errors": len(errors),
                "precision at k": round(sum(hit >= 0 for hit in first) / len(errors), 3),
                "recall at 2k": round(len({hit for hit in twice if hit >= 0}) / len(errors), 3),
            }
    return result


def _hit(doubt: Ranked, errors: Sequence[Wrong]) -> int:
    """Number of the error that a doubt is about, -1 where it is about none."""
    for number, error in enumerate(errors):
        boxes = (np.array([each.yxyx], np.float32) for each in (doubt, error))
        if doubt.name == error.name and pairwise_iou(*boxes)[0, 0] >= FOUND:
            return number
    return -1


if __name__ == "__main__":
    main(sys.argv[1:])
