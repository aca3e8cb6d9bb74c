from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from support.stores import store_at

from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.errors import TrackingError
from odtrain.tracking.reach import brief
from odtrain.tracking.store import (
    experiment_id,
    open_client,
    pages,
    repeated,
    tracking_uri,
    ui_command,
)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


SERVER = "http://server:5000"


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        pytest.param(None, None, "sqlite:///{here}/mlflow.db", id="default"),
        pytest.param(None, SERVER, SERVER, id="environment over default"),
        pytest.param("sqlite:///a.db", SERVER, "sqlite:///{here}/a.db", id="config over both"),
        pytest.param("sqlite:////data/a.db", None, "sqlite:////data/a.db", id="absolute database"),
        pytest.param("runs/a.db", None, "sqlite:///{here}/runs/a.db", id="path of a database"),
        pytest.param(f"{SERVER}/", None, SERVER, id="trailing slash"),
        pytest.param(None, "sqlite:///b.db", "sqlite:///{here}/b.db", id="relative in environment"),
    ],
)
def test_the_store_is_the_configured_else_the_environments_else_a_database_here(
    monkeypatch, tmp_path, configured, environment, expected
):
    if environment is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    config = section(TrackingConfig, uri=configured, experiment="x")
    assert tracking_uri(config) == expected.format(here=tmp_path)


@pytest.mark.parametrize("folder", ["mlruns", "./mlruns", "file:///data/mlruns"])
def test_a_folder_is_refused_with_what_to_do(folder):
    with pytest.raises(TrackingError) as caught:
        tracking_uri(section(TrackingConfig, uri=folder, experiment="x"))
    assert str(caught.value) == (
        f'tracking.uri: "{folder}" is a folder, and MLflow keeps no runs in folders any more.\n'
        "  Name a database (sqlite:///runs.db) or a server (http://host:5000). "
        "`mlflow migrate-filestore` moves the runs of an old folder."
    )


def test_the_next_command_is_given_what_it_needs_and_no_password():
    given = [
        "+data.name=my data",
        "model=x",
        "sweep.storage=postgresql://me:secret@host/db",
        "data",
    ]
    assert repeated(given, ["data.", "sweep.storage"]) == (
        " 'data.name=my data' 'sweep.storage=postgresql://me:***@host/db'"
    )


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(tmp_path, database):
    uri = str(store_at(tmp_path, database).uri)
    client = open_client(uri)
    number = experiment_id(client, uri, "raccoons")
    assert experiment_id(client, uri, "raccoons") == number
    client.delete_experiment(number)
    with pytest.raises(TrackingError) as caught:
        experiment_id(client, uri, "raccoons")
    assert str(caught.value) == (
        "experiment raccoons: it has been deleted.\n"
        f"  Restore it (mlflow experiments restore --experiment-id {number}), "
        "or choose another with tracking.experiment=NAME."
    )


def test_artifacts_go_beside_a_database_whose_path_has_spaces_and_hangul(tmp_path, database):
    folder = tmp_path / "내 runs"
    uri = str(store_at(folder, database).uri)
    client = open_client(uri)
    run = client.create_run(experiment_id(client, uri, "x"))
    client.log_text(run.info.run_id, "hello", "note.txt")
    kept = folder / "mlartifacts" / run.info.run_id / "artifacts" / "note.txt"
    assert kept.read_text() == "hello"


def test_a_database_of_another_mlflow_is_an_error_that_says_how_to_upgrade(tmp_path, database):
    uri = str(store_at(tmp_path, database).uri)
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("update alembic_version set version_num = '451aebb31d03'")
    connection.close()
    with pytest.raises(TrackingError) as caught:
        open_client(uri)
    assert str(caught.value) == (
        f"{uri}: this database was made by another version of MLflow.\n"
        f"  Back it up and run: mlflow db upgrade {uri}"
    )


def test_the_ui_of_a_database_is_served_by_a_command():
    uri = "sqlite:////my runs/mlflow.db"
    assert ui_command(uri, port=5005) == (
        "mlflow ui --backend-store-uri 'sqlite:////my runs/mlflow.db' --port 5005"
    )
    assert pages(uri, "7", port=5005).charts == (
        "http://127.0.0.1:5005/#/experiments/7/runs"
        "?workflowType=machine_learning&compareRunsMode=CHART"
    )


def test_the_ui_of_a_server_is_the_server():
    assert ui_command(SERVER) is None
    assert pages(SERVER).charts == f"{SERVER}/#/experiments?workflowType=machine_learning"


def test_a_long_reason_is_cut_to_its_first_line():
    assert brief(ValueError("one\ntwo")) == "one"
    assert brief(ValueError("x" * 400)) == "x" * 297 + "..."
    assert brief(ValueError()) == "ValueError"
