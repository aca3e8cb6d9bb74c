"""The queue at a registered model, on a real store."""

from __future__ import annotations

import threading
import time

import pytest
from mlflow import MlflowClient
from support.stores import store_at

from odtrain.errors import TrackingError
from odtrain.registry import lock as lease_module
from odtrain.registry.lock import QUEUE, Lease, alone_at
from odtrain.tracking.store import open_client


@pytest.fixture
def client(tmp_path, database) -> MlflowClient:
    client = open_client(str(store_at(tmp_path, database).uri))
    client.create_registered_model("m")
    return client


def queue(client):
    return [key for key in client.get_registered_model("m").tags if key.startswith(QUEUE)]


def test_one_at_a_time(client, monkeypatch):
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.02)
    inside, most, turns = 0, 0, []

    def work(number: int) -> None:
        nonlocal inside, most
        for _ in range(2):
            with alone_at(client, "m"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.02)
                turns.append(number)
                inside -= 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert sorted(turns) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert queue(client) == []


@pytest.mark.parametrize("left", ["1 1", "0 1", "not a number"])
def test_what_a_killed_process_left_is_cleared_away(client, monkeypatch, left):
    monkeypatch.setattr(lease_module, "DEAD_SECONDS", 0.3)
    client.set_registered_model_tag("m", f"{QUEUE}dead", left)
    with alone_at(client, "m") as lease:
        assert queue(client) == [lease.key]


def test_one_that_renews_its_place_is_waited_for(client, monkeypatch):
    monkeypatch.setattr(lease_module, "DEAD_SECONDS", 0.6)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.1)
    first = Lease(client, "m")
    first.acquire()
    got = threading.Event()

    def second() -> None:
        with alone_at(client, "m"):
            got.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not got.wait(1.5)
    first.check()
    first.release()
    thread.join()
    assert got.is_set()


def test_one_that_was_taken_for_dead_does_not_go_on(client):
    lease = Lease(client, "m")
    lease.acquire()
    client.delete_registered_model_tag("m", lease.key)
    with pytest.raises(TrackingError) as caught:
        lease.check()
    assert str(caught.value) == (
        "models:/m: this process was held up for so long that others went on without it.\n  Try again."
    )
    lease.release()


def test_an_error_inside_lets_the_next_one_in(client):
    with pytest.raises(ValueError), alone_at(client, "m"):
        raise ValueError
    assert queue(client) == []
