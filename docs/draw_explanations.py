"""Draws the pictures of docs/matching.md and docs/int8.md from the demo's test panels and the evaluator.

    python docs/draw_explanations.py

Labels are those of the panels. Detections are made up, as nothing trained is shipped; what becomes of
them, and every number in a picture, is computed by odtrain's own code.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from odtrain.config.compose import compose_config
from odtrain.evaluation.coco import class_ids, curves, run_coco
from odtrain.evaluation.error_analysis import judge_picture
from odtrain.evaluation.matching import IOU_THRESHOLDS, RECALLS
from odtrain.structures import Detections, FloatArray, GroundTruth, UInt8Image, pairwise_iou

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PANELS, PICTURES = ROOT / "data/panels/images/test", ROOT / "docs/pictures"
NAMES = ("alarm", "close", "display", "floor", "key", "open")
LABEL, RIGHT, WRONG = "#0072b2", "#007a59", "#c24f00"
SHOWN_OVERLAPS = (0.9, 0.75, 0.5, 0.3)
SHOWN_PANEL = 70
JUDGED_PANELS = 60
TOO_WIDE = (1, 8, 32)
"""How many times the range of values is what the picture needs."""


# ---- what is drawn


def panel(number: int) -> tuple[UInt8Image, GroundTruth]:
    """A test panel and its labels."""
    file = PANELS / f"panel-test-{number:04d}.jpg"
    image = np.asarray(Image.open(file).convert("RGB"))
    height, width = image.shape[:2]
    objects = ET.parse(file.with_suffix(".xml")).findall("object")
    sides = [
        [float(each.findtext(f"bndbox/{side}") or 0) for side in ("ymin", "xmin", "ymax", "xmax")]
        for each in objects
    ]
    boxes = np.array(sides, np.float32).reshape(-1, 4) / np.float32([height, width, height, width])
    classes = np.array([NAMES.index(each.findtext("name") or "") + 1 for each in objects], int)
    return image, GroundTruth(file.name, height, width, boxes, classes)


def overlap(a: FloatArray, b: FloatArray) -> float:
    """IoU of two boxes."""
    return float(pairwise_iou(a[None], b[None])[0, 0])


def moved_to(box: FloatArray, wanted: float) -> FloatArray:
    """The box moved to the lower right until it overlaps itself by so much."""
    near, far = 0.0, 1.0
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (middle, far) if overlap(box, _moved(box, middle)) > wanted else (near, middle)
    return _moved(box, near)


def _moved(box: FloatArray, by: float, down: float | None = None) -> FloatArray:
    height, width = box[2] - box[0], box[3] - box[1]
    y = by if down is None else down
    return box + np.float32([y * height, by * width] * 2)


def made_up(truth: GroundTruth) -> Detections:
    """One detection of each fate in a picture, beside good ones."""
    boxes = [_moved(box, 0.04) for box in truth.boxes]
    fates = [
        (boxes[0], truth.classes[0], 0.97),
        (boxes[1], truth.classes[1], 0.93),
        (_moved(truth.boxes[1], -0.12), truth.classes[1], 0.61),
        (boxes[2], truth.classes[2] % len(NAMES) + 1, 0.84),
        (_moved(truth.boxes[3], -0.34, 0.3), truth.classes[3], 0.72),
        (boxes[4], truth.classes[4], 0.9),
        (np.float32([0.42, 0.05, 0.62, 0.22]), truth.classes[0], 0.55),
    ]
    fates.sort(key=lambda each: -each[2])
    rows = [np.array(column) for column in zip(*fates, strict=True)]
    return Detections(rows[0].astype(np.float32), rows[2].astype(np.float32), rows[1])


def made_up_detector() -> tuple[list[GroundTruth], list[Detections]]:
    """Labels of many panels, and what a fair detector might find there: jittered, missed, invented."""
    random = np.random.default_rng(3)
    truths = [panel(number)[1] for number in range(1, JUDGED_PANELS + 1)]
    return truths, [_found(truth, random) for truth in truths]


def _found(truth: GroundTruth, random: np.random.Generator) -> Detections:
    kept = random.random(len(truth.classes)) > 0.12
    boxes, classes = truth.boxes[kept], truth.classes[kept]
    sides = np.concatenate([boxes[:, 2:] - boxes[:, :2]] * 2, axis=1)
    errors = random.normal(0, 0.055, boxes.shape) * sides
    scores = np.clip(
        1.05 - 6 * np.abs(errors / sides).mean(axis=1) - random.random(len(boxes)) / 3, 0.05, 1
    )
    invented = random.uniform(0, 0.7, (2, 2))
    extra = np.concatenate([invented, invented + 0.2], axis=1)
    return Detections(
        np.concatenate([boxes + errors, extra]).astype(np.float32),
        np.concatenate([scores, random.uniform(0.05, 0.7, 2)]).astype(np.float32),
        np.concatenate([classes, random.integers(1, len(NAMES) + 1, 2)]),
    )


def average_precisions() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Of the made-up detector: (T, R) precision, mean over classes, and (T,) its mean."""
    truths, found = made_up_detector()
    precision = np.nanmean(curves(run_coco(truths, found, class_ids(truths, found, NAMES))), axis=2)
    return precision, precision.mean(axis=1)


