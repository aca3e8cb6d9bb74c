"""Points of a made-up sweep."""

from __future__ import annotations

from odtrain.sweep.pareto import FrontPoint

DIRECTIONS = {"mAP": "maximize", "latency_ms_p50": "minimize"}


def point(trial, score, latency, size=1.0, failed=None, name="tflite_fp32"):
    metrics = {"mAP": score, "mAP_50": score, "latency_ms_p50": latency, "size_mb": size}
    params = {"model.input_size": 96, "train.learning_rate": 0.0041234}
    return FrontPoint(trial, f"run{trial}", name, params, metrics, "export/model.tflite", failed)


POINTS = [
    point(0, 0.5, 2.0, size=3.0),
    point(1, 0.4, 1.0, size=2.0),
    point(2, 0.4, 1.5),
    point(3, 0.6, 2.0, failed="loses too much"),
    point(4, 0.5, 2.0, size=3.0, name="tflite_int8"),
    point(5, 0.2, 0.5, size=1.0),
]
