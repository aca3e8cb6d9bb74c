"""What each option of training is worth on few pictures: every arm in equal time, on the same pictures.

    python -m benchmarks.recipes run FOLDER [--sets panels] [--arms base mosaic] [--minutes 9] [KEY=VALUE]
    python -m benchmarks.recipes table FOLDER

`benchmarks/recipes.yaml` has sets, arms and seeds. `run` trains what is not trained yet and ends behind the
training under way when its minutes are over; call it until it says that nothing is left. What each training
found in its test pictures is kept in FOLDER; `recipes.json` beside this file has the numbers. Time is the
processor's: other work on the machine then costs an arm little. Of each arm and set the speed is measured once,
and its steps follow.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.drawn_sets import draw_set
from odtrain.config.compose import compose_config
from odtrain.config.schema import Config
from odtrain.evaluation.paired_bootstrap import compare_detections
from odtrain.evaluation.saved_detections import (
    Kept,
    read_kept,
    read_labelled,
    write_kept,
    write_labelled,
)
from odtrain.io.atomic import write_json
from odtrain.structures import Detections, GroundTruth
from odtrain.system.processor import this_processor

SETTINGS = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).with_suffix(".json")
WARM, TIMED = 5, 15
"""Steps before the speed of an arm is measured, and while it is."""
BOOTSTRAP = 2000


class Cell(NamedTuple):
    """One training: an arm on a set's pictures of a seed."""

    set: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.set}-{self.arm}-{self.seed}"


