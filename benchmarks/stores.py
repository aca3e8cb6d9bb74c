"""What a store costs a training: records of a folder, of a store, and of a store that are held here.

`python -m benchmarks.stores s3://BUCKET/FOLDER [KEY=VALUE ...]` prepares the data set of the settings (the
demo's, where none is given) in a folder and in that one of a store, which is to be empty, and prints two
tables: pictures a second as a training gets them, and as it trains on them. Folder and store take turns;
ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.inputs import batches_of
from benchmarks.training import train
from odtrain.config import compose
from odtrain.config.schema import Config
from odtrain.dataset.prepare import prepare
from odtrain.io.remote import cache
from odtrain.system.processor import choose_onednn

ROUNDS = 5
LEAST = 1000
"""Pictures that are read in a round, in as many epochs as it takes."""
TRAINED = (
    "model=panels_ssd_mobilenet_v1",
    "train.steps=60",
    "train.log_every=10",
    "train.precision=fp32",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address", help="an empty folder of a store")
    parser.add_argument("settings", nargs="*", help="of the data set")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    flags = parser.parse_intermixed_args(arguments)
    choose_onednn()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        places = {"folder": f"{scratch}/prepared", "store": f"{flags.address}/prepared"}
        overrides = {
            name: [*TRAINED, *flags.settings, f"data.prepared={place}"]
            for name, place in places.items()
        }
        configs = {name: compose.compose_config(each) for name, each in overrides.items()}
        prepared = {name: prepare(config.data) for name, config in configs.items()}
        assert prepared["folder"].digest == prepared["store"].digest
        print(f"{prepared['folder'].counts['train']}, load {os.getloadavg()[0]:.1f}\n")
        first = []
        for _ in range(flags.rounds):
            shutil.rmtree(cache.root(), ignore_errors=True)
            first.append(_rate(configs["store"], 0))
        read: dict[str, list[float]] = {name: [] for name in configs}
        trained: dict[str, list[float]] = {name: [] for name in configs}
        for _ in range(flags.rounds):
            for name, config in configs.items():
                read[name].append(_rate(config, LEAST))
        for number in range(flags.rounds):
            for name, each in overrides.items():
                found = train(each, f"{scratch}/checkpoints-{name}-{number}")
                trained[name].append(statistics.median(found["images_per_second"]))
        print(_table("read, decoded and changed", read, first))
        print(_table("trained on", trained))
        print(f"load {os.getloadavg()[0]:.1f}")


def _rate(config: Config, least: int) -> float:
    """Pictures a second over an epoch, or over `least` pictures, from opening the records on."""
    begun, count = time.monotonic(), 0
    batches, pictures = batches_of(config, 0)
    while count < max(pictures, least):
        next(batches)
        count += config.train.batch_size
    return count / (time.monotonic() - begun)


def _table(what: str, rates: dict[str, list[float]], first: Sequence[float] = ()) -> str:
    ratios = [there / here for here, there in zip(rates["folder"], rates["store"], strict=True)]
    rows: list[tuple[str, Any]] = [(name, statistics.median(each)) for name, each in rates.items()]
    if first:
        rows.append(("store, nothing held", statistics.median(first)))
    lines = [f"| {what} | pictures a second |", "|---|---:|"]
    lines += [f"| {name} | {rate:.0f} |" for name, rate in rows]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    lines.append(f"| store, held, over folder | {statistics.median(ratios):.2f} ({spread}) |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
