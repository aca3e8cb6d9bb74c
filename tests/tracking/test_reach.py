from __future__ import annotations

import json
import sqlite3
import time

import pytest
from mlflow.store.db import utils as mlflow_db
from support.odd_servers import (
    ALL,
    CUT_OFF,
    DRIPS,
    EMPTY,
    MUTE,
    NO_RIGHTS,
    RUBBISH,
    SLOW,
    WRONG,
    odd_server,
    silent_port,
)
from support.stores import QUIET, free_port, store_at

from odtrain.cli.main import main
from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.errors import TrackingError
from odtrain.io import patience
from odtrain.tracking import reach
from odtrain.tracking.runs import sync
from odtrain.tracking.store import open_client, tracking_uri
from odtrain.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("own_environment")

RUN = "0" * 32
OTHER = "Is it up, and the address right? Another: tracking.uri=, or MLFLOW_TRACKING_URI."
COMMANDS = (
    ["models", "list"],
    ["models", "show", "x"],
    ["models", "promote", "x", "1"],
    ["models", "rollback", "x"],
    ["models", "download", "x"],
    ["models", "compare", RUN, "1" * 32],
    ["ui"],
    ["report", RUN],
)
SAYS = {
    DRIPS: "cannot be reached: no whole answer within 1 s.",
    MUTE: "cannot be reached: no whole answer within 1 s.",
    EMPTY: "does not answer as MLflow does: its answer is empty.",
    CUT_OFF: "cannot be reached: IncompleteRead(17 bytes read, 100 more expected).",
    RUBBISH: "does not answer as MLflow does: API request to endpoint was successful but the response body "
    "was not in a valid JSON format. Response body: '<html><body>Sign in, please</body></html>'.",
}


@pytest.fixture
def quick(monkeypatch):
    """Nobody waits for long."""
    monkeypatch.setattr(patience, "ALL_SECONDS", 2.0)
    monkeypatch.setattr(patience, "QUICK_SECONDS", 0.2)
    monkeypatch.setattr(reach, "WAIT_SECONDS", 1.0)
    monkeypatch.setattr(reach, "SAID_AFTER", 0.5)
    monkeypatch.setattr(reach, "LOCK_SECONDS", 0.5)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_says_that_the_store_is_away(command, quick, capsys, tmp_path):
    uri = f"http://bob:PASSWORD@127.0.0.1:{free_port()}"
    assert main([*command, f"tracking.uri={uri}"]) == 1
    assert capsys.readouterr().err == (
        f"{uri.replace('PASSWORD', '***')}: cannot be reached: [Errno 111] Connection refused.\n"
        f"  {OTHER}\n"
    )


@pytest.mark.parametrize("way", ALL)
@pytest.mark.parametrize("command", [COMMANDS[0], COMMANDS[-1], COMMANDS[-2]], ids=" ".join)
def test_a_command_says_that_a_server_is_sick_and_soon(way, command, quick, capsys):
    with odd_server(way) as server:
        begun = time.monotonic()
        assert main([*command, f"tracking.uri={server.uri}"]) == 1
        assert time.monotonic() - begun < 5
    said = capsys.readouterr().err
    if way == WRONG:
        assert f"\n{server.uri}: does not answer as MLflow does: " in f"\n{said}"
    else:
        assert said.endswith(f"{server.uri}: {SAYS[way]}\n  {OTHER}\n")
    waited = f"Waiting for {server.uri}: 1 s at most for an answer, 2 s for all that are slow.\n"
    assert said.startswith(waited) == (way in (DRIPS, MUTE))
    assert len(said.splitlines()) <= 3


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_slow_answers_are_waited_for_together(command, quick, capsys):
    with odd_server(SLOW, pause=0.8) as server:
        assert main([*command, f"tracking.uri={server.uri}"]) == 1
    assert len(server.asked) <= 5  # of more than twenty
    assert capsys.readouterr().err.startswith(f"Waiting for {server.uri}: ")


def test_who_waited_long_enough_is_told_what_for(quick, capsys):
    with odd_server(SLOW, pause=0.8) as server:
        assert main(["models", "list", f"tracking.uri={server.uri}"]) == 1
    said = f"{server.uri}: cannot be reached: its slow answers took 2 s in all.\n  {OTHER}\n"
    assert capsys.readouterr().err.endswith(said)


