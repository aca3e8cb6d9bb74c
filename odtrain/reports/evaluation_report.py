"""The report of an evaluation: numbers, curves, and pictures to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from odtrain.evaluation.evaluate import ClassResult, Evaluation, ImageResult
from odtrain.io.cells import write_rows
from odtrain.media.draw import draw, draw_truth, fit, printable_label, side_by_side
from odtrain.reports import charts, shots
from odtrain.structures import Detections, GroundTruth, UInt8Image
from odtrain.system.progress import Bar, doing
from odtrain.tracking.names import key_name

PER_CLASS_HEADER = (
    "class",
    "AP",
    "AP_50",
    "images",
    "boxes",
    "best_f1_threshold",
    "precision",
    "recall",
)
WORST_HEADER = ("file", "f1", "found", "missed", "false_positives")
SHOWN = 8
"""Of the worst pictures, of the best and of those chosen evenly, that pages show."""
DRAWN_SIZE = (480, 1280)
"""Pixels of the shorter side at least, and of the longer one at most, of drawn pictures."""


@doing("Writing the report of the evaluation")
def write_report(
    evaluation: Evaluation,
    images: Callable[[int], UInt8Image],
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    folder: Path,
    drawn: int,
) -> None:
    """Write metrics.json, per_class.csv, worst.csv, two charts and four folders of pictures into the folder.

    worst.csv lists all pictures, worst first: by F1 at IoU .5 above the score threshold, then by
    the number of missed boxes and false positives. drawn/ shows some, chosen evenly, worst/ the first
    that have mistakes, best/ those without, the ones with the most objects first; pictures/ has the first
    `SHOWN` of each as they are, for pages that draw their boxes.

    Args:
        evaluation: of these truths and detections.
        images: the picture, (H, W, 3) RGB, of an index into truths.
        truths: one per picture.
        detections: of the same pictures.
        folder: made if it is not there.
        drawn: pictures in drawn/, chosen evenly, in worst/ and in best/, at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(_metrics_json(evaluation), encoding="utf-8")
    _write_table(
        folder / "per_class.csv", PER_CLASS_HEADER, map(_per_class_row, evaluation.per_class)
    )
    order = _worst_first(evaluation.images)
    _write_table(
        folder / "worst.csv", WORST_HEADER, (_worst_row(evaluation.images[i]) for i in order)
    )
    labels = [
        printable_label(evaluation.class_names, k + 1) for k in range(len(evaluation.per_class))
    ]
    charts.pr_curves(folder / "pr_curves.png", evaluation.precision, labels)
    charts.confusion(
        folder / "confusion_matrix.png", evaluation.confusion, labels, evaluation.threshold
    )
    _draw_sheets(evaluation, images, truths, detections, folder, drawn)


def _metrics_json(evaluation: Evaluation) -> str:
    content: dict[str, object] = {
        "evaluator": {"name": "faster-coco-eval", "version": version("faster-coco-eval")},
        "images": len(evaluation.images),
        "boxes": sum(row.boxes for row in evaluation.per_class),
        "bootstrap": evaluation.bootstrap,
        "score_threshold": evaluation.threshold,
        "metrics": evaluation.metrics,
        "missing": evaluation.missing,
    }
    keys = {name: key_name(f"eval/{name}") for name in evaluation.metrics}
    if renamed := {name: key for name, key in keys.items() if key != f"eval/{name}"}:
        content["renamed"] = renamed
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, [header, *rows])


def _per_class_row(row: ClassResult) -> list[object]:
    numbers = (row.ap, row.ap_50, row.threshold, row.precision, row.recall)
    ap, ap_50, *best = ("" if number is None else f"{number:.4f}" for number in numbers)
    return [row.name, ap, ap_50, row.images, row.boxes, *best]


def _worst_row(image: ImageResult) -> list[object]:
    return [image.name, f"{image.f1:.4f}", image.found, image.missed, image.false_positives]


def _worst_first(images: Sequence[ImageResult]) -> list[int]:
    return sorted(range(len(images)), key=lambda i: (images[i].f1, -images[i].mistakes))


def worst_of(images: Sequence[ImageResult]) -> list[int]:
    """Places of the pictures with mistakes, worst first."""
    return [i for i in _worst_first(images) if images[i].mistakes]


def best_of(images: Sequence[ImageResult]) -> list[int]:
    """Places of the pictures that show something and have no mistakes, those with the most objects first."""
    faultless = [i for i, image in enumerate(images) if image.found and not image.mistakes]
    return sorted(faultless, key=lambda i: -images[i].found)


def _numbered(folder: Path, indices: Sequence[int]) -> list[tuple[Path, int]]:
    """Files of the folder, which is made, that sort in the order of the indices."""
    if indices:
        folder.mkdir(exist_ok=True)
    return [(folder / f"{place:03d}", i) for place, i in enumerate(indices, start=1)]


def _draw_sheets(
    evaluation: Evaluation,
    images: Callable[[int], UInt8Image],
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    folder: Path,
    drawn: int,
) -> None:
    """Fill drawn/, worst/, best/ and pictures/ with `drawn` pictures each, at most."""
    even = np.linspace(0, len(truths) - 1, min(drawn, len(truths))).round().astype(int)
    worst, best = worst_of(evaluation.images)[:drawn], best_of(evaluation.images)[:drawn]
    chosen = {"drawn": even.tolist(), "worst": worst, "best": best}
    shown = [i for some in chosen.values() for i in some[:SHOWN]]
    shots.write_pictures(folder / shots.FOLDER, images, shown)
    files = [file for name, some in chosen.items() for file in _numbered(folder / name, some)]
    for file, i in Bar(files, doing="drawing", leave=False):
        sheet = _sheet(images(i), truths[i], detections[i], evaluation, evaluation.images[i])
        Image.fromarray(sheet).save(
            file.with_name(f"{file.name}_{file_stem(truths[i].name)}.jpg"), quality=88
        )


def file_stem(name: str) -> str:
    """What a drawn picture's file is called after, of any length and in any letters."""
    return Path(name).stem.encode(errors="replace")[:200].decode(errors="ignore")


def _sheet(
    image: UInt8Image,
    truth: GroundTruth,
    detections: Detections,
    evaluation: Evaluation,
    result: ImageResult,
) -> UInt8Image:
    """The picture with its detections, left, and with its ground truth, right."""
    names, threshold = evaluation.class_names, evaluation.threshold
    picture = fit(image, *DRAWN_SIZE)
    title = (
        f"score ≥ {threshold:.2f}: found {result.found}, missed {result.missed},"
        f" false {result.false_positives}"
    )
    return side_by_side(
        draw(picture, detections, names, threshold),
        draw_truth(picture, truth, names),
        (title, f"ground truth: {truth.name}"),
    )
