"""`odtrain server` on a real PostgreSQL, and everything against it; skips where PostgreSQL is not installed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import TINY_RUN, odtrain
from support.stores import check_words_arrive, free_port, wait_until_healthy

from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.errors import ConfigError
from odtrain.io.connections import HEAD_SECONDS, MOST_CONNECTIONS
from odtrain.registry.versions import find_version, list_models
from odtrain.tracking.server import find_postgres, serve
from odtrain.tracking.store import open_client
from odtrain.tracking.tracker import Tracker

TEAM = importlib.util.find_spec("psycopg2") is not None and find_postgres() is not None
needs_postgres = pytest.mark.skipif(
    not TEAM, reason="needs PostgreSQL's programs (apt install postgresql) and psycopg2"
)

AS_TINY = (
    *TINY_RUN,
    "export.formats=[tflite_fp32]",
    "train.checkpoint_every=7",
    "evaluate.every=0",
)

OUTAGE = 20
"""Seconds."""
LONG = 2000
"""Steps that take longer than an outage and the server's start."""


class Team:
    """`odtrain server` in a folder of its own, as a process that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "odtrain", "server", "--workers", "1"]
        command += ["--folder", str(self.folder / "srv"), "--port", str(self.port)]
        with (self.folder / "said").open("ab") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)
        wait_until_healthy(f"{self.uri}/health", self.process, 240)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def postgres_runs(self) -> bool:
        try:
            pid = (self.folder / "srv/postgres/data/postmaster.pid").read_text().split()[0]
            os.kill(int(pid), 0)
        except (OSError, IndexError):
            return False
        return True


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    # PostgreSQL runs as another user where the tests run as root: pytest's folders are closed to it.
    folder = Path(tempfile.mkdtemp(prefix="odtrain-team-"))
    folder.chmod(0o755)
    team = Team(folder)
    try:
        team.start()
        yield team
    finally:
        with contextlib.suppress(Exception):
            team.end()
        shutil.rmtree(folder, ignore_errors=True)


@needs_postgres
@pytest.mark.slow
def test_every_word_arrives_in_postgresql(team, tmp_path):
    check_words_arrive(section(TrackingConfig, uri=team.uri, system_metrics=False), tmp_path)


@needs_postgres
@pytest.mark.slow
def test_its_connections_are_bound(team):
    """More than are kept, each with half a request: those that ask are answered, the others cut off."""
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS + 50):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", team.port)))
            half.sendall(b"POST / HTTP/1.1\r\nHost: localhost")
        assert open_client(team.uri).search_experiments(max_results=1)
        half.settimeout(3 * HEAD_SECONDS)
        assert half.recv(1) == b""


@needs_postgres
@pytest.mark.slow
def test_one_command_brings_up_a_server_that_keeps_what_it_has(team, tmp_path):
    config = section(TrackingConfig, uri=team.uri, experiment="x", system_metrics=False)
    with Tracker(config, tmp_path / "outputs").start("train") as tracker:
        tracker.log({"train/loss": 1.5}, 3)
        tracker.log_text("hello", "note.txt")
    said = (team.folder / "said").read_text()
    assert f"export MLFLOW_TRACKING_URI={team.uri} " in said
    assert team.end() == 0
    assert not team.postgres_runs()
    team.start()
    run = open_client(team.uri).get_run(str(tracker.run_id))
    assert (run.info.status, run.data.metrics["train/loss"]) == ("FINISHED", 1.5)
    stored = list((team.folder / "srv/artifacts").rglob("note.txt"))
    assert [file.read_text() for file in stored] == ["hello"]
    with pytest.raises(ConfigError) as caught:
        serve(team.folder / "srv", port=free_port())
    assert str(caught.value) == (
        f"{team.folder}/srv: another server is at work in it.\n"
        "  Stop that one, or give --folder DIR."
    )
    with pytest.raises(ConfigError) as caught:
        serve(tmp_path, port=team.port)
    assert str(caught.value) == (
        f"--host 127.0.0.1 --port {team.port}: cannot be listened at: Address already in use.\n"
        "  Give another: odtrain server --port 5001"
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_postgres
@pytest.mark.long
def test_a_team_trains_sweeps_promotes_and_downloads(team, shapes, tmp_path):
    store = {"MLFLOW_TRACKING_URI": team.uri}
    data = f"data.images={shapes}"
    said = ok(odtrain(["train", data, *AS_TINY], tmp_path, **store))
    assert "Registered models:/shapes/1 is @champion." in said
    sweep = ["sweep", data, *AS_TINY, "sweep.n_trials=2", "sweep.stop_hopeless=false"]
    sweep += ["sweep.formats=[tflite_fp32]"]
    ok(odtrain(sweep, tmp_path, **store))
    pick = ["sweep", "pick", data, *AS_TINY, "--min-map", "0", "--register"]
    ok(odtrain(pick, tmp_path, **store))
    assert find_version("models:/shapes@challenger", team.uri).number == "2"
    better = find_version("models:/shapes@champion", team.uri).number
    again = ["models", "promote", "shapes", better, "registry.min_recall=0"]
    said = ok(odtrain(again, tmp_path, **store))
    assert f"models:/shapes/{better}: passed" in said
    said = ok(
        odtrain(["models", "compare", "models:/shapes/1", "models:/shapes/2"], tmp_path, **store)
    )
    assert re.match(r"(A better|B better|no difference)", said)
    uri = "models:/shapes@champion"
    ok(odtrain(["models", "download", uri, "--to", "got"], tmp_path, **store))
    mlflow = ("-m", "mlflow")
    fetch = ["artifacts", "download", "-u", uri, "-d", "plain"]
    ok(odtrain(fetch, tmp_path, mlflow, **store))
    for file in (tmp_path / "got").iterdir():
        (same,) = (tmp_path / "plain").rglob(file.name)
        assert same.read_bytes() == file.read_bytes(), file.name


@needs_postgres
@pytest.mark.long
def test_eight_that_train_register_and_promote_at_once_leave_all_of_it_right(
    team, shapes, tmp_path
):
    store = {"MLFLOW_TRACKING_URI": team.uri}

    def train(seed: int) -> subprocess.CompletedProcess[str]:
        own = [f"train.seed={seed}", "registry.name=eight", "tracking.experiment=eight"]
        return odtrain(["train", f"data.images={shapes}", *AS_TINY, *own], tmp_path, **store)

    with ThreadPoolExecutor(8) as pool:
        said = [ok(done) for done in pool.map(train, range(8))]
    check_eight(team.uri, "eight", said)


def check_eight(uri: str, model: str, said: list[str]) -> None:
    """Every run is finished, every version is its run's, and every alias where it should be."""
    client = open_client(uri)
    versions = [version for version in list_models(uri) if version.name == model]
    assert sorted(int(version.number) for version in versions) == list(range(1, 9))
    assert len({version.run_id for version in versions}) == 8
    for version in versions:
        run = client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        assert float(version.tags["eval/mAP"]) == pytest.approx(run.data.metrics["eval/mAP"], 1e-4)
        assert version.tags["odtrain.gate.files"] == "passed"
        assert sum(f"models:/{model}/{version.number} is @" in text for text in said) == 1
    by_alias = {alias: version for version in versions for alias in version.aliases}
    assert by_alias["challenger"].number == "8"
    quickest = min(versions, key=lambda v: float(v.tags["odtrain.latency_ms_p50"]))
    latency = quickest.tags["odtrain.latency_ms_p50"]
    assert by_alias["fastest"].tags["odtrain.latency_ms_p50"] == latency
    best = max(float(v.tags["export/tflite_fp32/mAP"]) for v in versions)
    champion = by_alias["champion"]
    assert float(champion.tags["export/tflite_fp32/mAP"]) == best
    history = [row for v in versions for row in json.loads(v.tags.get("odtrain.champion", "[]"))]
    assert [row["until"] for row in history].count(None) == 1
    assert json.loads(champion.tags["odtrain.champion"])[-1]["until"] is None
    assert not [key for key in client.get_registered_model(model).tags if "queue" in key]