def test_many_quick_answers_are_no_slow_ones(quick, monkeypatch):
    monkeypatch.setattr(patience, "ALL_SECONDS", 0.5)
    with odd_server(SLOW, pause=0.05) as server:
        assert main(["models", "list", f"tracking.uri={server.uri}"]) == 0
    assert len(server.asked) == 21


def test_a_database_that_takes_connections_and_says_nothing_is_told_soon(monkeypatch, capsys):
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")  # libpq's least
    with silent_port() as port:
        uri = f"postgresql+psycopg2://u:PASSWORD@127.0.0.1:{port}/db"
        begun = time.monotonic()
        assert main(["models", "list", f"tracking.uri={uri}"]) == 1
        assert time.monotonic() - begun < 2 * reach.CONNECTS + 20  # a busy machine's imports
    said = capsys.readouterr().err
    assert f"{uri.replace('PASSWORD', '***')}: cannot be reached: " in said
    assert said.endswith(f"  {OTHER}\n")


def test_no_command_that_looks_waits_longer_than_a_quarter_of_a_minute():
    reach.bound_requests()
    between = sum(0.1 * (2**attempt - 1) for attempt in range(1, mlflow_db.MAX_RETRY_COUNT))
    connecting = reach.CONNECT_SECONDS * (1 + mlflow_db.MAX_RETRY_COUNT) + between
    assert max(patience.ALL_SECONDS, 2 * reach.LOCK_SECONDS, connecting) <= 15
    assert reach.WAIT_SECONDS < patience.ALL_SECONDS


SLASHES = "Three slashes stand before a path from here, four before one from the root: "
NAME_ONE = "Name a database (sqlite:///runs.db) or a server (http://host:5000)."


@pytest.mark.parametrize(
    ("uri", "problem", "remedy"),
    [
        ("sqlite://x.db", "names no database.", f"{SLASHES}sqlite:///x.db"),
        ("sqlite:x.db", "names no database.", f"{SLASHES}sqlite:///x.db"),
        ("sqlite:///", "names no database.", f"{SLASHES}sqlite:///mlflow.db"),
        ("sqlite:///.", "is a folder.", "Name a file in it: sqlite:///./mlflow.db"),
        (
            "mysql://u:***@h/db",
            "needs a driver that is not installed: MySQLdb.",
            "python -m pip install pymysql, and write mysql+pymysql://...",
        ),
        (
            "databricks",
            "is Databricks' own store, and nothing says where it is.",
            "Set DATABRICKS_HOST and DATABRICKS_TOKEN (pip install databricks-sdk), or name another: "
            "tracking.uri=sqlite:///runs.db",
        ),
        ("ftp://h/x", "is no store that MLflow knows.", NAME_ONE),
        ("localhost:5000", "is no address: http:// is missing.", "tracking.uri=http://localhost:5000"),
        ("http://u:***@h:port", "is no address of a server.", "Write http://host:5000."),
    ],
)  # fmt: skip
def test_an_address_that_can_be_no_store_is_refused_at_once(
    uri, problem, remedy, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DATABRICKS_HOST", raising=False)
    with pytest.raises(TrackingError) as caught:
        tracking_uri(section(TrackingConfig, uri=uri.replace("***", "PASSWORD")))
    assert str(caught.value) == f'tracking.uri: "{uri}" {problem}\n  {remedy}'


def test_a_database_behind_a_closed_port_is_told_at_once(monkeypatch):
    uri = f"postgresql+psycopg2://u:PASSWORD@127.0.0.1:{free_port()}/db"
    with pytest.raises(reach.StoreAwayError) as caught:
        reach.check_there(uri)
    assert str(caught.value) == (
        f"{uri.replace('PASSWORD', '***')}: cannot be reached: [Errno 111] Connection refused.\n  {OTHER}"
    )


@pytest.mark.parametrize("command", [["models", "list"], ["models", "rollback", "x"], ["ui"]])
def test_a_locked_database_is_told_soon(command, quick, capsys, tmp_path, database):
    uri = str(store_at(tmp_path, database).uri)
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("begin exclusive")
    assert main([*command, f"tracking.uri={uri}"]) == 1
    holder.close()
    assert capsys.readouterr().err.endswith(
        f"{uri}: is locked by another process; waited 0 s.\n"
        "  Wait until that one is done, or stop it.\n"
    )


def test_a_file_that_is_no_database_is_told_at_once(tmp_path):
    (tmp_path / "x.db").write_text("no database " * 100)
    with pytest.raises(TrackingError) as caught:
        open_client(f"sqlite:///{tmp_path}/x.db")
    assert str(caught.value) == (
        f"sqlite:///{tmp_path}/x.db: cannot be read: file is not a database.\n"
        "  Restore it from a copy, or choose another: tracking.uri=sqlite:///runs.db"
    )


def test_who_may_see_nothing_on_a_server_is_told_of_no_models(capsys):
    with odd_server(NO_RIGHTS) as server:
        assert main(["models", "list", f"tracking.uri={server.uri}"]) == 0
        assert "GET /version" in server.asked
    assert capsys.readouterr().out == "No model is registered yet; `odtrain train` registers one.\n"


def test_what_a_run_tells_a_proxy_that_says_nothing_is_kept_and_sent_later(
    tmp_path, database, said, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with odd_server(EMPTY) as server:
        config = section(TrackingConfig, **{**vars(QUIET), "uri": server.uri})
        with Tracker(config, tmp_path / "outputs").start("evaluate") as tracker:
            tracker.log({"eval/mAP": 0.5}, 1)
            tracker.log_text("hello", "note.txt")
    assert said[0].startswith(
        f"tracking: {server.uri} cannot be reached (its answer is empty). The run goes on"
    )
    store = str(store_at(tmp_path / "store", database).uri)
    (run_id,) = sync(tmp_path / "outputs", store)
    run = open_client(store).get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"eval/mAP": 0.5}, "FINISHED")
    assert [item.path for item in open_client(store).list_artifacts(run_id)] == [
        "note.txt",
        "run.log",
    ]