def with_levels(image: UInt8Image, times: int) -> UInt8Image:
    """The picture with what is left of 256 levels where their range is so many times too wide."""
    return np.clip(np.round(image / times) * times, 0, 255).astype(np.uint8)


# ---- drawing


def draw_overlaps(file: Path) -> None:
    """A label and boxes that overlap it less and less."""
    image, truth = panel(SHOWN_PANEL)
    box = truth.boxes[2]
    figure, tiles = plt.subplots(1, 4, figsize=(8.4, 2.5))
    for tile, wanted in zip(tiles, SHOWN_OVERLAPS, strict=True):
        found = moved_to(box, wanted)
        _show(tile, image, f"IoU {overlap(box, found):.2f}")
        _box(tile, truth, box, LABEL, width=2.5)
        _box(tile, truth, found, WRONG, width=2.5, style="--")
        _zoom(tile, truth, box)
    _save(figure, file)


def draw_fates(file: Path) -> None:
    """What becomes of detections: found, and every kind of mistake."""
    image, truth = panel(SHOWN_PANEL)
    found = made_up(truth)
    judged = judge_picture(truth, found)
    figure, tile = plt.subplots(figsize=(6.4, 6.4 * truth.height / truth.width))
    _show(tile, image, "")
    for i, box in enumerate(truth.boxes):
        _box(tile, truth, box, LABEL, width=2)
        if judged.missed[i]:
            _tag(tile, truth, box, "missed", LABEL)
    for box, kind, score in zip(found.boxes, judged.kinds, found.scores, strict=True):
        colour = RIGHT if kind == "found" else WRONG
        _box(tile, truth, box, colour, width=2, style="--")
        _tag(tile, truth, box, f"{kind} {score:.2f}", colour, below=kind == "duplicate")
    _save(figure, file)


def draw_precision(file: Path) -> None:
    """Precision over recall at three overlaps, and the average precision at all ten."""
    precision, means = average_precisions()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2))
    for row, style in ((0, "-"), (5, "--"), (8, ":")):
        left.plot(
            RECALLS, precision[row], style, color=LABEL, label=f"IoU {IOU_THRESHOLDS[row]:.2f}"
        )
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    left.legend(frameon=False, loc="upper right")
    right.bar([f"{each:.2f}"[1:] for each in IOU_THRESHOLDS], means, color=LABEL)
    right.axhline(means.mean(), color=WRONG, linestyle="--")
    right.text(9.4, means.mean() + 0.02, f"mAP {means.mean():.3f}", color=WRONG, ha="right")
    right.set(
        xlabel="from this IoU on it counts as found", ylabel="average precision", ylim=(0, 1.02)
    )
    _save(figure, file)