@needs_postgres
@pytest.mark.long
@pytest.mark.parametrize("comes_back", [True, False])
def test_an_outage_in_the_middle_of_a_training_loses_nothing(team, shapes, tmp_path, comes_back):
    """The server is stopped while training goes on; either it comes back, or what was kept is sent later."""
    name = f"outage-{comes_back}".lower()
    command = [sys.executable, "-m", "odtrain", "train", f"data.images={shapes}", *AS_TINY]
    command += [f"train.steps={LONG}", f"registry.name={name}", f"tracking.experiment={name}"]
    command += ["train.checkpoint_every=50", f"tracking.uri={team.uri}"]
    with (tmp_path / "said").open("wb") as said:
        training = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said)
    client = open_client(team.uri)

    def logged() -> list[int]:
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return [int(run.data.metrics.get("train/loss", 0) > 0) for run in runs]

    while sum(logged()) == 0:
        assert training.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.5)
    team.end()
    if comes_back:
        time.sleep(OUTAGE)
        team.start()
        assert training.poll() is None, "the training ended before the server was back"
    assert training.wait(600) == 0, (tmp_path / "said").read_text()
    if not comes_back:
        team.start()
        done = odtrain(["track", "sync", f"tracking.uri={team.uri}"], tmp_path)
        assert "1 models registered." in ok(done), done.stderr
    experiment = client.get_experiment_by_name(name)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, LONG + 1))
    version = find_version(f"models:/{name}@champion", team.uri)
    assert (version.number, version.run_id) == ("1", run.info.run_id)
    assert version.tags["odtrain.gate"] == "passed"
