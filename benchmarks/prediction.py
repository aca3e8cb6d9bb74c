"""How much of a model's own speed is left when pictures are decoded, resized, drawn and written too.

Each row is a process of its own. In it, bare runs of the file's interpreters on pictures made ready beforehand
take turns with whole predictions from JPEG files to drawn JPEG files and tables, and with the parts of these
alone (`benchmarks.parts`), with as many interpreters and threads; the median of the rounds is what counts, so
that another process's load meets all alike.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks import latency, parts, pictures, processes

GOAL = 0.8
"""Least share of the throughput that the parts alone have, on the same file and threads."""


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
        of_parts: median of the rounds' `whole` by what the parts alone come to.
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
    of_parts: float
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


def write_file(to: Path, quick: bool) -> None:
    """One .tflite of the network that is measured.

    Raises:
        ProcessError: exporting failed.
    """
    file = _exported(QUICK if quick else WHOLE, to.parent, ["tflite_fp32"])["tflite_fp32"]
    shutil.move(file, to)


def _files(extent: Extent, folder: Path) -> dict[str, Path]:
    written = _exported(extent, folder, extent.formats)
    name = _at_hand(extent).name
    files = {f"{name}, {format}": Path(written[format]) for format in extent.formats}
    if STRANGER.exists():
        files = {"depth 0.75, published uint8 .tflite": STRANGER, **files}
    return files


def _exported(extent: Extent, folder: Path, formats: Sequence[str]) -> dict[str, str]:
    network = _at_hand(extent)
    written: dict[str, str] = processes.run(
        latency.write_files,
        overrides=list(network.overrides),
        checkpoint=str(network.checkpoint or ""),
        formats=list(formats),
        nms="builtin",
        folder=str(folder / "exported"),
    ).value
    return written


def _at_hand(extent: Extent) -> latency.Network:
    """The network, or one with random weights where its own are not there."""
    checkpoint = extent.network.checkpoint
    return extent.network if checkpoint is None or checkpoint.exists() else latency.FULL


# ---- what runs in a process of its own


def take_turns(file: str, place: str, workers: int, threads: int, rounds: int) -> dict[str, Any]:
    """Bare runs and whole predictions in turn; medians of their throughput and of the ratio."""
    from odtrain_runtime.model_files import load_detector
    from odtrain_runtime.pictures import read_upright

    files = sorted(Path(place).iterdir())
    detectors = [load_detector(Path(file), threads) for _ in range(workers)]
    ready = [detectors[0].prepare(read_upright(file)) for file in files]
    _bare(detectors, ready)  # warm-up
    with tempfile.TemporaryDirectory() as output:
        predict = opened_prediction(file, place, output, workers, threads, drawn=True)
        predict()
        bare: list[parts.Cost] = []
        whole: list[parts.Cost] = []
        alone: list[parts.Cost] = []
        for _ in range(rounds):
            bare.append(parts.timed(lambda: _bare(detectors, ready), len(files)))
            whole.append(parts.timed(predict, len(files)))
            alone.append(parts.cost(files, detectors, drawn=True))
    return {
        "threads": detectors[0].threads,
        "bare": median(1 / one.seconds for one in bare),
        "whole": median(1 / one.seconds for one in whole),
        "ratio": median(a.seconds / b.seconds for a, b in zip(bare, whole, strict=True)),
        "of_parts": median(a.seconds / b.seconds for a, b in zip(alone, whole, strict=True)),
        "bare_cpu_ms": median(1000 * one.cpu_seconds for one in bare),
        "whole_cpu_ms": median(1000 * one.cpu_seconds for one in whole),
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


def opened_prediction(
    file: str, place: str, output: str, workers: int, threads: int, *, drawn: bool
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
            f"predict.drawn={drawn}",
        ]
    )
    source = open_source(file, config, workers, threads)
    return lambda: predict.predict(config, source)
