"""Makes sahi_merged.json: what sahi's greedy merging makes of tile detections of drawn scenes.

Run it where sahi is installed, which brings an OpenCV of its own: python sahi_merged.py > sahi_merged.json
Made with sahi 0.12.8 (GREEDYNMM, IOS, 0.5, class by class).
"""

import json
import sys

import numpy as np
from sahi.postprocess.combine import GreedyNMMPostprocess
from sahi.prediction import ObjectPrediction

HEIGHT, WIDTH, TILE, STEP = 260, 340, 100, 80


def scene(seed):
    """Objects of two classes, and what a detector with small errors sees of each in every tile."""
    random = np.random.default_rng(seed)
    objects = []
    while len(objects) < 8:
        height, width = random.integers(10, 45, 2)
        top, left = random.integers(0, HEIGHT - height), random.integers(0, WIDTH - width)
        box = np.array([top, left, top + height, left + width])
        if all(np.any(box[:2] > o[2:]) or np.any(box[2:] < o[:2]) for o, _ in objects):
            objects.append((box, int(random.integers(1, 3))))
    views = [
        (t, x, TILE, TILE)
        for t in range(0, HEIGHT - TILE + 1, STEP)
        for x in range(0, WIDTH - TILE + 1, STEP)
    ]
    found = [
        [seen for box, number in objects if (seen := _seen(box, number, view, random))]
        for view in views
    ]
    return views, found


def _seen(box, number, view, random):
    top, left, height, width = view
    corner = np.array([top, left, top, left])
    clipped = np.clip(box - corner, 0, [height, width, height, width])
    sides = clipped[2:] - clipped[:2]
    if sides.min() < 4 or sides.prod() < 0.5 * np.prod(box[2:] - box[:2]):
        return None
    noisy = np.clip(clipped + random.normal(0, 0.3, 4), 0, 100) / 100
    return [*noisy.round(5).tolist(), round(float(random.uniform(0.5, 0.99)), 5), number]


def merged(views, found):
    """The same through sahi: ymin, xmin, ymax, xmax in pixels, score, class."""
    predictions = []
    for (top, left, height, width), rows in zip(views, found, strict=True):
        for ymin, xmin, ymax, xmax, score, number in rows:
            box = [
                left + xmin * width,
                top + ymin * height,
                left + xmax * width,
                top + ymax * height,
            ]
            predictions.append(
                ObjectPrediction(
                    bbox=box,
                    category_id=number,
                    score=score,
                    category_name=str(number),
                    full_shape=[HEIGHT, WIDTH],
                )
            )
    combine = GreedyNMMPostprocess(match_threshold=0.5, match_metric="IOS", class_agnostic=False)
    rows = []
    for one in combine(predictions):
        xmin, ymin, xmax, ymax = one.bbox.to_xyxy()
        rows.append([ymin, xmin, ymax, xmax, float(one.score.value), one.category.id])
    return [[round(float(v), 5) for v in row[:5]] + [row[5]] for row in rows]


scenes = []
for seed in range(40):
    views, found = scene(seed)
    scenes.append(
        {"size": [HEIGHT, WIDTH], "views": views, "found": found, "sahi": merged(views, found)}
    )
json.dump({"scenes": scenes}, sys.stdout, separators=(",", ":"))
