"""Real MLflow stores for tests: a ready database to copy, and a server that can be stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import requests
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from support.words import words

from odtrain.config.compose import flattened, section
from odtrain.config.schema import TrackingConfig
from odtrain.tracking.names import as_text, key_name
from odtrain.tracking.store import open_client
from odtrain.tracking.tracker import Tracker

QUIET = section(TrackingConfig, experiment="tests", system_metrics=False, flush_seconds=0.2)


def migrated_database(folder: Path) -> Path:
    """A new MLflow database; making one takes seconds, copying it none."""
    open_client(f"sqlite:///{folder}/mlflow.db", making=True)
    return folder / "mlflow.db"


def store_at(folder: Path, database: Path) -> TrackingConfig:
    """A configuration of a store of its own in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(database, folder / "mlflow.db")
    return section(
        TrackingConfig,
        uri=f"sqlite:///{folder}/mlflow.db",
        experiment="tests",
        system_metrics=False,
        flush_seconds=0.2,
    )


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that differ, since all are held until the last is found."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    """Wait for a server to answer.

    Raises:
        TimeoutError: it did not in time, or it ended.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer.")


class Server:
    """A real `mlflow server` on loopback, over a database in `folder`, always at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "served")]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        wait_until_healthy(f"{self.uri}/health", self._process)

    def freeze(self) -> None:
        """Stop answering while connections are still accepted, as an overloaded server does."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


def only_run(client: MlflowClient) -> Run:
    """The one run of a store."""
    (found,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return found


def artifacts(client: MlflowClient, run_id: str, folder: str = "") -> Iterator[str]:
    """Paths of the files that a run has logged."""
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from artifacts(client, run_id, item.path)
        else:
            yield item.path


def logged_settings(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Every setting of a run by its key, as an override would write it, from the run's configuration."""
    file = client.download_artifacts(run_id, "config/config.yaml")
    values = flattened(yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    return {key: as_text(value) for key, value in values.items()}


def check_words_arrive(config: TrackingConfig, folder: Path) -> None:
    """Log every word as metric, parameter, tag, value and file, and see that each is there once."""
    names = words()
    with Tracker(config, folder / "outputs").start("train", "▲" * 300) as tracker:
        tracker.log({f"eval/AP/{name}": place for place, name in enumerate(names)}, 1)
        tracker.log_params({f"p/{name}": name for name in names})
        tracker.set_tags({f"t/{name}": name for name in names})
        for place, name in enumerate(("a#1", "a#2", "%41", "a\nb", "don't")):
            file = folder / f"{name}.txt"
            file.write_text(str(place))
            tracker.log_file(file, "files")
    run = tracker.client.get_run(str(tracker.run_id))
    assert not (tracker.folder / "refused.jsonl").exists()
    keys = [key_name(f"eval/AP/{name}") for name in names]
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    assert [metrics.get(key) for key in keys] == list(range(len(names)))
    assert set(params) == {key_name(f"p/{name}") for name in names}
    assert {key for key in tags if key.startswith("t/")} == {
        key_name(f"t/{name}") for name in names
    }
    assert json.loads(tags["odtrain.renamed"])[key_name("eval/AP/*")] == "eval/AP/*"
    held = sorted(artifacts(tracker.client, str(tracker.run_id), "files"))
    assert len(held) == 5
    assert "files/don't.txt" in held
