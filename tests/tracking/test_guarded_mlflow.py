"""What `odtrain server` refuses before MLflow sees it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from support.stores import free_port, store_at, wait_until_healthy

from odtrain.tracking import guarded_mlflow
from odtrain.tracking.guarded_mlflow import MOST_BYTES, Guarded
from odtrain.tracking.server import _environment

CREATE = "/api/2.0/mlflow/experiments/create"
OTHERS = "Other sites may not use this server.\n"
ELSEWHERE = "Artifacts lie in this server's own folder: leave the location out.\n"


def ask(
    body: bytes = b"", path: str = CREATE, headers: dict[str, str] | None = None
) -> tuple[int, str, bytes]:
    """Status and text of the answer, and what reached MLflow."""
    seen, sent = bytearray(), []

    async def mlflow(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            seen.extend(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    blocks = [body[i : i + 2**20] for i in range(0, len(body), 2**20)] or [b""]

    async def receive() -> dict[str, Any]:
        block = blocks.pop(0)
        return {"type": "http.request", "body": block, "more_body": bool(blocks)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    named = {"host": "localhost:5000", **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw}
    asyncio.run(Guarded(mlflow)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode(), bytes(seen)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:5000", "null"])
def test_a_page_of_another_port_of_this_machine_is_refused(origin):
    assert ask(headers={"origin": origin}) == (403, OTHERS, b"")


def test_its_own_pages_and_programs_are_answered():
    assert ask(b"{}", headers={"origin": "http://localhost:5000"}) == (200, "done", b"{}")
    assert ask(b"{}") == (200, "done", b"{}")


@pytest.mark.parametrize("said", [True, False])
def test_a_large_body_is_refused_before_it_is_held(said):
    headers = {"content-length": str(MOST_BYTES + 1)} if said else None
    status, text, seen = ask(b"x" * (MOST_BYTES + 1), headers=headers)
    assert (status, text, seen) == (413, "The request is larger than 20 MB.\n", b"")


def test_a_file_may_be_larger():
    path = "/api/2.0/mlflow-artifacts/artifacts/1/model.tflite"
    assert ask(b"x" * (MOST_BYTES + 1), path)[0] == 200


def test_a_body_that_does_not_come_is_refused(monkeypatch):
    monkeypatch.setattr(guarded_mlflow, "BODY_SECONDS", 0.1)
    sent = []

    async def nothing() -> dict[str, Any]:
        await asyncio.sleep(10)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CREATE, "headers": [(b"host", b"localhost")]}
    asyncio.run(Guarded(nothing)(scope, nothing, send))
    assert (sent[0]["status"], sent[1]["body"]) == (408, b"The request did not come in time.\n")


def test_a_deep_body_is_refused():
    assert ask(b"[" * 100_000)[:2] == (400, "The request is nested too deep.\n")


VERSION = "/api/2.0/mlflow/model-versions/create"


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"name": "x", "artifact_location": "file:///etc"}, CREATE),
        ({"name": "x", "artifactLocation": "/etc"}, CREATE),
        (json.dumps({"artifact_location": "file:///etc"}), CREATE),
        ({"artifact_location": "http://169.254.169.254/"}, CREATE),
        ({"artifact_location": "mlflow-artifacts://other:5000/1"}, CREATE),
        ({"name": "x", "source": "file:///etc"}, VERSION),
        ({"tags": [{"key": "mlflow.artifactLocation", "value": "/etc"}]}, "/api/2.0/mlflow/traces"),
    ],
)
def test_artifacts_outside_its_folder_are_refused(content, path):
    assert ask(json.dumps(content).encode(), path)[:2] == (403, ELSEWHERE)


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"name": "x"}, CREATE),
        ({"name": "x", "artifact_location": ""}, CREATE),
        ({"name": "x", "artifact_location": "mlflow-artifacts:/1"}, CREATE),
        ({"name": "x", "source": "models:/m-1"}, VERSION),
        (
            {"datasets": [{"dataset": {"source": "/home/me/pictures"}}]},
            "/api/2.0/mlflow/log-inputs",
        ),
    ],
)
def test_what_clients_send_is_let_through(content, path):
    body = json.dumps(content).encode()
    assert ask(body, path) == (200, "done", body)


# ---- the server itself


@pytest.fixture(scope="module")
def served(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's server as `odtrain server` starts it, over SQLite."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    store = store_at(folder, database)
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "odtrain.tracking.guarded_mlflow", *options],
            cwd=folder,
            env=_environment(str(store.uri), str(folder / "artifacts")),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_the_server_itself_refuses_what_mlflow_would_take(served):
    made, foreign = {"name": "x"}, {"Origin": "http://localhost:3000"}
    elsewhere = {**made, "artifact_location": "file:///etc"}
    large = {**made, "tags": [{"key": "k", "value": "x" * MOST_BYTES}]}

    def post(content: dict[str, Any], headers: dict[str, str] | None = None) -> tuple[int, str]:
        answer = requests.post(f"{served}{CREATE}", json=content, headers=headers, timeout=60)
        return answer.status_code, answer.text

    assert post(made, foreign) == (403, OTHERS)
    assert post(elsewhere) == (403, ELSEWHERE)
    assert post(large) == (413, "The request is larger than 20 MB.\n")
    assert post(made)[0] == 200
