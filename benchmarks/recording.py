"""The recorded trainings that `benchmarks.sweep` replays: read from a study, their networks timed again.

    python -m benchmarks.recording sweep.name=NAME [KEY=VALUE ...]

The study is one whose trainings all went to their end (`sweep.stop_hopeless=false`). Every network is
timed `ROUNDS` times in turns with all others, so that whatever else the machine does meets all of them;
its latency is the median.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from odtrain.config.compose import compose_config
from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.export.benchmark import measure
from odtrain.jobs.context import Split
from odtrain.model_source import run_file
from odtrain.sweep import results as sweep_results
from odtrain.sweep import study as sweep_study
from odtrain.sweep.queue import machine_folder
from odtrain.system import timing_lock as turns

FILE = Path(__file__).with_name("recorded_trainings.json")
ROUNDS = 5
NETWORK_KEYS = ("model.input_size", "model.depth_multiplier")
"""What latency and size depend on."""


@dataclass(frozen=True)
class Recorded:
    """One training.

    Attributes:
        point: key -> value.
        curve: (share of the steps, validation mAP) of every evaluation.
        files: format -> `mAP`, `latency_ms_p50`, `size_mb`.
    """

    point: Mapping[str, Any]
    curve: tuple[tuple[float, float], ...]
    files: Mapping[str, Mapping[str, float]]


def recorded(file: Path = FILE) -> list[Recorded]:
    """The committed table."""
    rows = json.loads(file.read_text(encoding="utf-8"))["trainings"]
    return [Recorded(row["point"], tuple(map(tuple, row["curve"])), row["files"]) for row in rows]


def record(config: Config) -> dict[str, Any]:
    """The table of a study: what was trained, and the latency of each network's files."""
    done = sweep_results.done(sweep_study.load_study(config.sweep))
    latencies = _latencies(config, [trial.user_attrs for trial in done])
    rows = []
    for trial in done:
        point, result = trial.user_attrs["point"], trial.user_attrs["result"]
        files = {
            name: {
                "mAP": round(values["mAP"], 5),
                "latency_ms_p50": round(latencies[_network(point), name], 4),
                "size_mb": values["size_mb"],
            }
            for name, values in result["files"].items()
        }
        curve = [[round(share, 4), round(score, 5)] for share, score in result["curve"]]
        rows.append({"point": point, "curve": curve, "files": files})
    rows.sort(key=lambda row: list(row["point"].values()))
    return {"space": dict(config.sweep.space), "trainings": rows}


def _latencies(
    config: Config, trainings: Sequence[Mapping[str, Any]]
) -> dict[tuple[tuple[Any, ...], str], float]:
    pictures = Split.read(prepare(config.data), "validation").images
    files = {
        (_network(one["point"]), name): run_file(
            one["result"]["run_id"], values["file"], config.runs
        )
        for one in trainings
        for name, values in one["result"]["files"].items()
    }
    seen: dict[tuple[tuple[Any, ...], str], list[float]] = {key: [] for key in files}
    turns.take_part(machine_folder())
    for _ in tqdm(range(ROUNDS), desc="time", unit="round"):
        for key, file in files.items():
            timed = measure(file, pictures.spread(1), config.benchmark.runs, 1)
            seen[key].append(timed.latency_ms_p50)
    return {key: statistics.median(values) for key, values in seen.items()}


def _network(point: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(point[key] for key in NETWORK_KEYS)


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    """JSON with one training a line."""
    yield f'{{"space": {json.dumps(table["space"])},\n "trainings": [\n'
    yield ",\n".join(json.dumps(row) for row in table["trainings"])
    yield "\n]}\n"


if __name__ == "__main__":
    FILE.write_text("".join(_lines(record(compose_config(sys.argv[1:])))), encoding="utf-8")
