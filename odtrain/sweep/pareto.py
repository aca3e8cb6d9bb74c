"""Which files nothing beats, and which of them is taken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from odtrain.io import markdown


@dataclass(frozen=True)
class FrontPoint:
    """One exported file of a finished training.

    Attributes:
        trial: number of the trial in the study.
        run_id: of the training.
        format: of the file.
        params: what the sampler chose, key -> value.
        metrics: `mAP`, `mAP_50`, `mAP_lo`, `mAP_hi`, `latency_ms_p50`, `size_mb`, ... of the file, on
            the validation split.
        file: its path among the run's artifacts.
        failed: why the file must not be promoted, or None.
        host: machine that trained it and took its time.
    """

    trial: int
    run_id: str
    format: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    file: str
    failed: str | None = None
    host: str = ""


def dominates(
    first: Mapping[str, float], second: Mapping[str, float], directions: Mapping[str, str]
) -> bool:
    """Whether `first` is at least as good in everything and better in something."""
    signs = {key: 1 if way == "maximize" else -1 for key, way in directions.items()}
    gains = [sign * (first[key] - second[key]) for key, sign in signs.items()]
    return min(gains) >= 0 and max(gains) > 0


def front(points: Sequence[FrontPoint], directions: Mapping[str, str]) -> list[FrontPoint]:
    """The points that no other dominates, best first by the first direction."""
    usable = [point for point in points if point.failed is None]
    kept = [
        point
        for point in usable
        if not any(dominates(other.metrics, point.metrics, directions) for other in usable)
    ]
    key, way = next(iter(directions.items()))
    return sorted(kept, key=lambda point: point.metrics[key], reverse=way == "maximize")


def pick(
    points: Sequence[FrontPoint],
    max_latency_ms: float | None = None,
    min_map: float | None = None,
    max_size_mb: float | None = None,
) -> FrontPoint | None:
    """The point of highest mAP within the limits; with `min_map`, the quickest one that has it."""
    fitting = [
        point
        for point in points
        if (max_latency_ms is None or point.metrics["latency_ms_p50"] <= max_latency_ms)
        and (max_size_mb is None or point.metrics["size_mb"] <= max_size_mb)
        and (min_map is None or point.metrics["mAP"] >= min_map)
    ]
    if not fitting:
        return None
    if min_map is not None:
        return min(fitting, key=lambda point: point.metrics["latency_ms_p50"])
    return max(fitting, key=lambda point: point.metrics["mAP"])


# ---- written


def front_json(points: Sequence[FrontPoint]) -> str:
    """`front.json`: rows of trial, run_id, format, the metrics by name, params and file."""
    rows = [
        {
            "trial": point.trial,
            "run_id": point.run_id,
            "format": point.format,
            **point.metrics,
            "params": dict(point.params),
            "file": point.file,
            "host": point.host,
        }
        for point in points
    ]
    return json.dumps(rows, indent=2) + "\n"


def read_front(text: str) -> list[FrontPoint]:
    """What `front_json` wrote."""
    fields = ("trial", "run_id", "format", "params", "file", "host")
    return [
        FrontPoint(
            **{name: row[name] for name in fields},
            metrics={key: value for key, value in row.items() if key not in fields},
        )
        for row in json.loads(text)
    ]


def front_table(points: Sequence[FrontPoint]) -> str:
    """Points as a Markdown table."""
    columns = ("trial", "file", "mAP", "mAP_50", "latency p50", "size", "chosen")
    return "\n".join(markdown.table(columns, map(_cells, points)))


def _cells(point: FrontPoint) -> list[object]:
    values = point.metrics
    scores = [f"{values[name]:.3f}" for name in ("mAP", "mAP_50")]
    costs = [f"{values['latency_ms_p50']:.2f} ms", f"{values['size_mb']:.2f} MB"]
    chosen = ", ".join(f"{key}={short(value)}" for key, value in point.params.items())
    return [point.trial, point.format, *scores, *costs, chosen]


def short(value: Any) -> str:
    """A value of the space in few letters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
