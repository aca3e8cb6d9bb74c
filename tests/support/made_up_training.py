"""A training that is made up: does what odtrain.sweep.trial_process does, in milliseconds, without TensorFlow.

Its mAP and latency follow from the chosen values alone, so that tests know the front. It lasts as many
seconds as `train.max_minutes` says minutes, and leaves a line in the file `begun`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from odtrain.sweep.trial_process import TrialOutcome, read_request
from odtrain.system.following import follow


def chosen(overrides):
    return dict(text.partition("=")[::2] for text in overrides)


def made_up(values):
    """mAP grows with the input and falls with distance from the best rate; latency with the input."""
    side, rate = int(values["model.input_size"]), float(values["train.learning_rate"])
    score = side / 200 - 20 * abs(rate - 0.004)
    files = {
        name: {
            "mAP": score - loss,
            "mAP_50": side / 100,
            "mAP_lo": score - loss - 0.05,
            "mAP_hi": score - loss + 0.05,
            "latency_ms_p50": side * factor,
            "latency_ms_p90": side * factor * 1.1,
            "size_mb": 1.0,
            "peak_memory_mb": 50.0,
            "file": f"export/{name}",
            "failed": None,
        }
        for name, factor, loss in (("tflite_fp32", 0.1, 0.0), ("tflite_int8", 0.05, 0.05))
    }
    untrained = {name: {"latency_ms_p50": 1.0, "size_mb": 1.0} for name in files}
    run_id = hashlib.md5(f"{side} {rate}".encode()).hexdigest()
    return TrialOutcome(
        "done", "", run_id, [(0.5, score / 2), (1.0, score)], score, untrained, files
    )


def main():
    request, answer = map(Path, sys.argv[1:])
    asked = read_request(request)
    follow(asked.process)
    values = chosen(asked.overrides)
    with Path("begun").open("a") as begun:
        begun.write(f"{values['model.input_size']} {values['train.learning_rate']}\n")
    time.sleep(float(values.get("train.max_minutes", 0)))
    answer.with_suffix(".part").write_text(json.dumps(asdict(made_up(values))))
    answer.with_suffix(".part").replace(answer)


if __name__ == "__main__":
    main()
