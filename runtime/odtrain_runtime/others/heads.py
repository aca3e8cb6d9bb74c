"""What the outputs of other projects' detectors mean: candidates of each kind of head, and suppression.

A decoder takes the outputs of one picture by name, without their batch, and gives boxes as fractions of the
input (yxyx), scores and classes from 1. Sources of the formats: docs/other_models.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime.others.reading import CENTRES, CORNERS, PIXELS, SIGMOID, SOFTMAX, Reading
from odtrain_runtime.structures import FloatArray, IntArray, areas
from odtrain_runtime.tflite_metadata import BOXES, CLASSES, COUNT, SCORES

MOST_CANDIDATES = 1000
"""Pairs of box and class, best first, that suppression looks at."""
MOST_FOUND = 300
"""Detections of a picture: what YOLO's and DETR's own programs keep."""
LARGEST_EXPONENT = 20.0
"""Of a box's side: e to the 20th is beyond every picture, and float32 still holds it."""

Outputs = Mapping[str, NDArray[Any]]
"""Of one picture, by name, without the batch."""


class Candidates(NamedTuple):
    """What may be detections, best score first.

    Attributes:
        boxes: (M, 4) yxyx, fractions of the input.
        scores: (M,) 0-1.
        classes: (M,) from 1.
    """

    boxes: FloatArray
    scores: FloatArray
    classes: IntArray


Decoder = Callable[[Outputs, Reading], Candidates]


# ---- heads


def decode_yolo(outputs: Outputs, how: Reading) -> Candidates:
    """(4 + K, N) or (N, 4 + K): boxes and a probability of each class."""
    rows = _table(outputs, 4 + how.num_classes, first=True)
    return best_pairs(_boxes(rows[:, :4], how), rows[:, 4:], MOST_CANDIDATES)


def decode_yolov5(outputs: Outputs, how: Reading) -> Candidates:
    """(N, 5 + K) or (5 + K, N): boxes, whether there is an object, and which class then."""
    rows = _table(outputs, 5 + how.num_classes, first=False)
    return best_pairs(_boxes(rows[:, :4], how), rows[:, 4:5] * rows[:, 5:], MOST_CANDIDATES)


def decode_yolox(outputs: Outputs, how: Reading) -> Candidates:
    """As YOLOv5's, of which each box has its best class alone."""
    rows = _table(outputs, 5 + how.num_classes, first=False)
    return _best_class(_boxes(rows[:, :4], how), rows[:, 4:5] * rows[:, 5:])


def decode_yolox_raw(outputs: Outputs, how: Reading) -> Candidates:
    """As YOLOX's, its boxes still to be placed: centres from their cell, logarithms of sides, in strides."""
    rows = _table(outputs, 5 + how.num_classes, first=False)
    points, strides = grid(how)
    centres = rows[:, :2] * strides[:, None] + points
    sides = np.exp(np.minimum(rows[:, 2:4], LARGEST_EXPONENT)) * strides[:, None]
    boxes = _boxes(np.concatenate([centres, sides], axis=1), how)
    return _best_class(boxes, rows[:, 4:5] * rows[:, 5:])


def decode_end_to_end(outputs: Outputs, how: Reading) -> Candidates:
    """(N, 6): xmin, ymin, xmax, ymax, score and class from 0, suppressed already."""
    rows = _table(outputs, 6, first=False)
    order = np.argsort(-rows[:, 4], kind="stable")
    chosen = rows[order]
    return Candidates(
        _yxyx(chosen[:, :4], how), chosen[:, 4], np.rint(chosen[:, 5]).astype(np.int64) + 1
    )


def decode_detr(outputs: Outputs, how: Reading) -> Candidates:
    """(Q, 4) boxes and (Q, K) logits; with a softmax the last column is no object, and each has its best."""
    boxes, logits = detr_outputs(outputs)
    placed = _boxes(boxes, how)
    if how.activation == SOFTMAX:
        return _best_class(placed, _softmax(logits)[:, : how.num_classes])
    return best_pairs(placed, _activated(logits, how)[:, : how.num_classes], MOST_FOUND)


def decode_ssd(outputs: Outputs, how: Reading) -> Candidates:
    """(A, 4) encodings ty, tx, th, tw of anchors, and (A, K) scores, the background's before them or not."""
    encodings, scores = ssd_outputs(outputs)
    boxes = decode_encodings(encodings, how.anchor_array(), how.box_scales)
    likely = _activated(scores, how)[:, int(how.background) :]
    return best_pairs(boxes, likely, MOST_CANDIDATES)


