"""What early stopping saves and costs: the driver's own code over recorded trainings.

Sampler, dominance rule, trials and their accounting are the real ones (`odtrain.sweep.worker.work`);
only the training is a look-up of the recorded one whose learning rate is nearest. Every seed is replayed
with and without stopping and with random search.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import optuna

from benchmarks.recording import NETWORK_KEYS, Recorded, recorded
from odtrain.config.compose import compose_config
from odtrain.config.schema import SweepConfig
from odtrain.sweep import results as sweep_results
from odtrain.sweep import study as sweep_study
from odtrain.sweep.pruning import hopeless
from odtrain.sweep.trial_process import Request, TrialOutcome
from odtrain.sweep.worker import Job, work

SEEDS = range(100, 130)
"""Of the published figures; the rule was chosen on others, see `docs/sweeps.md`."""
TRAININGS = 40
RATE = "train.learning_rate"
VARIANTS = {
    "TPE, early stopping": ("tpe", True),
    "TPE": ("tpe", False),
    "random, early stopping": ("random", True),
    "random": ("random", False),
}


@dataclass(frozen=True)
class Replay:
    """One sweep over recorded trainings.

    Attributes:
        steps: trained, in trainings' worth.
        stopped: trainings that were stopped.
        volume: hypervolume of the front of mAP and latency, from mAP 0 and beyond the slowest file.
    """

    steps: float
    stopped: int
    volume: float


@dataclass(frozen=True)
class Compared:
    """A variant over all seeds, beside TPE without stopping.

    Attributes:
        name: of the variant.
        steps: trained, as a share of those that no stopping takes: mean over the seeds.
        stopped: trainings that were stopped: mean.
        lost: share of the hypervolume that is lost against TPE without stopping, same seed: mean.
        worst: the same of the worst seed.
        of_all: hypervolume as a share of that of all recorded trainings: mean.
    """

    name: str
    steps: float
    stopped: float
    lost: float
    worst: float
    of_all: float


def compare(seeds: Sequence[int] = SEEDS) -> list[Compared]:
    """Every variant over the seeds."""
    table = recorded()
    found = {}
    with ProcessPoolExecutor() as pool:
        for name, (sampler, stops) in VARIANTS.items():
            one = partial(replay, table, sampler=sampler, stops=stops)
            found[name] = list(pool.map(one, seeds))
    best = volume(table, [(i, name) for i, row in enumerate(table) for name in row.files])
    plain = found["TPE"]
    return [_compared(name, runs, plain, best) for name, runs in found.items()]


def _compared(name: str, runs: list[Replay], plain: list[Replay], best: float) -> Compared:
    lost = [1 - one.volume / other.volume for one, other in zip(runs, plain, strict=True)]
    return Compared(
        name,
        statistics.mean(one.steps for one in runs) / TRAININGS,
        statistics.mean(one.stopped for one in runs),
        statistics.mean(lost),
        max(lost),
        statistics.mean(one.volume / best for one in runs),
    )


def replay(
    table: list[Recorded],
    seed: int,
    *,
    sampler: str,
    stops: bool,
    settings: SweepConfig | None = None,
) -> Replay:
    """One sweep; `settings` are those of `sweep=quick` unless given."""
    settings = settings or compose_config(["sweep=quick"]).sweep
    settings = replace(
        settings, sampler=sampler, seed=seed, stop_hopeless=stops, n_trials=TRAININGS, grace=3600.0
    )
    steps, ended = 0.0, list[tuple[int, str]]()

    def train(job: Job, request: Request) -> TrialOutcome:
        nonlocal steps
        index = nearest(table, request)
        result = look_up(table, index, request)
        steps += result.curve[-1][0]
        if result.state == "done":
            ended.extend((index, name) for name in result.files)
        return result

    with tempfile.TemporaryDirectory() as machine, sweep_study.quiet():
        study = optuna.create_study(directions=["maximize", "minimize"])
        study.set_user_attr("directions", dict(settings.directions))
        for baseline in settings.baselines:
            study.enqueue_trial({**baseline, sweep_study.FORMAT: settings.formats[0]})
        work(Job(settings, [], "", "", machine), study, train)
    return Replay(steps, sweep_results.saved(study)[1], volume(table, ended))


def nearest(table: Sequence[Recorded], request: Request) -> int:
    """The recorded training of the same network whose learning rate is nearest."""
    values = dict(text.partition("=")[::2] for text in request.overrides)
    same = [
        index
        for index, row in enumerate(table)
        if all(str(row.point[key]) == values[key] for key in NETWORK_KEYS)
    ]
    rate = math.log(float(values[RATE]))
    return min(same, key=lambda index: abs(math.log(table[index].point[RATE]) - rate))


def look_up(table: Sequence[Recorded], index: int, request: Request) -> TrialOutcome:
    """What `odtrain.sweep.trial_process.run` does, the training read from the table."""
    row = table[index]
    untrained = {
        name: {"latency_ms_p50": one["latency_ms_p50"], "size_mb": one["size_mb"]}
        for name, one in row.files.items()
    }
    quickest = min(one["latency_ms_p50"] for one in untrained.values())
    curve: list[tuple[float, float]] = []
    for share, score in row.curve:
        curve.append((share, score))
        why = share < 1 and hopeless(share, score, quickest, request.finished, request.rule)
        if why:
            best = max(score for _, score in curve)
            return TrialOutcome("stopped", why, f"{index}", curve, best, untrained)
    files = {
        name: {**one, "mAP_50": 0.0, "file": name, "failed": None}
        for name, one in row.files.items()
    }
    return TrialOutcome("done", "", f"{index}", curve, row.curve[-1][1], untrained, files)


def volume(table: Sequence[Recorded], ended: Sequence[tuple[int, str]]) -> float:
    """Hypervolume that (training, format) pairs dominate: mAP above 0, latency below the slowest's + 5 %."""
    reference = 1.05 * max(one["latency_ms_p50"] for row in table for one in row.files.values())
    files = [table[index].files[name] for index, name in ended]
    places = sorted((one["latency_ms_p50"], one["mAP"]) for one in files)
    area, height, left = 0.0, 0.0, reference
    for latency, score in places:
        area += height * max(0.0, latency - left)
        height, left = max(height, score), latency
    return area + height * max(0.0, reference - left)


def settings_tried(
    table: list[Recorded], seeds: Sequence[int], tried: Sequence[SweepConfig]
) -> Iterator[tuple[SweepConfig, float, float]]:
    """Settings, the share of the steps they take and the hypervolume they lose: how a rule is chosen."""
    run: Callable[..., Replay] = partial(replay, table, sampler="tpe")
    with ProcessPoolExecutor() as pool:
        plain = list(pool.map(partial(run, stops=False), seeds))
        for one in tried:
            runs = list(pool.map(partial(run, stops=True, settings=one), seeds))
            lost = [1 - a.volume / b.volume for a, b in zip(runs, plain, strict=True)]
            steps = statistics.mean(each.steps for each in runs) / TRAININGS
            yield one, steps, statistics.mean(lost)
