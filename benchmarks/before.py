"""This version beside one before it, in turn on the same machine: `python -m benchmarks before COMMIT`.

The version before is a worktree of git's, made for the time of the comparison. Every measurement is a process
of its own that runs a function of `TOPICS` with that version's odtrain; this version's benchmarks drive both.
A topic that is added is a row there: what makes its inputs, once, and the functions that are timed on them.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks import processes

HERE = Path(__file__).resolve().parents[1]
ROUNDS = 5
SECONDS, CPU_SECONDS, VALUE = "seconds", "cpu_seconds", "value"


class Case(NamedTuple):
    """What is timed in both versions.

    Attributes:
        name: of the row.
        run: a function of a module of `benchmarks`, given `arguments`, the inputs' folder and one of the
            version's own. What `inside` returns is timed there, anything else with its whole process.
        arguments: of that function.
        fresh: whether the version's own folder is emptied first.
    """

    name: str
    run: Callable[..., Any]
    arguments: dict[str, Any]
    fresh: bool = False


class Topic(NamedTuple):
    """Cases on the same inputs.

    Attributes:
        make: makes the inputs in a folder; small ones where the flag says quick.
        cases: what is timed on them; less where the flag says quick.
    """

    make: Callable[[Path, bool], None]
    cases: Callable[[bool], Sequence[Case]]


@dataclass(frozen=True)
class Row:
    """One case in both versions, as pairs of the version before and this one.

    Attributes:
        name: of the case.
        seconds: medians by the clock on the wall: before, now.
        cpu_seconds: the same of processor time.
        ratios: of each pair by the clock, how many times as fast this version is.
        cpu_ratios: of each pair by processor time.
        same: whether all gave the same result.
        load: processes waiting or running over the last minute, before the first.
    """

    name: str
    seconds: tuple[float, float]
    cpu_seconds: tuple[float, float]
    ratios: tuple[float, ...]
    cpu_ratios: tuple[float, ...]
    same: bool
    load: float


def measure(commit: str, topics: Sequence[str], rounds: int, quick: bool) -> list[Row]:
    """Every case of the topics, `rounds` times in each version, in turn.

    Raises:
        ProcessError: git knows no such commit, or a process failed.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="odtrain-before-") as scratch:
        with _worktree(commit, Path(scratch) / "before") as before:
            for checkout in (before, HERE):  # neither has more to compile than the other
                code = [str(checkout / name) for name in ("odtrain", "runtime")]
                subprocess.run([sys.executable, "-m", "compileall", "-q", *code], check=True)
            for name in topics:
                inputs = Path(scratch) / name
                inputs.mkdir()
                TOPICS[name].make(inputs, quick)
                for case in tqdm(TOPICS[name].cases(quick), desc=name, unit="case"):
                    rows.append(_compared(case, {"before": before, "now": HERE}, inputs, rounds))
    return rows


@contextlib.contextmanager
def _worktree(commit: str, folder: Path) -> Iterator[Path]:
    def git(*words: str) -> None:
        done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True)
        if done.returncode:
            raise processes.ProcessError(f"git {' '.join(words)}: {done.stderr.strip()}")

    git("worktree", "add", "--detach", str(folder), commit)
    try:
        yield folder
    finally:
        git("worktree", "remove", "--force", str(folder))


def _compared(case: Case, versions: dict[str, Path], inputs: Path, rounds: int) -> Row:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
    loads = []
    for number in range(rounds):
        for name in sorted(versions, reverse=bool(number % 2)):  # neither is always first
            own = inputs / name
            if case.fresh:
                shutil.rmtree(own, ignore_errors=True)
            own.mkdir(exist_ok=True)
            folders = {"inputs": str(inputs), "own": str(own)}
            done = processes.run(case.run, versions[name], **folders, **case.arguments)
            loads.append(done.load)
            runs[name].append(_timed(done))
    before, now = runs["before"], runs["now"]

    def medians(key: str) -> tuple[float, float]:
        first, second = (statistics.median(run[key] for run in side) for side in (before, now))
        return first, second

    def ratios(key: str) -> tuple[float, ...]:
        return tuple(a[key] / b[key] for a, b in zip(before, now, strict=True))

    return Row(
        case.name,
        medians(SECONDS),
        medians(CPU_SECONDS),
        ratios(SECONDS),
        ratios(CPU_SECONDS),
        len({repr(run[VALUE]) for run in (*before, *now)}) == 1,
        loads[0],
    )


