"""Losses and assigners once more, object by object and anchor by anchor in NumPy, from the papers' formulas."""

from __future__ import annotations

import math

import numpy as np


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def iou(a, b):
    both = area([*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])])
    either = area(a) + area(b) - both
    return both / either if either > 0 else 0.0


def centre(box):
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def box_loss(kind, a, b):
    hull = [*np.minimum(a[:2], b[:2]), *np.maximum(a[2:], b[2:])]
    overlap = iou(a, b)
    if kind == "giou":
        both = area([*np.maximum(a[:2], b[:2]), *np.minimum(a[2:], b[2:])])
        either = area(a) + area(b) - both
        return 1 - overlap + (area(hull) - either) / area(hull)
    diagonal = (hull[2] - hull[0]) ** 2 + (hull[3] - hull[1]) ** 2
    loss = 1 - overlap + np.sum((centre(a) - centre(b)) ** 2) / diagonal
    if kind == "ciou":
        shapes = [math.atan((x[3] - x[1]) / (x[2] - x[0])) for x in (a, b)]
        v = 4 / math.pi**2 * (shapes[0] - shapes[1]) ** 2
        loss += v * v / (1 - overlap + v) if v else 0.0
    return loss


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(target, logit):
    p = sigmoid(logit)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def class_loss(kind, target, logit):
    p = sigmoid(logit)
    if kind == "quality_focal":
        return abs(target - p) ** 2 * cross_entropy(target, logit)
    weight = target if target > 0 else 0.75 * p**2
    return weight * cross_entropy(target, logit)


def inside(point, box):
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def settle(takes, preferred, anchors, boxes):
    """Each anchor's object: of several takers the most preferred; who has none takes what it overlaps most."""
    owners = [-1] * len(anchors)
    for a in range(len(anchors)):
        takers = [n for n in range(len(boxes)) if a in takes[n]]
        if takers:
            owners[a] = max(takers, key=lambda n: (preferred(n, a), -n))
    forced = {}
    for n, box in enumerate(boxes):
        if n not in owners:
            best = max(range(len(anchors)), key=lambda a: (iou(box, anchors[a]), -a))
            forced.setdefault(best, n)
    return [forced.get(a, owner) for a, owner in enumerate(owners)]


def atss(anchors, levels, boxes):
    takes = []
    for box in boxes:
        candidates, first = [], 0
        for level in levels:
            numbers = list(range(first, first + level.anchors))
            first += level.anchors
            far = {a: np.sum((centre(box) - centre(anchors[a])) ** 2) for a in numbers}
            numbers.sort(key=lambda a: (far[a], a))
            candidates += numbers[: 9 * level.per_cell]
        overlaps = [iou(box, anchors[a]) for a in candidates]
        least = np.mean(overlaps) + (np.std(overlaps, ddof=1) if len(overlaps) > 1 else 0)
        takes.append(
            {
                a
                for a, overlap in zip(candidates, overlaps, strict=True)
                if overlap >= least and inside(centre(anchors[a]), box)
            }
        )
    return settle(takes, lambda n, a: iou(boxes[n], anchors[a]), anchors, boxes)


def simota(anchors, levels, boxes, classes, found, logits):
    strides = [level.stride for level in levels for _ in range(level.anchors)]
    takes, costs = [], []
    for box, kind in zip(boxes, classes, strict=True):
        cost, overlaps = {}, {}
        for a, anchor in enumerate(anchors):
            apart = np.abs(centre(box) - centre(anchor))
            central = bool(np.all(apart < 2.5 * np.array(strides[a])))
            within = inside(centre(anchor), box)
            if not (central or within):
                continue
            overlaps[a] = iou(box, found[a])
            wanted = [float(k + 1 == kind) for k in range(logits.shape[1])]
            cost[a] = sum(map(cross_entropy, wanted, logits[a]))
            cost[a] -= 3 * math.log(overlaps[a] + 1e-8)
            cost[a] += 0 if central and within else 1e5
        count = max(1, int(sum(sorted(overlaps.values())[-10:])))
        takes.append(set(sorted(cost, key=lambda a: (cost[a], a))[:count]))
        costs.append(cost)
    return settle(takes, lambda n, a: -costs[n][a], anchors, boxes)


def tal(anchors, boxes, classes, found, logits):
    overlaps = [[iou(box, one) for one in found] for box in boxes]
    aligned = [
        [sigmoid(logits[a][kind - 1]) * overlaps[n][a] ** 6 for a in range(len(anchors))]
        for n, kind in enumerate(classes)
    ]
    takes = []
    for n, box in enumerate(boxes):
        within = [a for a in range(len(anchors)) if inside(centre(anchors[a]), box)]
        within.sort(key=lambda a: (-aligned[n][a], a))
        takes.append({a for a in within[:13] if aligned[n][a] > 0})
    owners = settle(takes, lambda n, a: overlaps[n][a], anchors, boxes)
    shall = [0.0] * len(anchors)
    for n in range(len(boxes)):
        mine = [a for a, owner in enumerate(owners) if owner == n]
        for a in mine:
            if a in takes[n]:
                largest = max(aligned[n][b] for b in mine)
                shall[a] = aligned[n][a] / largest * max(overlaps[n][b] for b in mine)
            else:
                shall[a] = max(overlaps[n][a], iou(boxes[n], anchors[a]))
    return owners, shall