def main(arguments: Sequence[str]) -> None:
    """Run, or show the table."""
    parser = argparse.ArgumentParser(description="Compare recipes for few pictures.")
    parser.add_argument("what", choices=["run", "train", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*")
    parser.add_argument("--arms", nargs="*")
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--minutes", type=float, default=9.0)
    given, overrides = parser.parse_known_args(arguments)
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    cells = [
        Cell(name, arm, seed)
        for name in given.sets or settings["sets"]
        for seed in given.seeds or _seeds(settings, name)
        for arm in given.arms or settings["arms"]
    ]
    if given.what == "run":
        _run(cells, folder, given.minutes, overrides)
    elif given.what == "train":
        (cell,) = cells
        _train(cell, settings, folder, overrides)
    else:
        print(table(folder, settings))


def _seeds(settings: Mapping[str, Any], name: str) -> list[int]:
    folds = settings["sets"][name].get("folds")
    return list(range(folds)) if folds else list(settings["seeds"])


def _run(cells: Sequence[Cell], folder: Path, minutes: float, overrides: Sequence[str]) -> None:
    """Each training in a process of its own, whose processor time is its own."""
    end = time.monotonic() + 60 * minutes
    for cell in (one for one in cells if not (folder / f"{one.name}.json").is_file()):
        if time.monotonic() > end:
            print("More is left: run again.")
            return
        own = ["--sets", cell.set, "--arms", cell.arm, "--seeds", str(cell.seed)]
        command = [sys.executable, "-m", "benchmarks.recipes", "train", str(folder), *own]
        subprocess.run([*command, *overrides], check=True)
    print("Nothing is left.")


def _train(cell: Cell, settings: Mapping[str, Any], folder: Path, overrides: Sequence[str]) -> None:
    """Train one arm, look at the test pictures, keep what was found and what it is worth."""
    from odtrain.dataset.prepare import prepare
    from odtrain.evaluation.evaluate import quick_map
    from odtrain.jobs.context import Split

    config = _composed(cell, settings, folder, overrides)
    dataset = prepare(config.data)
    test = Split.read(dataset, "test")
    per_step = _seconds_a_step(cell, config, dataset, folder)
    steps = max(1, round(settings["seconds"] / per_step))
    config = _composed(cell, settings, folder, [*overrides, f"train.steps={steps}"])
    begun = time.process_time()
    detect = _fitted(config, dataset, folder / "fits" / cell.name)
    seconds = time.process_time() - begun
    found = [detect(image) for image in test.images]
    scores = quick_map(test.truths, found, dataset.class_names)
    write_labelled(folder / f"{cell.name}-labels", test.labelled)
    write_kept(folder / f"{cell.name}.npz", Kept(test.labelled.digest, found, dataset.class_names))
    numbers = {
        "mAP": scores["mAP"],
        "mAP_50": scores["mAP_50"],
        "steps": steps,
        "seconds": round(seconds, 1),
        "load": round(os.getloadavg()[0], 1),
        "processor": this_processor().name,
        "overrides": [*settings["sets"][cell.set]["base"], *settings["arms"][cell.arm]],
    }
    write_json(folder / f"{cell.name}.json", numbers)
    _note(cell, numbers)
    print(f"{cell.name}: mAP {scores['mAP']:.3f}, mAP_50 {scores['mAP_50']:.3f}, {steps} steps")


def _composed(
    cell: Cell, settings: Mapping[str, Any], folder: Path, overrides: Sequence[str]
) -> Config:
    own, words = settings["sets"][cell.set], []
    if "folds" in own:
        words = [f"data.fold={cell.seed}"]
    else:
        drawn = draw_set(cell.set, cell.seed, own["pictures"], folder / f"{cell.set}{cell.seed}")
        words = [f"data.images={drawn}"]
    words += [f"data.name={cell.set}{cell.seed}", f"train.seed={cell.seed}"]
    words += [f"data.prepared={folder}/prepared/{cell.set}{cell.seed}"]
    arm = settings["arms"][cell.arm]
    return compose_config([*own["base"], *settings["always"], *words, *arm, *overrides])


def _seconds_a_step(cell: Cell, config: Config, dataset: Any, folder: Path) -> float:
    """Of the processor; of each arm and set measured once."""
    file = folder / f"{cell.set}-{cell.arm}.speed"
    if not file.is_file():
        from odtrain.config.schema import replaced

        times: list[float] = []
        few = {"train.steps": WARM + TIMED, "train.log_every": WARM, "train.warmup_steps": 0}
        place = folder / "fits" / f"{cell.name}-speed"
        _fitted(replaced(config, few), dataset, place, times)
        seconds = (times[-1] - times[0]) / TIMED
        file.write_text(f"{seconds:.5f}", encoding="utf-8")
    return float(file.read_text(encoding="utf-8"))


def _fitted(config: Config, dataset: Any, place: Path, times: list[float] | None = None) -> Any:
    """A detector trained as `odtrain train` trains it, without a run."""
    import tensorflow as tf

    from odtrain.jobs.fitting import batches_of, detector_to_train
    from odtrain.model_source import load_first_weights
    from odtrain.training.loop import Fit, Listener
    from odtrain.training.team import ALONE

    tf.keras.backend.clear_session()
    detector = detector_to_train(config, dataset, ALONE)
    names = dataset.class_names
    load_first_weights(detector, names, config.train, config.zoo.mirrors, config.runs)
    fit = Fit(detector, config.train, place, ALONE)
    if times is None:
        fit.resume()  # one that was ended in the middle goes on

    def note(values: dict[str, float], step: int) -> None:
        if times is not None and "train/loss" in values:
            times.append(time.process_time())

    fit.run(
        lambda first: batches_of(config, dataset, detector, first, place, ALONE),
        lambda step: [],
        None,
        0,
        Listener(note, lambda: None, lambda step: None),
    )
    fit.load_best()
    return detector.as_detect()


def _note(cell: Cell, numbers: Mapping[str, Any]) -> None:
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    kept.setdefault(cell.set, {}).setdefault(cell.arm, {})[str(cell.seed)] = dict(numbers)
    write_json(RESULTS, kept)


# ---- comparing


def table(folder: Path, settings: Mapping[str, Any]) -> str:
    """A Markdown table of every arm that was trained, each beside the base on the same pictures and seeds."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = ["| set | arm | trainings | mAP | mAP_50 | against base |", "|---|---|---|---|---|---|"]
    for name, arms in kept.items():
        for arm in (one for one in settings["arms"] if one in arms):
            rows = arms[arm]
            means = [
                sum(row[key] for row in rows.values()) / len(rows) for key in ("mAP", "mAP_50")
            ]
            shown = "" if arm == "base" else _against(folder, name, arm, arms)
            mean = " | ".join(f"{value:.3f}" for value in means)
            lines.append(f"| {name} | {arm} | {len(rows)} | {mean} | {shown} |")
    write_json(RESULTS, kept)
    return "\n".join(lines)


def _against(folder: Path, name: str, arm: str, arms: dict[str, Any]) -> str:
    """The paired interval over the pictures of all seeds that both have; kept beside the arm's numbers."""
    both = sorted(set(arms[arm]) & set(arms.get("base", {})), key=int)
    if not both:
        return "not measured"
    truths: list[GroundTruth] = []
    a: list[Detections] = []
    b: list[Detections] = []
    for seed in both:
        own, base = (list(_found(folder, Cell(name, each, int(seed)))) for each in (arm, "base"))
        split = read_labelled(folder / f"{Cell(name, arm, int(seed)).name}-labels")
        truths += [
            GroundTruth(f"{seed}-{one.name}", one.height, one.width, one.boxes, one.classes)
            for one in split.truths
        ]
        a, b = a + base, b + own
    found = compare_detections(truths, a, b, split.class_names, BOOTSTRAP, seed=0)
    row = found.overall["mAP"]
    arms.setdefault("_paired", {})[arm] = {"seeds": both, **asdict(row)}
    return f"{row.change or 0:+.3f} [{row.low or 0:+.3f}, {row.high or 0:+.3f}]"


def _found(folder: Path, cell: Cell) -> Iterator[Detections]:
    yield from read_kept(folder / f"{cell.name}.npz").detections


if __name__ == "__main__":
    main(sys.argv[1:])
