"""How much of a model's own speed is left when pictures are decoded, resized, drawn and written too.

Each row is a process of its own. In it, bare runs of the file's interpreters on pictures made ready beforehand
take turns with whole predictions from JPEG files to drawn JPEG files and tables, with as many interpreters and
threads; the median of the rounds is what counts, so that another process's load meets both alike.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks import latency, pictures, processes

GOAL = 0.85
"""Least share of the bare interpreter's throughput, on the same file and threads."""


class Choice(NamedTuple):
    """Interpreters side by side, and threads of each."""

    workers: int
    threads: int


CHOICES = (Choice(1, 1), Choice(1, 2), Choice(2, 1))
ALONE = CHOICES[0]
STRANGER = latency.ZOO / "ssd_mobilenet_v1_0.75_depth_quantized_coco.tflite"


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        network: exported in `formats` besides the published file. With its weights at hand: one with
            random weights sees a hundred objects in every picture, and drawing them takes longest.
        formats: of the exported files.
        count: pictures of a round.
        rounds: of each row.
    """

    network: latency.Network
    formats: tuple[str, ...]
    count: int = 100
    rounds: int = 5


WHOLE = Extent(latency.COCO, ("tflite_fp32", "tflite_int8", "pb"))
QUICK = Extent(latency.SMALL, ("tflite_fp32",), 12, 1)


@dataclass(frozen=True)
class Row:
    """One file with one choice of interpreters and threads.

    Attributes:
        file: which.
        choice: asked for.
        threads: that each interpreter ran with.
        bare: pictures a second of the interpreters alone.
        whole: pictures a second from file to drawn file.
        ratio: median of the rounds' `whole` by `bare`.
        of_one: `whole` by the bare throughput of one interpreter with one thread.
        bare_cpu_ms: processor time of a picture, alone.
        whole_cpu_ms: the same from file to drawn file.
        load: processes waiting or running over the last minute, before it ran.
    """

    file: str
    choice: Choice
    threads: int
    bare: float
    whole: float
    ratio: float
    of_one: float
    bare_cpu_ms: float
    whole_cpu_ms: float
    load: float


def measure(extent: Extent = WHOLE) -> list[Row]:
    """Measure every file with every choice.

    Raises:
        ProcessError: exporting or predicting failed.
    """
    with tempfile.TemporaryDirectory(prefix="odtrain-benchmark-") as folder:
        files = _files(extent, Path(folder))
        originals = [source.image for source in pictures.sources()]
        place = Path(folder) / "pictures"
        place.mkdir()
        for number in range(extent.count):
            original = originals[number % len(originals)]
            shutil.copy(original, place / f"{number:04d}{original.suffix}")
        rows: list[Row] = []
        jobs = [(name, file, choice) for name, file in files.items() for choice in CHOICES]
        for name, file, choice in tqdm(jobs, desc="predicting", unit="row"):
            finished = processes.run(
                take_turns,
                file=str(file),
                place=str(place),
                workers=choice.workers,
                threads=choice.threads,
                rounds=extent.rounds,
            )
            one = next((r.bare for r in rows if r.file == name and r.choice == ALONE), None)
            found = finished.value
            rows.append(
                Row(
                    file=name,
                    choice=choice,
                    of_one=found["whole"] / (one or found["bare"]),
                    load=finished.load,
                    **found,
                )
            )
        return rows


def _files(extent: Extent, folder: Path) -> dict[str, Path]:
    checkpoint = extent.network.checkpoint
    network = extent.network if checkpoint is None or checkpoint.exists() else latency.FULL
    written = processes.run(
        latency.write_files,
        overrides=list(network.overrides),
        checkpoint=str(network.checkpoint or ""),
        formats=list(extent.formats),
        nms="builtin",
        folder=str(folder / "exported"),
    ).value
    files = {f"{network.name}, {name}": Path(written[name]) for name in extent.formats}
    if STRANGER.exists():
        files = {"depth 0.75, published uint8 .tflite": STRANGER, **files}
    return files


# ---- what runs in a process of its own


def take_turns(file: str, place: str, workers: int, threads: int, rounds: int) -> dict[str, Any]:
    """Bare runs and whole predictions in turn; medians of their throughput and of the ratio."""
    from odtrain_runtime.model_files import load_detector
    from odtrain_runtime.pictures import read_upright

    images = [read_upright(path) for path in sorted(Path(place).iterdir())]
    detectors = [load_detector(Path(file), threads) for _ in range(workers)]
    ready = [detectors[0].prepare(image) for image in images]
    _bare(detectors, ready)  # warm-up
    with tempfile.TemporaryDirectory() as output:
        predict = _prediction(file, place, output, workers, threads)
        predict()
        bare = []
        whole = []
        for _ in range(rounds):
            bare.append(_timed(lambda: _bare(detectors, ready)))
            whole.append(_timed(predict))
    count = len(images)
    return {
        "threads": detectors[0].threads,
        "bare": median(count / seconds for seconds, _ in bare),
        "whole": median(count / seconds for seconds, _ in whole),
        "ratio": median(a[0] / b[0] for a, b in zip(bare, whole, strict=True)),
        "bare_cpu_ms": median(1000 * cpu / count for _, cpu in bare),
        "whole_cpu_ms": median(1000 * cpu / count for _, cpu in whole),
    }


def _bare(detectors: list[Any], ready: list[Any]) -> None:
    """Every picture once, shared out over the interpreters."""
    shares = [ready[number :: len(detectors)] for number in range(len(detectors))]
    with ThreadPoolExecutor(len(detectors)) as pool:
        list(
            pool.map(
                lambda job: [job[0].run(one) for one in job[1]], zip(detectors, shares, strict=True)
            )
        )


def _prediction(
    file: str, place: str, output: str, workers: int, threads: int
) -> Callable[[], object]:
    """`odtrain predict` without opening the model, which is done once for however many pictures."""
    from odtrain.config.compose import compose_config
    from odtrain.model_source import open_source
    from odtrain.predict import predict

    config = compose_config(
        [
            f"input={place}",
            f"output={output}",
            f"predict.workers={workers}",
            f"predict.threads={threads}",
        ]
    )
    source = open_source(file, config, workers, threads)
    return lambda: predict.predict(config, source)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall, and of processor time of all threads."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used
