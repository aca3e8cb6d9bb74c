"""What published weights are worth: trainings from them and from random weights, on the same folds, in pairs.

    python -m benchmarks.weights FOLDER FILE.json model=NAME data.images=DIR data.annotations=DIR [KEY=VALUE]

Each fold is trained on twice with the same settings, in a folder of its own below FOLDER; what is finished
there is not trained again. Every picture is in the test split of one fold, so that both sides have detections
of all pictures, each from a network that never saw it. FILE.json keeps the numbers after each fold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odtrain.evaluation.paired_bootstrap import Comparison, compare_detections
from odtrain.evaluation.saved_detections import EVALUATED, FOLDER, LABELS, read_kept, read_labelled
from odtrain.io.atomic import write_json
from odtrain.structures import Detections, GroundTruth

FOLDS = 5
SIDES = {"random weights": "null", "published weights": "zoo"}
BOOTSTRAP = 2000
SETTINGS = (
    "train.steps=150",
    "train.batch_size=8",
    "evaluate.every=0",
    "evaluate.bootstrap=0",
    "export.formats=[tflite_fp32]",
    "benchmark.runs=5",
    "tracking.system_metrics=false",
)
"""What both sides are trained with, unless the command line says otherwise."""


def main(arguments: Sequence[str]) -> None:
    """Train what is not trained yet, and compare after each fold."""
    folder, file, overrides = Path(arguments[0]).resolve(), Path(arguments[1]), arguments[2:]
    settings = [*SETTINGS, f"data.folds={FOLDS}", *map(_absolute, overrides)]
    truths: list[GroundTruth] = []
    found: dict[str, list[Detections]] = {side: [] for side in SIDES}
    for fold in range(FOLDS):
        for side, checkpoint in SIDES.items():
            own = [f"data.fold={fold}", f"train.checkpoint={checkpoint}"]
            place = _trained(folder / f"fold{fold}-{checkpoint}", [*settings, *own])
            found[side] += read_kept(place / f"{EVALUATED}.npz").detections
        split = read_labelled(place)
        truths += split.truths
        a, b = found.values()
        both = compare_detections(truths, a, b, split.class_names, BOOTSTRAP, seed=0)
        sides = dict(zip("ab", SIDES, strict=True))
        print(f"{fold + 1} of {FOLDS} folds: {both.in_words(sides)}", flush=True)
        write_json(file, _kept(both, overrides, fold + 1))


def _absolute(override: str) -> str:
    """The trainings run in folders of their own."""
    key, _, value = override.partition("=")
    return (
        f"{key}={Path(value).resolve()}" if key in ("data.images", "data.annotations") else override
    )


def _trained(folder: Path, settings: Sequence[str]) -> Path:
    """The folder of what a training found in its test split."""
    if not (done := list(folder.glob(f"outputs/*/*/**/{FOLDER}/{EVALUATED}.npz"))):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "odtrain", "train", *settings]
        subprocess.run(command, cwd=folder, env=_environment(), check=True)
        done = list(folder.glob(f"outputs/*/*/**/{FOLDER}/{EVALUATED}.npz"))
    return next(each.parent for each in done if each.with_name(LABELS).is_file())


def _environment() -> dict[str, str]:
    """Each training has a store of its own, beside its outputs."""
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def _kept(both: Comparison, overrides: Sequence[str], folds: int) -> dict[str, Any]:
    given = [each for each in overrides if not each.startswith(("data.images", "data.annotations"))]
    return {
        "settings": [*SETTINGS, *given],
        "folds": folds,
        "pictures": both.pictures,
        "bootstrap": both.bootstrap,
        "a": "random weights",
        "b": "published weights",
        **{name: asdict(row) for name, row in both.overall.items()},
    }


if __name__ == "__main__":
    main(sys.argv[1:])