def draw_anchors(file: Path) -> None:
    """The anchors of the demo's network that one picture's objects are given to."""
    image, truth = panel(SHOWN_PANEL)
    anchors, matches = _matched(truth)
    figure, tiles = plt.subplots(1, 2, figsize=(8.4, 4.2 * truth.height / truth.width + 0.3))
    _show(tiles[0], image, f"{len(truth.boxes)} labels")
    _show(
        tiles[1], image, f"{int((matches >= 0).sum())} of {len(anchors):,} anchors have an object"
    )
    for box in truth.boxes:
        _box(tiles[0], truth, box, LABEL, width=2)
    for box in anchors[matches >= 0]:
        _box(tiles[1], truth, box, WRONG, width=1)
    _save(figure, file)


def _matched(truth: GroundTruth) -> tuple[FloatArray, np.ndarray[Any, Any]]:
    from odtrain.models.build import build_detector
    from odtrain.training.target_assigner import match

    config = compose_config([]).model
    anchors = build_detector(config, len(NAMES)).anchors
    matches = match(anchors, truth.boxes[None], [len(truth.boxes)], config.matched_iou)
    return anchors, matches.numpy()[0]


def draw_levels(file: Path) -> None:
    """A panel whose values have 256 levels, and as few as a range too wide leaves."""
    image, _ = panel(SHOWN_PANEL)
    figure, tiles = plt.subplots(1, len(TOO_WIDE), figsize=(8.4, 2.6))
    for tile, times in zip(tiles, TOO_WIDE, strict=True):
        said = "the range fits" if times == 1 else f"{times} times too wide"
        _show(tile, with_levels(image, times), f"{said}: {256 // times} levels")
    _save(figure, file)


def _show(tile: Any, image: UInt8Image, title: str) -> None:
    tile.imshow(image)
    tile.set_axis_off()
    tile.set_title(title, fontsize=10)


def _box(
    tile: Any, truth: GroundTruth, box: FloatArray, colour: str, width: float, style: str = "-"
) -> None:
    top, left, bottom, right = _pixels(truth, box)
    corner, sides = (left, top), (right - left, bottom - top)
    tile.add_patch(Rectangle(corner, *sides, fill=False, edgecolor="white", linewidth=width + 1.6))
    tile.add_patch(
        Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=width, linestyle=style)
    )


def _pixels(truth: GroundTruth, box: FloatArray) -> Sequence[float]:
    scaled: list[float] = (box * np.float32([truth.height, truth.width] * 2)).tolist()
    return scaled


def _tag(
    tile: Any, truth: GroundTruth, box: FloatArray, text: str, colour: str, below: bool = False
) -> None:
    top, left, bottom, _ = _pixels(truth, box)
    ground = {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
    place = (max(left, 2), bottom + 8 if below else max(top - 3, 6))
    tile.text(*place, text, fontsize=8, color="white", bbox=ground)


def _zoom(tile: Any, truth: GroundTruth, box: FloatArray) -> None:
    top, left, bottom, right = _pixels(truth, box)
    height, width = bottom - top, right - left
    tile.set_xlim(left - 0.5 * width, right + width)
    tile.set_ylim(bottom + height, top - 0.5 * height)


def _save(figure: Any, file: Path) -> None:
    figure.tight_layout(pad=0.8)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, facecolor="white")
    plt.close(figure)
    with Image.open(drawn) as image:  # a palette is a third of the size
        image.convert("RGB").quantize(160).save(file, optimize=True)


DRAWN = {
    "overlaps.png": draw_overlaps,
    "fates.png": draw_fates,
    "precision.png": draw_precision,
    "anchors.png": draw_anchors,
    "levels.png": draw_levels,
}

if __name__ == "__main__":
    for name, draw in DRAWN.items():
        draw(PICTURES / name)
