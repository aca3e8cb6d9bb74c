"""One training of a sweep, in a process of its own: it can be killed, and leaves no memory behind.

    python -m odtrain.sweep_trial REQUEST.json RESULT.json

The request says what to train, the result what came of it; progress goes to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from odtrain.errors import OdtrainError
from odtrain.sweep_front import Finished, hopeless

SECONDS_BETWEEN_LOOKS = 2.0
"""At whether the process that began this one is still there."""
UNTRAINED = ("latency_ms_p50", "latency_ms_p90", "size_mb", "peak_memory_mb")
"""What does not depend on the weights."""


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
        margin: mAP granted before a training counts as hopeless.
        timing_lock: file that is locked while files are timed.
        config_dir: folder of the user's own configs.
    """

    overrides: list[str]
    parent: str
    formats: list[str]
    max_latency_ms: float | None
    max_size_mb: float | None
    finished: list[Finished]
    margin: float
    timing_lock: str
    config_dir: str | None = None


@dataclass(frozen=True)
class Result:
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
    """

    state: str
    reason: str = ""
    run_id: str = ""
    curve: list[tuple[float, float]] = field(default_factory=list)
    score: float = 0.0
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


def write_request(request: Request, file: Path) -> None:
    """Write what `main` reads."""
    file.write_text(json.dumps(asdict(request)), encoding="utf-8")


def read_result(file: Path) -> Result:
    """Read what `main` wrote."""
    return Result(**json.loads(file.read_text(encoding="utf-8")))


def main(arguments: Sequence[str]) -> int:
    """Train as the request says and write the result; the exit status is 0 unless this is a bug."""
    request_file, result_file = map(Path, arguments)
    values = json.loads(request_file.read_text(encoding="utf-8"))
    finished = [
        Finished(tuple(map(tuple, one["curve"])), one["best"], one["latency_ms"])
        for one in values.pop("finished")
    ]
    _follow_parent()
    began = time.monotonic()
    try:
        result = run(Request(**values, finished=finished))
    except OdtrainError as error:
        result = Result("failed", str(error))
    taken = {**asdict(result), "seconds": time.monotonic() - began}
    unfinished = result_file.with_suffix(".part")
    unfinished.write_text(json.dumps(taken), encoding="utf-8")
    unfinished.replace(result_file)
    return 0


def run(request: Request) -> Result:
    """Time the untrained network, and train it if it is within the budget."""
    from odtrain.config import compose_config
    from odtrain.experiment import measure_untrained, train_trial

    config = compose_config(request.overrides, request.config_dir)
    config.export.formats = request.formats
    with FileLock(request.timing_lock):
        untrained = {
            name: {key: getattr(one, key) for key in UNTRAINED}
            for name, one in measure_untrained(config).items()
        }
    if reason := over_budget(untrained, request.max_latency_ms, request.max_size_mb):
        return Result("infeasible", reason, untrained=untrained)
    quickest = min(one["latency_ms_p50"] for one in untrained.values())

    def judge(share: float, score: float) -> str | None:
        return hopeless(share, score, quickest, request.finished, request.margin)

    alone = FileLock(request.timing_lock)
    done = train_trial(config, request.overrides, request.parent, judge, alone)
    score = done.evaluation.metrics["mAP"]
    bounds = {key: done.evaluation.metrics.get(key) for key in ("mAP_lo", "mAP_hi")}
    files: dict[str, dict[str, Any]] = {}
    for proof in done.proofs:
        metrics = {key.rpartition("/")[2]: value for key, value in proof.metrics().items()}
        known = {key: value for key, value in bounds.items() if value is not None}
        files[proof.format] = {
            **metrics,
            **known,
            "file": f"export/{proof.file.name}",
            "failed": proof.failed,
        }
    state = "stopped" if done.stopped else "done"
    return Result(state, done.stopped or "", done.run_id, done.curve, score, untrained, files)


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


def _follow_parent() -> None:
    """End this process, its run marked KILLED, if the one that began it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
