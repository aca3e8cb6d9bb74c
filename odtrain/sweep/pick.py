"""One file of a front: taken within limits, registered, and the whole front measured once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from typing import Any

from odtrain.config.schema import Config, SweepConfig
from odtrain.errors import ConfigError
from odtrain.io import markdown
from odtrain.jobs.closing import on_test
from odtrain.jobs.picked import PickedResult, measure_again, register_picked
from odtrain.sweep import pareto as sweep_front
from odtrain.sweep import results as sweep_results
from odtrain.sweep import study as sweep_study
from odtrain.sweep.pareto import FrontPoint
from odtrain.sweep.queue import machine_folder
from odtrain.system import timing_lock as turns
from odtrain.system.progress import Bar


def pick(
    config: Config,
    max_latency_ms: float | None,
    min_map: float | None,
    max_size_mb: float | None,
    register: bool,
) -> str:
    """The choice from the front of `sweep.name`, what a step up or down would cost, and its model.

    Raises:
        ConfigError: no study of that name, or nothing within the limits.
        OdtrainError: with `register`, the run's checkpoint is not there, or the store refuses.
    """
    best = _front(config.sweep)
    chosen = sweep_front.pick(best, max_latency_ms, min_map, max_size_mb)
    if chosen is None:
        raise ConfigError(
            "sweep pick",
            "no file on the front is within these limits:\n" + sweep_front.front_table(best),
            "Allow more, or sweep further: sweep.n_trials.",
        )
    lines = [sweep_front.front_table([chosen]), _interval(chosen), *_neighbours(chosen, best)]
    lines.append(f"file: runs:/{chosen.run_id}/{chosen.file}")
    if register:
        picked = register_picked(config, chosen.run_id, chosen.format)
        lines = [*_registered(picked), *lines, f"registered as {picked.model}"]
    return "\n".join(line for line in lines if line)


def _registered(picked: PickedResult) -> list[str]:
    outcome = f"Registered {picked.outcome}" if picked.outcome else ""
    return [outcome, on_test(picked.evaluation, picked.proofs)]


def verify(config: Config) -> tuple[str, bool]:
    """Measure every file of the front of `sweep.name` once more, alone.

    Returns:
        A table of what was and what is, with the pairs of files whose order changed; and whether none did.

    Raises:
        ConfigError: no study of that name, or no training of it has ended.
        TrackingError: a file is not to be had any more.
    """
    best = _front(config.sweep)
    directions = sweep_study.load_study(config.sweep).user_attrs["directions"]
    turns.take_part(machine_folder())
    again = [
        measure_again(config.runs, one.run_id, one.file)
        for one in Bar(best, doing="measure again", unit="file")
    ]
    swapped = changed_order(best, again, directions, config.sweep.latency_noise)
    lines = [_both_table(best, again), ""]
    lines += swapped or ["The order of the files is the same in all that is compared."]
    return "\n".join(lines), not swapped


def changed_order(
    best: Sequence[FrontPoint],
    again: Sequence[Mapping[str, float]],
    directions: Mapping[str, str],
    noise: float,
) -> list[str]:
    """The pairs that stand the other way round now, in words.

    A change of a latency counts if the two files lay further apart than `noise`, a share, in both
    measurements; of anything else always.
    """
    found = []
    for metric in directions:
        apart = noise if metric.startswith("latency") else 0.0
        rows = [
            (one, one.metrics[metric], new[metric]) for one, new in zip(best, again, strict=True)
        ]
        for (one, was, now), (other, other_was, other_now) in combinations(rows, 2):
            if _compare(was, other_was, apart) * _compare(now, other_now, apart) < 0:
                found.append(
                    f"{metric}: {one.format} of trial {one.trial} and {other.format} of trial "
                    f"{other.trial} changed places: {was:.3f}, {other_was:.3f}; now {now:.3f}, "
                    f"{other_now:.3f}"
                )
    return found


def _compare(first: float, second: float, apart: float) -> int:
    """1 or -1 where one is larger, 0 where both lie within a share of each other."""
    if abs(first - second) <= apart * min(abs(first), abs(second)):
        return 0
    return 1 if first > second else -1


def _both_table(best: Sequence[FrontPoint], again: Sequence[Mapping[str, float]]) -> str:
    columns = ("trial", "file", "mAP", "again", "latency p50", "again", "size", "again")
    rows = []
    for point, now in zip(best, again, strict=True):
        pairs = zip(_measured_cells(point.metrics), _measured_cells(now), strict=True)
        rows.append([point.trial, point.format, *chain.from_iterable(pairs)])
    return "\n".join(markdown.table(columns, rows))


def _measured_cells(values: Mapping[str, float]) -> list[str]:
    latency, size = f"{values['latency_ms_p50']:.2f} ms", f"{values['size_mb']:.2f} MB"
    return [f"{values['mAP']:.3f}", latency, size]


def _front(settings: SweepConfig) -> list[FrontPoint]:
    with sweep_study.quiet():
        best = sweep_results.front(sweep_study.load_study(settings))
    if not best:
        raise ConfigError(
            f"sweep.name={settings.name}", "no training has ended yet.", "Wait for one."
        )
    return best


def _interval(point: FrontPoint) -> str:
    values: Mapping[str, Any] = point.metrics
    if "mAP_lo" not in values:
        return ""
    return f"its mAP lies between {values['mAP_lo']:.3f} and {values['mAP_hi']:.3f} (95 %)"


def _neighbours(chosen: FrontPoint, best: Sequence[FrontPoint]) -> list[str]:
    """What the next quicker and the next slower file of the front would cost and bring."""
    line = sorted(best, key=lambda point: point.metrics["latency_ms_p50"])
    place, lines = line.index(chosen), []
    for words, other in (("quicker", place - 1), ("slower", place + 1)):
        if not 0 <= other < len(line):
            lines.append(f"none is {words}")
            continue
        values, own = line[other].metrics, chosen.metrics
        lines.append(
            f"next {words}: {line[other].format} of trial {line[other].trial}, "
            f"{values['latency_ms_p50'] - own['latency_ms_p50']:+.2f} ms, "
            f"{values['mAP'] - own['mAP']:+.3f} mAP, {values['size_mb'] - own['size_mb']:+.2f} MB"
        )
    return lines
