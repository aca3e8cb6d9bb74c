"""`odtrain ui`: pages that are there when it says so."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
import requests
from mlflow import MlflowClient

from odtrain.cli.main import main
from odtrain.errors import TrackingError
from odtrain.tracking.mlflow_process import served
from tests.support.stores import free_port


@pytest.fixture
def store(tmp_path):
    """The address of a store with one run."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    client.create_run("0")
    return uri


def test_the_address_is_told_when_it_answers_and_ctrl_c_ends_it_without_a_word(store, tmp_path):
    port = free_port()
    shown = subprocess.Popen(
        [sys.executable, "-m", "odtrain", "ui", f"tracking.uri={store}", "--port", str(port)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    told = [shown.stdout.readline() for _ in range(2)]
    answered = requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code
    os.killpg(shown.pid, signal.SIGINT)
    _, progress = shown.communicate(timeout=30)
    address = f"http://127.0.0.1:{port}/#/experiments/0/runs?workflowType=machine_learning"
    assert told == [
        f"Open {address}&compareRunsMode=CHART (Ctrl-C ends it)\n",
        f"  or {address}&compareRunsMode=TABLE\n",
    ]
    assert (answered, shown.returncode) == (200, 0)
    assert all(line.endswith((" ...", " so far")) for line in progress.splitlines())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_said_before_anybody_waits(store, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["ui", f"tracking.uri={store}", "--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"--host 127.0.0.1 --port {port}: cannot be listened at: Address already in use.\n"
        "  Give another: odtrain ui --port 5001\n"
    )


def test_a_server_that_does_not_start_leaves_its_last_words_and_what_to_do(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such table')"]
    health = f"http://127.0.0.1:{free_port()}/health"
    with (
        pytest.raises(TrackingError) as error,
        served(command, dict(os.environ), health, tmp_path / "log", tmp_path, "Look elsewhere."),
    ):
        pass
    assert str(error.value) == (
        f"{health}: MLflow's server does not start: no such table\n  Look elsewhere."
    )