def decode_nanodet(outputs: Outputs, how: Reading) -> Candidates:
    """Scores, and of each side of a box how likely it lies 0, 1, ... strides from the cell's point.

    One (N, K + 4 R) table of all grids, or two tables, (n, K) and (n, 4 R), of each.
    """
    scores, sides = nanodet_outputs(outputs, how.num_classes)
    points, strides = grid(how)
    likely = _softmax(sides.reshape(len(sides), 4, -1))
    reach = likely @ np.arange(likely.shape[-1], dtype=np.float32) * strides[:, None]
    corners = np.concatenate([points - reach[:, :2], points + reach[:, 2:]], axis=1)
    return best_pairs(_yxyx(corners, how), _activated(scores, how), MOST_CANDIDATES)


def decode_detections(outputs: Outputs, how: Reading) -> Candidates:
    """Boxes (M, 4), scores and classes (M,) from 0, and how many count; `xyxy` or yxyx fractions."""
    named = detection_outputs(outputs)
    count = int(np.rint(named[COUNT]).reshape(())) if COUNT in named else len(named[SCORES])
    boxes = named[BOXES][:count].astype(np.float32)
    placed = _yxyx(boxes, how) if how.boxes == CORNERS else boxes
    classes = np.rint(named[CLASSES][:count]).astype(np.int64)
    return Candidates(placed, named[SCORES][:count].astype(np.float32), classes + 1)


# ---- which output is which


DETR_BOXES = ("box", "dets")
NAMES = {BOXES: ("box",), CLASSES: ("class", "label"), SCORES: ("score",)}
COUNTS = ("count", "num")


def detr_outputs(outputs: Outputs) -> tuple[FloatArray, FloatArray]:
    """Boxes and logits: by name, else boxes are what has four columns."""
    named = [name for name in outputs if any(part in name.lower() for part in DETR_BOXES)]
    fours = [name for name, value in outputs.items() if value.shape[-1] == 4]
    boxes = next((name for name in named if name in fours), None) or next(iter(fours))
    (logits,) = (value for name, value in outputs.items() if name != boxes)
    return outputs[boxes].astype(np.float32), logits.astype(np.float32)


def ssd_outputs(outputs: Outputs) -> tuple[FloatArray, FloatArray]:
    """Encodings and scores: by name, else encodings are what has four columns."""
    named = [name for name in outputs if "encoding" in name.lower() or "box" in name.lower()]
    fours = [name for name, value in outputs.items() if value.shape[-1] == 4]
    chosen = named[0] if len(named) == 1 else fours[0]
    (scores,) = (value for name, value in outputs.items() if name != chosen)
    return outputs[chosen].reshape(-1, 4).astype(np.float32), scores.astype(np.float32)


def nanodet_outputs(outputs: Outputs, classes: int) -> tuple[FloatArray, FloatArray]:
    """(N, K) scores and (N, 4 R) distances of all grids, finest first."""
    if len(outputs) == 1:
        rows = next(iter(outputs.values())).astype(np.float32)
        return rows[:, :classes], rows[:, classes:]
    tables = sorted(outputs.values(), key=len, reverse=True)
    scores = [table for table in tables if table.shape[1] == classes]
    sides = [table for table in tables if table.shape[1] != classes]
    return np.concatenate(scores).astype(np.float32), np.concatenate(sides).astype(np.float32)


