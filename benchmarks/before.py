"""This version beside one before it, in turn on the same machine: `python -m benchmarks before COMMIT`.

The version before is a worktree of git's, made for the time of the comparison. Every measurement is a process
of its own that runs a function of `TOPICS` with that version's odtrain; this version's benchmarks drive both.
A topic that is added is a row there: what makes its inputs, once, and the functions that are timed on them.
"""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from benchmarks import processes

HERE = Path(__file__).resolve().parents[1]
ROUNDS = 5
FILE = "model.tflite"
SECONDS, CPU_SECONDS, VALUE, MEMORY = "seconds", "cpu_seconds", "value", "memory_mb"


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
        memory_mb: medians of the processes' largest resident memory in 10^6 bytes: before, now.
        values: what each version returned, median where those are numbers, the first one else.
        same: whether all gave the same result.
        load: processes waiting or running over the last minute, before the first.
    """

    name: str
    seconds: tuple[float, float]
    cpu_seconds: tuple[float, float]
    ratios: tuple[float, ...]
    cpu_ratios: tuple[float, ...]
    memory_mb: tuple[float, float]
    values: tuple[Any, Any]
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
            runs[name].append({MEMORY: done.peak_memory_mb, **_timed(done)})
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
        medians(MEMORY),
        (_middle(before), _middle(now)),
        len({repr(run[VALUE]) for run in (*before, *now)}) == 1,
        loads[0],
    )


def _middle(runs: Sequence[Mapping[str, Any]]) -> Any:
    values = [run[VALUE] for run in runs]
    numbers = all(isinstance(value, int | float) for value in values)
    return statistics.median(values) if numbers else values[0]


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
    """What one odtrain command says, typed in the folder of the inputs.

    `{own}` in a word is the version's own folder, which is left out of what it says.
    """
    os.chdir(inputs)
    said, status = typed([word.replace("{own}", own) for word in words])
    return f"{said.replace(own, '')}\nexit status {status}"


def typed(words: Sequence[str]) -> tuple[str, Any]:
    """What `odtrain` says, and its exit status, where it is started as people do: it ends quicker then."""
    sys.argv[1:] = words
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            runpy.run_module("odtrain", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return said.getvalue(), ended.code
    return said.getvalue(), 0


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


def train(inputs: str, own: str, precision: str, freeze: int, quick: bool) -> dict[str, Any]:
    """Steps of ssd_mobilenet_v1 on the pictures at hand: the median of one, without the first ones."""
    from benchmarks import training

    extent = training.QUICK if quick else training.Extent()
    settings = {
        "train.steps": extent.chunk * (1 + extent.chunks),
        "train.log_every": extent.chunk,
        "train.precision": precision,
        "train.freeze": freeze,
    }
    overrides = [*training.prepared(Path(own)), *extent.overrides]
    overrides += [f"{key}={value}" for key, value in settings.items()]
    found = training.train(overrides, str(Path(own, "checkpoints")))
    batch = found["batch_size"]
    return {
        SECONDS: batch / statistics.median(found["images_per_second"]),
        CPU_SECONDS: batch * statistics.median(found["cpu_seconds"]),
        VALUE: None,
    }


def quickstart(inputs: str, own: str, seed: int, quick: bool) -> float:
    """README's first command, as MLflow starts it; the mAP of its run."""
    import odtrain
    from odtrain.tracking.store import open_client

    os.chdir(own)
    Path("data").symlink_to(Path(odtrain.__file__).parents[1] / "data")
    words = ["train", f"train.seed={seed}", *(["train.steps=2"] if quick else [])]
    typed(words)
    (run,) = open_client(f"sqlite:///{own}/mlflow.db").search_runs(["0", "1"])
    return float(run.data.metrics["eval/mAP"])


def predict(inputs: str, own: str, drawn: bool) -> dict[str, Any]:
    """A prediction over the folder of pictures, its model open."""
    from benchmarks.prediction import opened_prediction

    file, place = str(Path(inputs, FILE)), str(Path(inputs, "images"))
    work = opened_prediction(file, place, own, os.cpu_count() or 1, 1, drawn=drawn)
    work()  # the first is slower
    return inside(lambda: work() and None)


def answer(inputs: str, own: str, clients: int, count: int) -> dict[str, Any]:
    """What one request of many costs the server, and how long it takes with so many clients."""
    from benchmarks import serving

    body = next(Path(inputs, "images").iterdir()).read_bytes()
    with serving.served(Path(inputs, FILE)) as (address, server):
        done = serving.ask(address, server, body, clients, count)
    return {SECONDS: 1 / done.per_second, CPU_SECONDS: done.cpu_ms / 1000, VALUE: done.errors}


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

    client = open_client(f"sqlite:///{folder / 'mlflow.db'}", making=True)
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


def _training(quick: bool) -> list[Case]:
    ways = [("fp32", 0), ("fp32", 4), ("bf16", 0), ("bf16", 4)]
    return [
        Case(
            f"a step, {precision}, {freeze} stages frozen",
            train,
            {"precision": precision, "freeze": freeze, "quick": quick},
            fresh=True,
        )
        for precision, freeze in (ways[:1] if quick else ways)
    ]


def _quickstart(quick: bool) -> list[Case]:
    return [
        Case(f"seed {seed}", quickstart, {"seed": seed, "quick": quick}, fresh=True)
        for seed in range(1 if quick else 3)
    ]


def _model_and_pictures(folder: Path, quick: bool) -> None:
    """A .tflite with COCO's weights, or random ones where those are not at hand, and pictures to look at."""
    from benchmarks import pictures, prediction

    count = 12 if quick else 200
    pictures.make(folder, count, pictures.sources())
    prediction.write_file(folder / FILE, quick)


def _predict(quick: bool) -> list[Case]:
    cases = {"boxes alone": False, "drawn and written": True}
    return [Case(f"predict, {said}", predict, {"drawn": drawn}) for said, drawn in cases.items()]


def _serve(quick: bool) -> list[Case]:
    count = 20 if quick else 1000
    return [
        Case(f"serve, {clients} at a time", answer, {"clients": clients, "count": count})
        for clients in (1, 4)
    ]


TOPICS: dict[str, Topic] = {
    "evaluation": Topic(_nothing, _evaluation),
    "commands": Topic(_registry, _commands),
    "data": Topic(_pictures, _data),
    "training": Topic(_nothing, _training),
    "quickstart": Topic(_nothing, _quickstart),
    "predict": Topic(_model_and_pictures, _predict),
    "serve": Topic(_model_and_pictures, _serve),
}
