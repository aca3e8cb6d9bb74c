"""Trainings that something happens to, what they say, and the state they leave.

Each test in `tests/faults` makes rows of the table in docs/reliability.md:

    ODTRAIN_FAULTS=rows.jsonl python -m pytest -m 'long or not long' -n 0 tests/faults
    PYTHONPATH=tests python -m support.faults rows.jsonl
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from support.commands import TINY_RUN

from odtrain.io import markdown

KILLED_RUN = Path(__file__).parent / "killed_run.py"
WITH_BARS = Path(__file__).parent / "with_bars.py"
SETTINGS = (*TINY_RUN, "export.formats=[tflite_fp32]")
WHOLE = "1 run FINISHED, 1 version, 1 model READY, each metric once, nothing temporary"
TEMPORARY = re.compile(r"\..*\.new-|.*_temp$|.*\.(tmp|part)$")
PROGRESS = re.compile(r"^.*(\d+%\||it/s|picture/s|step/s).*$")


@dataclass(frozen=True)
class Done:
    """What a command came to: its exit status, the seconds it took, and what it said."""

    rc: int
    seconds: float
    said: str

    @property
    def last(self) -> str:
        """The last lines that are no progress."""
        lines = [line.split("\r")[-1].rstrip() for line in self.said.splitlines()]
        return "\n".join([line for line in lines if line and not PROGRESS.match(line)][-3:])


@dataclass(frozen=True)
class Row:
    """One fault, what the command said of it, and what there was after going on."""

    fault: str
    rc: str
    seconds: float
    said: str
    after: str


class Training:
    """A folder with pictures, and the commands that are given in it.

    Attributes:
        folder: where; holds outputs/, datasets/ and, if it is that, the database.
        uri: of the store.
        settings: overrides of the training.
        experiment: whose runs are looked at; all, where it is None.
    """

    def __init__(
        self, folder: Path, uri: str, settings: Sequence[str], experiment: str | None = None
    ) -> None:
        self.folder, self.uri, self.experiment = folder, uri, experiment
        self.settings = [*settings, f"tracking.uri={uri}"]

    @property
    def run(self) -> str:
        """Id of its only run."""
        (run,) = (path.parent.name for path in self.folder.glob("outputs/*/*/run.json"))
        return run

    def begin(
        self,
        *overrides: str,
        program: Sequence[str] = (str(WITH_BARS),),
        limits: Callable[[], None] | None = None,
        **environment: str,
    ) -> Command:
        """Begin `train`, as a user would."""
        return self.command(
            "train", *self.settings, *overrides, program=program, limits=limits, **environment
        )

    def command(
        self,
        *arguments: str,
        program: Sequence[str] = (str(WITH_BARS),),
        limits: Callable[[], None] | None = None,
        **environment: str,
    ) -> Command:
        """Begin any command in the folder."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        return Command(
            [sys.executable, *program, *arguments], self.folder, inherited | environment, limits
        )

    def killed_at(self, moment: str, *overrides: str) -> Done:
        """Train until the process ends itself at a moment of `killed_run`."""
        return self.begin(*overrides, program=(str(KILLED_RUN), moment)).wait()

    def go_on(self) -> Done:
        """`train.resume=auto`."""
        return self.begin("train.resume=auto").wait()

    def sync(self) -> Done:
        """`track sync`."""
        return self.command("track", "sync", "outputs").wait()

    def check_whole(self, fault: str, done: Done) -> None:
        """Go on with what a fault ended, else send what waits; hold what there is then against `WHOLE`."""
        again = self.go_on() if done.rc else self.sync()
        assert again.rc == 0, again.said
        state = self.state()
        note(fault, done, state)
        assert "Traceback" not in done.said + again.said
        assert state == WHOLE

    def state(self) -> str:
        """What is there; `WHOLE` where all is as after a training that nothing happened to."""
        client = MlflowClient(self.uri)
        ids = [
            one.experiment_id
            for one in client.search_experiments()
            if self.experiment in (None, one.name)
        ]
        runs = client.search_runs(ids)
        versions = [
            one
            for one in client.search_model_versions()
            if one.run_id in {run.info.run_id for run in runs}
        ]
        models = Counter(LoggedModelStatus(one.status).name for one in _models(client, ids))
        doubled = sorted({key for run in runs for key in _doubled(client, run)})
        left = sorted(str(path.relative_to(self.folder)) for path in _temporary(self.folder))
        return ", ".join(
            [
                _counted("run", Counter(run.info.status for run in runs)),
                f"{len(versions)} version{'s' * (len(versions) != 1)}",
                _counted("model", models),
                f"twice: {', '.join(doubled)}" if doubled else "each metric once",
                f"left: {', '.join(left)}" if left else "nothing temporary",
            ]
        )


