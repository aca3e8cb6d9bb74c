"""How long preparing a data set takes, beside the tutorial's two scripts and mere decoding.

Every row is a whole process, from its start to its end, as a user would wait for it. The tutorial's
scripts copy the pictures' bytes without looking at them; odtrain decodes every pixel once, to find
broken pictures and to know the data set by its content.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import pictures, processes, tutorial
from benchmarks.processes import Finished
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.prepare import prepare

PICTURES = 5000
ROUNDS = 3
TUTORIAL = "the tutorial's two scripts, together"
"""The row that the others are compared with."""


@dataclass(frozen=True)
class Row:
    """Medians over the rounds.

    Attributes:
        name: of what was done.
        seconds: of the whole process by the clock on the wall.
        cpu_seconds: of the process.
        pictures_per_second: by the clock on the wall.
        ratio: how many times as fast as the tutorial's two scripts.
        peak_memory_mb: largest resident memory in 10^6 bytes; of two processes, the larger one's.
        tensorflow: whether TensorFlow was imported.
        load: processes waiting or running over the last minute, before it started.
        values: what each round's process returned.
    """

    name: str
    seconds: float
    cpu_seconds: float
    pictures_per_second: float
    ratio: float
    peak_memory_mb: float
    tensorflow: bool
    load: float
    values: tuple[Any, ...]


def measure(count: int = PICTURES, rounds: int = ROUNDS) -> list[Row]:
    """Make `count` pictures in a temporary folder and prepare them in every way, in turn.

    Raises:
        ProcessError: a process failed.
    """
    runs: dict[str, list[Finished]] = {name: [] for name in STEPS}
    with tempfile.TemporaryDirectory(prefix="odtrain-benchmark-") as scratch:
        folder = Path(scratch)
        pictures.make(folder, count, pictures.sources())
        for _ in tqdm(range(rounds), desc="preparing", unit="round"):
            for name, step in STEPS.items():
                os.sync()  # what an earlier step left to write is not this one's work
                runs[name].append(step(folder))
    scripts, records = (runs[name] for name in list(STEPS)[:2])
    runs[TUTORIAL] = [_together(*pair) for pair in zip(scripts, records, strict=True)]
    reference = _median(runs[TUTORIAL], "seconds")
    return [_row(name, runs[name], count, reference) for name in (*list(STEPS)[:2], *AFTER)]


def _together(first: Finished, second: Finished) -> Finished:
    return Finished(
        value=[first.value, second.value],
        seconds=first.seconds + second.seconds,
        cpu_seconds=first.cpu_seconds + second.cpu_seconds,
        peak_memory_mb=max(first.peak_memory_mb, second.peak_memory_mb),
        tensorflow=first.tensorflow or second.tensorflow,
        load=first.load,
    )


def _row(name: str, runs: list[Finished], count: int, reference: float) -> Row:
    seconds = _median(runs, "seconds")
    return Row(
        name=name,
        seconds=seconds,
        cpu_seconds=_median(runs, "cpu_seconds"),
        pictures_per_second=count / seconds,
        ratio=reference / seconds,
        peak_memory_mb=_median(runs, "peak_memory_mb"),
        tensorflow=any(run.tensorflow for run in runs),
        load=_median(runs, "load"),
        values=tuple(run.value for run in runs),
    )


def _median(runs: list[Finished], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))


# ---- the steps, in the folder of the pictures


def _xml_to_csv(folder: Path) -> Finished:
    return processes.run(
        tutorial.xml_to_csv,
        annotations=str(folder / "annotations"),
        csv=str(folder / "labels.csv"),
    )


def _generate_tfrecord(folder: Path) -> Finished:
    return processes.run(
        tutorial.generate_tfrecord,
        csv=str(folder / "labels.csv"),
        images=str(folder / "images"),
        record=str(folder / "tutorial.record"),
        class_name=pictures.read_labels(_first_labels(folder))[0].name,
    )


def _decode(folder: Path) -> Finished:
    return processes.run(decode_pictures, folder=str(folder / "images"))


def _prepare_first(folder: Path) -> Finished:
    shutil.rmtree(folder / "prepared", ignore_errors=True)
    return _prepare_again(folder)


def _prepare_again(folder: Path) -> Finished:
    return processes.run(prepare_folder, folder=str(folder))


def _prepare_changed(folder: Path) -> Finished:
    file = _first_labels(folder)
    text = file.read_text(encoding="utf-8")
    xmin = re.compile(r"(?<=<xmin>)\d+")
    file.write_text(xmin.sub(lambda found: str(int(found[0]) + 1), text, count=1), encoding="utf-8")
    return _prepare_again(folder)


def _first_labels(folder: Path) -> Path:
    """The first label file that has an object."""
    files = sorted((folder / "annotations").iterdir())
    return next(file for file in files if pictures.read_labels(file))


STEPS: dict[str, Callable[[Path], Finished]] = {
    "like xml_to_csv.py": _xml_to_csv,
    "like generate_tfrecord.py": _generate_tfrecord,
    "bound: decoding every picture on all cores": _decode,
    "odtrain prepare, the first time": _prepare_first,
    "odtrain prepare, nothing changed": _prepare_again,
    "odtrain prepare, one label changed": _prepare_changed,
}
"""In the order in which each round does them; the first two are the tutorial's."""

AFTER = (TUTORIAL, *list(STEPS)[2:])
"""The rows behind those of the single scripts."""


# ---- what runs in a process of its own


def decode_pictures(folder: str) -> int:
    """Decode every picture of a folder with Pillow, in as many threads as there are cores."""
    from PIL import Image

    def decode(file: Path) -> int:
        with Image.open(file) as picture:
            picture.load()
            return 1

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(decode, Path(folder).iterdir()))


def prepare_folder(folder: str) -> dict[str, Any]:
    """Prepare `images` and `annotations` of a folder to its `prepared`; return what came out."""
    root = Path(folder)
    dataset = prepare(
        section(
            DataConfig,
            name="benchmark",
            images=str(root / "images"),
            annotations=str(root / "annotations"),
            prepared=str(root / "prepared"),
        )
    )
    return {"digest": dataset.digest, "counts": dataset.counts}
