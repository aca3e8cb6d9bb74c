"""A store that is locked, slow, away or out of its mind in the middle of a training."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from support.bad_proxy import MANNERS, BadProxy
from support.faults import SETTINGS, WHOLE, Training, note
from support.postgres import Postgres
from support.stores import Server, migrated_database

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

SECONDS = 20
"""How long a server misbehaves."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    migrated_database(folder)
    server = Server(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def of_server(server, shapes, tmp_path):
    """A training whose store is a server behind a proxy of good manners, in an experiment of its own."""
    proxy = BadProxy(server.port)
    folder = tmp_path / "work"
    folder.mkdir()
    settings = [f"data.images={shapes}", *SETTINGS, f"tracking.experiment={tmp_path.name}"]
    settings = [*settings, f"registry.name={tmp_path.name}"]
    training = Training(folder, proxy.uri, settings, tmp_path.name)
    yield training, proxy
    proxy.close()


def in_training(training):
    """A training that has made its second step."""
    command = training.begin()
    command.until("2/14 [")
    return command


@pytest.mark.parametrize("manners", MANNERS[1:])
def test_a_server_in_the_middle_of_a_training(of_server, manners):
    training, proxy = of_server
    command = in_training(training)
    proxy.manners = manners
    time.sleep(SECONDS)
    proxy.manners = "good"
    done = command.wait()
    assert done.rc == 0, done.said
    training.check_whole(f"the server is {manners} for {SECONDS} s in training", done)


@pytest.mark.parametrize("manners", MANNERS[2:])
def test_a_server_that_does_not_come_back_before_the_end(of_server, manners):
    training, proxy = of_server
    command = in_training(training)
    proxy.manners = manners
    done = command.wait()
    proxy.manners = "good"
    assert done.rc == 0, done.said
    training.check_whole(f"the server is {manners} from the third step on", done)


def test_a_server_that_is_restarted(of_server, server):
    training, _ = of_server
    command = in_training(training)
    server.stop()
    server.start()
    done = command.wait()
    assert done.rc == 0, done.said
    training.check_whole("the server is killed and started again in training", done)


def test_a_database_that_is_locked_for_a_minute(training):
    command = in_training(training)
    lock = sqlite3.connect(training.folder / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    time.sleep(60)
    lock.execute("ROLLBACK")
    lock.close()
    done = command.wait()
    assert done.rc == 0, done.said
    training.check_whole("SQLite is locked for 60 s in training", done)


@pytest.fixture
def open_place():
    """A folder that other users may enter, as PostgreSQL's must: pytest's are closed to them."""
    place = Path(tempfile.mkdtemp(prefix="odtrain-postgres-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_postgresql_that_is_restarted(shapes, open_place, tmp_path_factory):
    postgres = Postgres(open_place)
    try:
        folder = tmp_path_factory.mktemp("work")
        training = Training(folder, postgres.url, [f"data.images={shapes}", *SETTINGS])
        command = in_training(training)
        postgres.stop()
        time.sleep(5)
        postgres.start()
        done = command.wait()
        training.sync()
        state = training.state()
    finally:
        postgres.stop()
    note("PostgreSQL is restarted in training", done, state)
    assert done.rc == 0, done.said
    assert state == WHOLE