class Command:
    """A command that has begun; what it says goes into a file, so that a full pipe never holds it."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        limits: Callable[[], None] | None,
    ) -> None:
        said = Path(tempfile.mkstemp(".said", dir=folder.parent)[1])
        self._begun = time.monotonic()
        with said.open("wb") as file:
            self.process = subprocess.Popen(
                arguments,
                cwd=folder,
                env=environment,
                stdout=file,
                stderr=file,
                preexec_fn=limits,  # one thread, and resource limits alone
            )
        self._file = said.open("rb")

    def said(self) -> str:
        """So far."""
        self._file.seek(0)
        return self._file.read().decode("utf-8", "replace")

    def until(self, text: str, seconds: float = 300) -> None:
        """Wait until it has said this.

        Raises:
            TimeoutError: it does not, or has ended.
        """
        end = time.monotonic() + seconds
        while text not in self.said():
            if self.process.poll() is not None or time.monotonic() > end:
                raise TimeoutError(f"{text!r} was not said in:\n{self.said()}")
            time.sleep(0.02)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> Done:
        """Send it a signal, and wait."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = 600) -> Done:
        """Wait until it has ended."""
        try:
            rc = self.process.wait(seconds)
        finally:
            self.process.kill()
        done = Done(rc, time.monotonic() - self._begun, self.said())
        self._file.close()
        return done


def _models(client: MlflowClient, experiments: list[str]) -> list[object]:
    return list(client.search_logged_models(experiments))


def _doubled(client: MlflowClient, run: object) -> Iterator[str]:
    """Metrics of which the run has a step twice."""
    for key in run.data.metrics:  # type: ignore[attr-defined]
        steps = [one.step for one in client.get_metric_history(run.info.run_id, key)]  # type: ignore[attr-defined]
        if len(steps) != len(set(steps)) and not key.startswith("system/"):
            yield key


def _temporary(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if TEMPORARY.match(path.name))


def _counted(what: str, statuses: Counter[str]) -> str:
    if not statuses:
        return f"0 {what}s"
    return " and ".join(
        f"{number} {what}{'s' * (number != 1)} {status}"
        for status, number in sorted(statuses.items())
    )


def note(fault: str, done: Done, after: str) -> None:
    """Keep a row for the table, where ODTRAIN_FAULTS names a file for it."""
    if file := os.environ.get("ODTRAIN_FAULTS"):
        rc = f"killed ({signal.Signals(-done.rc).name})" if done.rc < 0 else str(done.rc)
        row = Row(fault, rc, round(done.seconds, 1), done.last if done.rc > 0 else "", after)
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(row)) + "\n")


def table(file: Path) -> list[str]:
    """The rows of a file as Markdown."""
    rows = [Row(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    names = ("what happens", "exit", "seconds", "what is said", "then")
    cells = [
        [row.fault, row.rc, f"{row.seconds:.0f}", " ".join(row.said.split()), row.after]
        for row in rows
    ]
    return markdown.table(names, cells)


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]))))