@pytest.mark.parametrize("way", [DRIPS, EMPTY, RUBBISH, CUT_OFF])
def test_what_is_sent_to_a_sick_server_stays(way, quick, tmp_path, said):
    config = section(TrackingConfig, **{**vars(QUIET), "uri": f"http://127.0.0.1:{free_port()}"})
    with Tracker(config, tmp_path / "outputs").start("train") as tracker:
        tracker.log({"train/loss": 0.5}, 1)
    before = (tracker.folder / "spool/journal.jsonl").read_text()
    with odd_server(way) as server, pytest.raises(TrackingError) as caught:
        sync(tracker.folder, server.uri)
    assert str(caught.value).endswith(f"{tracker.folder} keeps everything; try again later.")
    assert (tracker.folder / "spool/journal.jsonl").read_text() == before


def test_a_run_keeps_the_address_of_its_store_without_the_password(tmp_path, said):
    uri = f"http://bob:PASSWORD@127.0.0.1:{free_port()}"
    config = section(TrackingConfig, **{**vars(QUIET), "uri": uri})
    with Tracker(config, tmp_path / "outputs").start("train") as tracker:
        pass
    kept = tracker.folder / "run.json"
    assert json.loads(kept.read_text())["uri"] == uri.replace("PASSWORD", "***")
    assert kept.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TrackingError) as caught:
        sync(tracker.folder)
    assert str(caught.value) == (
        f"{uri.replace('PASSWORD', '***')}: its password is not kept with the run.\n"
        "  Give the address again: export MLFLOW_TRACKING_URI=..., or tracking.uri=..."
    )


def test_the_password_of_a_runs_store_is_that_of_the_environment(tmp_path, said, monkeypatch):
    uri = f"http://bob:PASSWORD@127.0.0.1:{free_port()}"
    config = section(TrackingConfig, **{**vars(QUIET), "uri": uri})
    with Tracker(config, tmp_path / "outputs").start("train") as tracker:
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError) as caught:
        sync(tracker.folder)
    assert str(caught.value) == (
        f"{uri.replace('PASSWORD', '***')}: cannot be reached: [Errno 111] Connection refused.\n"
        f"  {tracker.folder} keeps everything; try again later."
    )
