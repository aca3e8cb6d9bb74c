"""One training of a sweep, in a process of its own: it can be killed, and leaves no memory behind.

    python -m odtrain.sweep.trial_process REQUEST.json RESULT.json

The request says what to train, the result what came of it; progress goes to stderr.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odtrain import __version__
from odtrain.errors import OdtrainError
from odtrain.io.atomic import PRIVATE, write_text
from odtrain.secrets import hide_in_tracebacks
from odtrain.sweep.pruning import Finished, Rule, hopeless
from odtrain.system import logs
from odtrain.system import timing_lock as turns
from odtrain.system.following import follow

if TYPE_CHECKING:
    from odtrain.config.schema import Config
    from odtrain.jobs.trial import TrialResult


@dataclass(frozen=True)
class Request:
    """What to train.

    Attributes:
        overrides: of the configuration, those of the trial last.
        parent: id of the sweep's run.
        formats: of the files to make.
        max_latency_ms: a network whose quickest file takes longer is not trained; None for any.
        max_size_mb: the same for the size of its smallest file.
        finished: files to beat; empty if no training is to be stopped early.
        rule: how much is granted to a training before it counts as hopeless.
        machine: folder of the locks that keep trainings quiet while a file is timed.
        threads: to train with; None for all.
        known: networks that were timed untrained before, by digest: format -> metrics.
        config_dir: folder of the user's own configs.
        process: number of the one that asks, and waits for the result.
    """

    overrides: list[str]
    parent: str
    formats: list[str]
    max_latency_ms: float | None
    max_size_mb: float | None
    finished: list[Finished]
    rule: Rule
    machine: str
    threads: int | None = None
    known: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    config_dir: str | None = None
    process: int = field(default_factory=os.getpid)


@dataclass(frozen=True)
class TrialOutcome:
    """What came of it.

    Attributes:
        state: `done`, `infeasible` (over the budget, not trained), `stopped` (hopeless) or `failed`.
        reason: why it is not `done`; empty if it is.
        run_id: of the training; empty where there was none.
        curve: (share of the steps, validation mAP) of every evaluation.
        score: validation mAP of the chosen weights.
        untrained: format -> latency, size and memory of the network's files before it was trained.
        files: format -> metrics of the trained file by name, `file` and `failed` included.
        seconds: that it took.
        network: digest of what the untrained numbers depend on.
        host: that timed the files, where that is not the one that asked for the training.
    """

    state: str
    reason: str = ""
    run_id: str = ""
    curve: list[tuple[float, float]] = field(default_factory=list)
    score: float = 0.0
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    network: str = ""
    host: str = ""


def write_request(request: Request, file: Path) -> None:
    """Write what `main` reads; for this user alone, as the overrides may hold a password."""
    write_text(file, json.dumps(asdict(request)), durable=False, mode=PRIVATE)


def read_request(file: Path) -> Request:
    """Read what `write_request` wrote."""
    values = json.loads(file.read_text(encoding="utf-8"))
    finished = [
        Finished(tuple(map(tuple, one["curve"])), one["best"], one["latency_ms"])
        for one in values.pop("finished")
    ]
    return Request(**{**values, "finished": finished, "rule": Rule(**values["rule"])})


def read_result(file: Path) -> TrialOutcome:
    """Read what `main` wrote."""
    return TrialOutcome(**json.loads(file.read_text(encoding="utf-8")))


@logs.remembering()
def main(arguments: Sequence[str]) -> int:
    """Train as the request says and write the result; the exit status is 0 unless this is a bug."""
    request_file, result_file = map(Path, arguments)
    request = read_request(request_file)
    logs.show()
    hide_in_tracebacks()
    follow(request.process)
    began = time.monotonic()
    try:
        turns.take_part(Path(request.machine))
        result = run(request)
    except OdtrainError as error:
        result = TrialOutcome("failed", str(error))
    taken = {**asdict(result), "seconds": time.monotonic() - began}
    # The worker waits for this process and reads it at once: nobody looks for it after a power cut.
    write_text(result_file, json.dumps(taken), durable=False)
    return 0


def run(request: Request) -> TrialOutcome:
    """Time the untrained network, and train it if it is within the budget."""
    from odtrain.config.compose import compose_config
    from odtrain.config.schema import replaced
    from odtrain.jobs.trial import measure_untrained, train_trial

    if request.threads:
        _limit_tensorflow(request.threads)
    config = replaced(
        compose_config(request.overrides, request.config_dir), {"export.formats": request.formats}
    )
    network = digest_of_network(config)
    untrained = request.known.get(network) or {
        name: one.costs for name, one in measure_untrained(config).items()
    }
    if reason := over_budget(untrained, request.max_latency_ms, request.max_size_mb):
        return TrialOutcome("infeasible", reason, untrained=untrained, network=network)
    quickest = min(one["latency_ms_p50"] for one in untrained.values())

    def judge(share: float, score: float) -> str | None:
        return hopeless(share, score, quickest, request.finished, request.rule)

    done = train_trial(config, request.overrides, request.parent, judge)
    return TrialOutcome(
        state="stopped" if done.stopped else "done",
        reason=done.stopped or "",
        run_id=done.run_id,
        curve=done.curve,
        score=done.evaluation.metrics["mAP"],
        untrained=untrained,
        files=_files(done),
        network=network,
    )


def _files(done: TrialResult) -> dict[str, dict[str, Any]]:
    """Format -> metrics of the file by name, `file` and `failed` included."""
    files: dict[str, dict[str, Any]] = {}
    for proof in done.proofs:
        metrics = {key.rpartition("/")[2]: value for key, value in proof.metrics().items()}
        place = {"file": f"export/{proof.file.name}", "failed": proof.failed}
        files[proof.format] = {**metrics, **done.intervals[proof.format], **place}
    return files


def digest_of_network(config: Config) -> str:
    """Of all that latency and size of an untrained network follow from."""
    from odtrain.config.compose import as_dict

    groups = as_dict(config)
    values = {key: groups[key] for key in ("model", "export", "benchmark", "data")}
    values["version"] = __version__
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _limit_tensorflow(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def over_budget(
    untrained: Mapping[str, Mapping[str, float]],
    max_latency_ms: float | None,
    max_size_mb: float | None,
) -> str | None:
    """Why no file of a network can be within the budget, or None."""
    latency = min(one["latency_ms_p50"] for one in untrained.values())
    size = min(one["size_mb"] for one in untrained.values())
    if max_latency_ms is not None and latency > max_latency_ms:
        return f"its quickest file takes {latency:.2f} ms; sweep.max_latency_ms={max_latency_ms:g}"
    if max_size_mb is not None and size > max_size_mb:
        return f"its smallest file has {size:.2f} MB; sweep.max_size_mb={max_size_mb:g}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
