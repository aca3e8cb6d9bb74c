"""How long COCO's evaluation takes, by faster-coco-eval and by pycocotools, on the same detections.

`python benchmarks/evaluation.py` prints one table; 5,000 pictures take a minute or two.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from odtrain.evaluation.coco import CocoDict, coco_results, coco_truth
from odtrain.structures import Detections, FloatArray, GroundTruth

Evaluator = Callable[[CocoDict, list[CocoDict]], NDArray[np.float64]]

PICTURES = 5000
DETECTIONS = 50
CLASSES = 80
SIZE = (480, 640)
"""Height and width of each picture."""


@dataclass(frozen=True)
class Row:
    """One evaluator on the shared detections.

    Attributes:
        name: of the evaluator.
        seconds: by the clock on the wall.
        cpu_seconds: of this process.
        ratio: how many times as fast as pycocotools, by the clock on the wall.
        max_difference: largest difference from pycocotools' twelve numbers.
        load: processes waiting or running over the last minute, before it ran.
    """

    name: str
    seconds: float
    cpu_seconds: float
    ratio: float
    max_difference: float
    load: float


def compare(pictures: int = PICTURES, detections: int = DETECTIONS, seed: int = 0) -> list[Row]:
    """Run both evaluators on the same detections, from COCO dictionaries to the twelve numbers."""
    truths, found = random_detections(pictures, detections, seed)
    ids = np.arange(1, CLASSES + 1)
    runs = [
        _timed(name, EVALUATORS[name], coco_truth(truths, ids), coco_results(truths, found))
        for name in tqdm(EVALUATORS, desc="evaluating", unit="evaluator", leave=False)
    ]
    reference = runs[0]
    return [
        Row(
            name=run.name,
            seconds=run.seconds,
            cpu_seconds=run.cpu_seconds,
            ratio=reference.seconds / run.seconds,
            max_difference=float(np.abs(run.numbers - reference.numbers).max()),
            load=run.load,
        )
        for run in runs
    ]


def random_detections(
    pictures: int, detections: int, seed: int
) -> tuple[list[GroundTruth], list[Detections]]:
    """Seven boxes per picture; detections near them, at times of another class, and elsewhere."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for i in range(pictures):
        boxes, classes = _random_boxes(rng, 7), rng.integers(1, CLASSES + 1, 7)
        truths.append(GroundTruth(f"{i}.jpg", *SIZE, boxes, classes))
        near = rng.integers(0, 7, detections)
        moved = boxes[near] + rng.normal(0, 0.02, (detections, 4)).astype(np.float32)
        moved = np.sort(moved.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        elsewhere = rng.random(detections) < 0.5
        places = np.where(elsewhere[:, None], _random_boxes(rng, detections), np.clip(moved, 0, 1))
        other = rng.random(detections) < 0.3
        names = np.where(other, rng.integers(1, CLASSES + 1, detections), classes[near])
        scores = np.sort(rng.random(detections).astype(np.float32))[::-1]
        found.append(Detections(places, scores, names))
    return truths, found


@dataclass(frozen=True)
class _Run:
    name: str
    seconds: float
    cpu_seconds: float
    load: float
    numbers: NDArray[np.float64]


def _timed(name: str, evaluator: Evaluator, truth: CocoDict, results: list[CocoDict]) -> _Run:
    load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        numbers = evaluator(truth, results)
    return _Run(name, time.perf_counter() - wall, time.process_time() - cpu, load, numbers)


def _by_pycocotools(truth: CocoDict, results: list[CocoDict]) -> NDArray[np.float64]:
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    return _twelve(COCOeval(coco, coco.loadRes(results), "bbox"))


def _by_faster_coco_eval(truth: CocoDict, results: list[CocoDict]) -> NDArray[np.float64]:
    coco = FasterCOCO(truth)
    return _twelve(COCOeval_faster(coco, coco.loadRes(results), "bbox"))


def _twelve(evaluation: Any) -> NDArray[np.float64]:
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return np.array(evaluation.stats[:12])


def _random_boxes(rng: np.random.Generator, count: int) -> FloatArray:
    """(count, 4) yxyx fractions with sides from 2 % to 50 % of the picture."""
    sides = rng.uniform(0.02, 0.5, (count, 2))
    corners = rng.uniform(0, 1 - sides)
    return np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def main() -> None:
    """Print the table."""
    print(f"{PICTURES} pictures x {DETECTIONS} detections, {CLASSES} classes")
    print(f"{'evaluator':18}{'seconds':>9}{'CPU s':>8}{'ratio':>7}{'max diff':>10}{'load':>7}")
    for row in compare():
        print(
            f"{row.name:18}{row.seconds:9.1f}{row.cpu_seconds:8.1f}{row.ratio:7.1f}"
            f"{row.max_difference:10.1e}{row.load:7.2f}"
        )


EVALUATORS: dict[str, Evaluator] = {
    "pycocotools": _by_pycocotools,
    "faster-coco-eval": _by_faster_coco_eval,
}
"""The first one is what the others are compared with."""

if __name__ == "__main__":
    main()
