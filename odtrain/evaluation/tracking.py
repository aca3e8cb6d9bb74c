"""How well objects of videos are followed: HOTA, MOTA and IDF1 by the package `trackers`.

HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", 2021. MOTA: Bernardin
and Stiefelhagen, "Evaluating Multiple Object Tracking Performance", 2008. IDF1: Ristani et al., "Performance
Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from odtrain.errors import ConfigError
from odtrain.evaluation.matching import draw_resamples, interval
from odtrain.structures import FloatArray, IntArray, pairwise_iou

SCORES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")
COUNTS = {"IDSW": "id_switches", "CLR_FP": "false_boxes", "CLR_FN": "missed_boxes"}
"""What `trackers` calls the counts of MOTA, and what they are called here."""


class FollowedFrame(NamedTuple):
    """The objects of one frame.

    Attributes:
        boxes: (N, 4) yxyx, in a unit that labels and detections share.
        tracks: (N,) numbers; the same object has the same one in every frame.
        classes: (N,) ids from 1; 0 where any class is meant.
    """

    boxes: FloatArray
    tracks: IntArray
    classes: IntArray


@dataclass(frozen=True)
class TrackingScores:
    """What several clips came to.

    Attributes:
        values: name -> number; HOTA and its parts, MOTA and IDF1 are at most 1, MOTA may be below 0.
        intervals: 95 % intervals of the scores over the clips; empty where there is one clip.
        by_clip: the values of each clip.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    by_clip: Sequence[Mapping[str, float]]


def score_tracks(
    clips: Sequence[Sequence[tuple[FollowedFrame, FollowedFrame]]], bootstrap: int, seed: int
) -> TrackingScores:
    """Score what was followed in clips against their labels.

    Args:
        clips: for each, its frames: what is labelled, and what was found.
        bootstrap: resamples of the clips behind the intervals; 0 for none.
        seed: of the resamples.

    Raises:
        ConfigError: `trackers` is not installed.
    """
    parts = [_parts(clip) for clip in clips]
    intervals = {}
    if bootstrap and len(clips) > 1:
        drawn = draw_resamples(len(clips), bootstrap, seed)
        several = [
            _values([part for part, times in zip(parts, row, strict=True) for _ in range(times)])
            for row in drawn.tolist()
        ]
        for name in SCORES:
            intervals[name] = interval(np.array([each[name] for each in several]))
    return TrackingScores(_values(parts), intervals, [_values([part]) for part in parts])


def _package() -> Any:
    try:
        import trackers.eval
    except ImportError:
        raise ConfigError(
            "labels=",
            "the package trackers is not installed.",
            "Install it: pip install 'odtrain[tracks]'",
        ) from None
    return trackers.eval


def _parts(clip: Sequence[tuple[FollowedFrame, FollowedFrame]]) -> tuple[Any, Any, Any]:
    """What HOTA, CLEAR and Identity make of one clip; clips are joined from it."""
    package = _package()
    ids = [_from_zero([sides[side].tracks for sides in clip]) for side in (0, 1)]
    likeness = [_likeness(truth, found) for truth, found in clip]
    return (
        package.compute_hota_metrics(*ids, likeness),
        package.compute_clear_metrics(*ids, likeness),
        package.compute_identity_metrics(*ids, likeness),
    )


def _likeness(truth: FollowedFrame, found: FollowedFrame) -> FloatArray:
    """(T, F) IoU; 0 where the classes are not the same."""
    first, second = truth.classes[:, None], found.classes[None]
    alike = (first == second) | (first == 0) | (second == 0)
    iou: FloatArray = pairwise_iou(truth.boxes, found.boxes) * alike
    return iou


def _from_zero(numbers: Sequence[IntArray]) -> list[IntArray]:
    """The numbers of each frame, counted from 0 without gaps."""
    known, places = np.unique(np.concatenate([[], *numbers]), return_inverse=True)
    if not len(known):
        return list(numbers)
    ends = np.cumsum([len(each) for each in numbers])[:-1]
    return [part.astype(np.int64) for part in np.split(places, ends)]


def _values(parts: Sequence[tuple[Any, Any, Any]]) -> dict[str, float]:
    package = _package()
    hota, clear, identity = zip(*parts, strict=True)
    joined = {
        **package.aggregate_hota_metrics(list(hota)),
        **package.aggregate_clear_metrics(list(clear)),
        **package.aggregate_identity_metrics(list(identity)),
    }
    scores = {name: float(joined[name]) for name in SCORES}
    return scores | {ours: float(joined[name]) for name, ours in COUNTS.items()}
