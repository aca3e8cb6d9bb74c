"""Nothing that a run leaves, and no list of processes, holds the passwords and tokens it was given."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import sqlalchemy
from support.postgres import Postgres
from support.stores import (
    QUIET,
    Server,
    free_port,
    logged_settings,
    store_at,
    wait_until_healthy,
)

from odtrain.cli.main import main
from odtrain.config.compose import as_dict, compose_config, flattened, from_yaml, section
from odtrain.config.schema import TrackingConfig
from odtrain.jobs.resume import _secrets
from odtrain.tracking.runs import config_digest, find_resumable
from odtrain.tracking.store import repeated, ui_command
from odtrain.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("own_environment")

SECRETS = ("PASSWORD1", "TOKEN2", "TOKEN3", "PASSWORD4", "TOKEN5", "TOKEN6")
OVERRIDES = [
    'zoo.mirrors=["https://TOKEN2@mirror.example/w","https://mirror.example/w?sig=TOKEN3"]',
    "sweep.storage=postgresql+psycopg2://me:PASSWORD4@host/optuna",
]


def work_in(uri: str, folder: Path) -> Tracker:
    """A run that is told every secret there is, and ends by a fault that names one."""
    overrides = [*OVERRIDES, f"tracking.uri={uri}"]
    config = section(TrackingConfig, **{**vars(QUIET), "uri": uri})
    tracker = Tracker(config, folder / "outputs")
    with pytest.raises(ValueError), tracker.start("train", "evaluate http://u:TOKEN5@h/a.pb"):
        tracker.log_config(compose_config(overrides), overrides)
        tracker.describe(f"`odtrain train {' '.join(overrides)}`")
        tracker.log_params({"tried": overrides})
        tracker.set_tags({"odtrain.stopped_early": f"no {uri}"})
        logging.getLogger("odtrain.test").warning("Tried before: http://h/x?token=TOKEN6")
        raise ValueError(f"{uri} and http://h/x?token=TOKEN6")
    return tracker


def leaks(folder: Path) -> list[tuple[str, str]]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [
        (file.name, one) for file in files for one in SECRETS if one.encode() in file.read_bytes()
    ]


def test_a_run_leaves_no_secret_in_store_artifacts_folder_and_terminal(tmp_path, database, capfd):
    store_at(tmp_path, database)
    server = Server(tmp_path)
    server.start()
    try:
        tracker = work_in(server.uri.replace("//", "//bob:PASSWORD1@"), tmp_path)
        settings = logged_settings(tracker.client, str(tracker.run_id))
    finally:
        server.stop()
    assert settings["tracking.uri"] == server.uri.replace("//", "//bob:***@")
    assert "sig=***" in settings["zoo.mirrors"]
    assert leaks(tmp_path) == []
    assert not [one for one in SECRETS if one in "".join(capfd.readouterr())]


def test_a_run_is_found_again_by_who_gives_the_password_anew(tmp_path, said):
    uri = f"http://bob:PASSWORD1@127.0.0.1:{free_port()}"
    work_in(uri, tmp_path)
    asked = compose_config([*OVERRIDES, f"tracking.uri={uri}"])
    outputs, digest = tmp_path / "outputs", config_digest(asked)
    found = find_resumable(asked.tracking, outputs, [digest])
    saved = from_yaml((outputs / "tests" / str(found) / "config/config.yaml").read_text())
    assert config_digest(saved) == digest
    assert saved.zoo.mirrors[0] == "https://***@mirror.example/w"
    given = _secrets(flattened(as_dict(asked)), flattened(as_dict(saved)))
    assert given["zoo.mirrors"] == asked.zoo.mirrors


def test_the_closing_line_names_no_password():
    uri = "postgresql+psycopg2://mlflow:PASSWORD1@h/mlflow"
    assert ui_command(uri) == "odtrain ui"
    assert repeated([f"tracking.uri={uri}"], ["tracking.uri"]) == (
        " 'tracking.uri=postgresql+psycopg2://mlflow:***@h/mlflow'"
    )


class Started(Exception):
    """A process would have been started."""


@pytest.fixture
def started(monkeypatch):
    """What would be started: the command line, and the store in its environment."""
    seen = []

    def start(command, *, env, **_):
        seen.append((" ".join(command), env["MLFLOW_BACKEND_STORE_URI"]))
        raise Started

    monkeypatch.setattr("odtrain.tracking.mlflow_process.subprocess.Popen", start)
    return seen


def test_the_server_names_its_database_to_mlflow_by_the_environment_alone(
    started, tmp_path, monkeypatch
):
    monkeypatch.setattr("odtrain.tracking.server.check_there", lambda _: None)
    uri = "postgresql+psycopg2://me:PASSWORD1@127.0.0.1/mlflow"
    with pytest.raises(Started):
        main(["server", "--database", uri, "--folder", str(tmp_path), "--port", str(free_port())])
    ((command, store),) = started
    assert "odtrain.tracking.guarded_mlflow" in command
    assert ("PASSWORD1" in command, store) == (False, uri)


def test_the_ui_names_its_store_to_mlflow_by_the_environment_alone(started, monkeypatch):
    uri = "postgresql+psycopg2://me:PASSWORD1@127.0.0.1/mlflow"
    found = contextlib.nullcontext(SimpleNamespace(get_experiment_by_name=lambda _: None))
    monkeypatch.setattr("odtrain.tracking.ui.reaching", lambda _: found)
    with pytest.raises(Started):
        main(["ui", f"tracking.uri={uri}"])
    ((command, store),) = started
    assert " mlflow ui " in command
    assert ("PASSWORD1" in command, store) == (False, uri)


def lists_of_processes(process: subprocess.Popen[bytes]) -> str:
    every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return "\n".join(" ".join(one.cmdline()) for one in every)


def dump_of(database: str) -> str:
    """Every row of every table."""
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(engine).get_table_names()
        rows = [
            connection.execute(sqlalchemy.text(f"select * from {name}")).all() for name in tables
        ]
    engine.dispose()
    return repr(rows)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a database, with a password that nobody asks for."""
    folder = Path(tempfile.mkdtemp(prefix="odtrain-secrets-"))
    folder.chmod(0o755)
    server = Postgres(folder)
    yield server.url.replace("odtrain@", "odtrain:PASSWORD1@")
    server.stop()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_list_of_processes_shows_the_password_of_a_database(postgres, tmp_path):
    tracker = work_in(postgres, tmp_path)
    assert tracker.online
    (tmp_path / "dump").write_text(dump_of(postgres))
    assert "mirror.example" in (tmp_path / "dump").read_text()
    assert leaks(tmp_path) == []
    ports = free_port(), free_port()
    commands = (
        ["ui", f"tracking.uri={postgres}", "--port", str(ports[0])],
        [
            "server",
            "--database",
            postgres,
            "--folder",
            "srv",
            "--port",
            str(ports[1]),
            "--workers",
            "1",
        ],
    )
    for command, port in zip(commands, ports, strict=True):
        with (tmp_path / "said").open("wb") as said:
            served = subprocess.Popen(
                [sys.executable, "-m", "odtrain", *command], cwd=tmp_path, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/health", served, 120)
            time.sleep(1)
            shown = lists_of_processes(served)
        finally:
            os.killpg(served.pid, signal.SIGTERM)
            served.wait(30)
        assert "mlflow" in shown
        assert "PASSWORD1" not in shown
        assert leaks(tmp_path) == []