def detection_outputs(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """The outputs of a detector with suppression inside, by role."""
    found = {
        role: value
        for role, parts in NAMES.items()
        for name, value in outputs.items()
        if any(part in name.lower() for part in parts) and "raw" not in name.lower()
    }
    counts = [
        value for name, value in outputs.items() if any(part in name.lower() for part in COUNTS)
    ]
    return {**found, COUNT: counts[0]} if counts else found


def _table(outputs: Outputs, columns: int, first: bool) -> FloatArray:
    """The one (N, columns) output; `first`: where both axes fit, columns come first."""
    (table,) = outputs.values()
    turned = table.shape[0] == columns and (first or table.shape[1] != columns)
    return (table.T if turned else table).astype(np.float32)


# ---- boxes and scores


def grid(how: Reading) -> tuple[FloatArray, FloatArray]:
    """(N, 2) x and y in pixels of the cells' points, grid by grid and row by row, and (N,) their strides."""
    points, strides = [], []
    for stride in how.strides:
        rows, columns = (-(-side // stride) for side in how.size)
        y, x = np.mgrid[:rows, :columns].reshape(2, -1).astype(np.float32) + how.cell_offset
        points.append(np.stack([x, y], axis=1) * stride)
        strides.append(np.full(rows * columns, stride, np.float32))
    return np.concatenate(points), np.concatenate(strides)


def decode_encodings(
    encodings: FloatArray, anchors: FloatArray, scales: tuple[float, ...]
) -> FloatArray:
    """(A, 4) yxyx boxes of encodings and anchors, as the TF1 Object Detection API's Faster R-CNN coder."""
    scaled = encodings / np.asarray(scales, np.float32)
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = scaled[:, :2] * sides + anchors[:, :2] + sides / 2
    half = np.exp(np.minimum(scaled[:, 2:], LARGEST_EXPONENT)) * sides / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def _boxes(four: FloatArray, how: Reading) -> FloatArray:
    """Yxyx fractions of boxes as the head writes them."""
    if how.boxes != CENTRES:
        return _yxyx(four, how)
    half = four[:, 2:] / 2
    return _yxyx(np.concatenate([four[:, :2] - half, four[:, :2] + half], axis=1), how)


def _yxyx(xyxy: FloatArray, how: Reading) -> FloatArray:
    height, width = how.size if how.unit == PIXELS else (1, 1)
    turned: FloatArray = xyxy[:, [1, 0, 3, 2]]
    turned /= np.array([height, width] * 2, np.float32)
    return turned


def _activated(scores: FloatArray, how: Reading) -> FloatArray:
    if how.activation == SIGMOID:
        low: FloatArray = np.exp(-np.abs(scores))  # never above 1, so that nothing overflows
        above: FloatArray = np.where(scores >= 0, np.float32(1), low)
        likely: FloatArray = above / (np.float32(1) + low)
        return likely
    return _softmax(scores) if how.activation == SOFTMAX else scores


def _softmax(values: FloatArray) -> FloatArray:
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: FloatArray = raised / raised.sum(axis=-1, keepdims=True)
    return shares


def best_pairs(boxes: FloatArray, scores: FloatArray, most: int) -> Candidates:
    """The best pairs of (N, 4) boxes and their (N, K) classes."""
    flat = np.nan_to_num(scores.reshape(-1), nan=0.0)
    chosen = _best(flat, most)
    rows, columns = np.divmod(chosen, scores.shape[1])
    return Candidates(boxes[rows], flat[chosen], columns + 1)


def _best_class(boxes: FloatArray, scores: FloatArray) -> Candidates:
    """Each of (N, 4) boxes with its best of (N, K) classes, best first."""
    known = np.nan_to_num(scores, nan=0.0)
    classes, best = known.argmax(axis=1), known.max(axis=1)
    chosen = _best(best, MOST_CANDIDATES)
    return Candidates(boxes[chosen], best[chosen], classes[chosen] + 1)


def _best(scores: FloatArray, most: int) -> IntArray:
    """Where the best are, best first; equal ones in their order."""
    above = np.arange(len(scores))
    if len(scores) > most:
        limit = np.partition(scores, -most)[-most]
        above = np.flatnonzero(scores >= limit)
    return above[np.argsort(-scores[above], kind="stable")][:most]


def suppressed(found: Candidates, iou: float) -> Candidates:
    """Without those that a better one of their class overlaps by more than `iou`.

    Args:
        found: best first.
        iou: intersection over union.
    """
    top, left, bottom, right = np.ascontiguousarray(found.boxes.T)
    size = areas(found.boxes)
    free, rows = np.ones(len(size), bool), []
    for row in range(len(size)):
        if not free[row]:
            continue
        rows.append(row)
        if len(rows) == MOST_FOUND:
            break
        rest = slice(row + 1, None)
        high = np.minimum(bottom[row], bottom[rest]) - np.maximum(top[row], top[rest])
        wide = np.minimum(right[row], right[rest]) - np.maximum(left[row], left[rest])
        shared = np.maximum(high, 0) * np.maximum(wide, 0)
        hidden = shared > iou * (size[row] + size[rest] - shared)
        free[rest] &= ~(hidden & (found.classes[rest] == found.classes[row]))
    return Candidates(found.boxes[rows], found.scores[rows], found.classes[rows])


DECODERS: dict[str, tuple[Decoder, bool]] = {
    "detections": (decode_detections, False),
    "yolo": (decode_yolo, True),
    "yolov5": (decode_yolov5, True),
    "yolox": (decode_yolox, True),
    "yolox_raw": (decode_yolox_raw, True),
    "end_to_end": (decode_end_to_end, False),
    "detr": (decode_detr, False),
    "ssd": (decode_ssd, True),
    "nanodet": (decode_nanodet, True),
}
"""Head -> its decoder, and whether what it gives is still to be suppressed."""


def detections(outputs: Outputs, how: Reading) -> Candidates:
    """What a head says of one picture, each object once."""
    decode, suppress = DECODERS[how.head]
    found = decode(outputs, how)
    return suppressed(found, how.iou) if suppress else found