def _timed(done: processes.Finished) -> dict[str, Any]:
    if isinstance(done.value, dict) and done.value.keys() == {SECONDS, CPU_SECONDS, VALUE}:
        return done.value
    return {SECONDS: done.seconds, CPU_SECONDS: done.cpu_seconds, VALUE: done.value}


def spread(ratios: Sequence[float]) -> str:
    """The median, and between which the ratios lie."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


# ---- what runs in a process of its own, with one of the two versions


def inside(call: Callable[[], Any]) -> dict[str, Any]:
    """Time a call alone, without what its process did to come so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    return {
        SECONDS: time.perf_counter() - wall,
        CPU_SECONDS: time.process_time() - cpu,
        VALUE: value,
    }


def run_command(inputs: str, own: str, words: list[str]) -> str:
    """What one odtrain command says, in the folder of the inputs.

    `{own}` in a word is the version's own folder, which is left out of what it says.
    """
    from benchmarks.way import command

    os.chdir(inputs)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = command()([word.replace("{own}", own) for word in words])
    return f"{said.getvalue().replace(own, '')}\nexit status {status}"


def import_mlflow(inputs: str, own: str) -> None:
    """What a command that asks MLflow cannot do without."""
    import mlflow  # noqa: F401


def evaluate(inputs: str, own: str, pictures: int, bootstrap: int) -> dict[str, Any]:
    """An evaluation of random detections; all its numbers are its value."""
    from benchmarks.evaluation import CLASSES, DETECTIONS, random_detections
    from odtrain.evaluation.evaluate import evaluate

    truths, found = random_detections(pictures, DETECTIONS, seed=0)
    names = [f"class {number}" for number in range(1, CLASSES + 1)]
    return inside(lambda: evaluate(truths, found, names, bootstrap, seed=0).metrics)


# ---- the topics


def _nothing(folder: Path, quick: bool) -> None:
    """No inputs."""


def _evaluation(quick: bool) -> list[Case]:
    count = 200 if quick else 5000
    return [
        Case(f"{count} pictures, {said}", evaluate, {"pictures": count, "bootstrap": bootstrap})
        for said, bootstrap in (("no interval", 0), ("1,000 resamples", 1000))
    ]


def _registry(folder: Path, quick: bool) -> None:
    """A database with three models of five versions each."""
    from odtrain.tracking.store import open_client

    client = open_client(f"sqlite:///{folder / 'mlflow.db'}")
    for name in ("boxes", "gears", "panels"):
        client.create_registered_model(name)
        for _ in range(5):
            client.create_model_version(name, folder.as_uri())
        client.set_registered_model_alias(name, "champion", "3")


def _commands(quick: bool) -> list[Case]:
    return [
        Case("import mlflow", import_mlflow, {}),
        Case("odtrain models list", run_command, {"words": ["models", "list"]}),
        Case("odtrain --help", run_command, {"words": ["--help"]}),
    ]


def _pictures(folder: Path, quick: bool) -> None:
    from benchmarks import pictures

    pictures.make(folder, 100 if quick else 5000, pictures.sources())


def _data(quick: bool) -> list[Case]:
    words = ["data.images=images", "data.annotations=annotations", "data.name=benchmark"]
    words.append("data.prepared={own}/prepared")
    prepare, check = {"words": ["prepare", *words]}, {"words": ["check", *words]}
    return [
        Case("odtrain prepare, the first time", run_command, prepare, fresh=True),
        Case("odtrain prepare, nothing changed", run_command, prepare),
        Case("odtrain check after it, the first time", run_command, check),
        Case("odtrain check, nothing changed", run_command, check),
    ]


TOPICS: dict[str, Topic] = {
    "evaluation": Topic(_nothing, _evaluation),
    "commands": Topic(_registry, _commands),
    "data": Topic(_pictures, _data),
}
