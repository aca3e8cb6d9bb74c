"""MLflow's server as `odtrain server` runs it: with bounds, and for its own pages and folder alone.

MLflow takes requests from whatever page of localhost, bodies of any size, and experiments whose artifacts
lie anywhere on the server's disk, from where it would then read them to whoever asks.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from odtrain.io.connections import BODY_SECONDS, PatientProtocol
from odtrain.tracking.sign_in import MLFLOWS_AUTH, OURS_AUTH, settle
from odtrain_runtime.callers import foreign_origin

MOST_BYTES = 20_000_000
"""Of a request that is not a file; MLflow's clients send about one million at a time."""
UPLOADS = "/mlflow-artifacts/artifacts/"
"""Files, which MLflow writes to disk as they come."""
LOCATIONS = ("artifactlocation", "artifacturi", "artifactroot", "defaultartifactroot")
"""Keys of requests that say where artifacts lie, as protobuf reads them: in any spelling."""
TRACE_LOCATION = "mlflow.artifactLocation"
SCHEMES = ("mlflow-artifacts", "models", "runs")
"""By which artifacts are in the server's own folder."""
CONNECTIONS = f"{PatientProtocol.__module__}:{PatientProtocol.__name__}"
"""What uvicorn imports for them."""
MLFLOWS = "mlflow.server.fastapi_app:app"
OURS = {MLFLOWS: "odtrain.tracking.guarded_mlflow:app", MLFLOWS_AUTH: OURS_AUTH}
"""What uvicorn runs in place of MLflow's own."""


class RefusedError(Exception):
    """A request is not taken; says the status and why."""


class Guarded:
    """MLflow's application behind what it does not look at."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is refused; hand on the rest as it came."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            if foreign_origin(Headers(scope=scope).get):
                raise RefusedError(403, "Other sites may not use this server.")
            if UPLOADS not in scope["path"]:
                receive = _replayed(await _read_in_time(scope, receive), receive)
        except RefusedError as refused:
            status, said = refused.args
            return await PlainTextResponse(f"{said}\n", status)(scope, receive, send)
        return await self._app(scope, receive, send)


async def _read_in_time(scope: Scope, receive: Receive) -> list[Message]:
    """As `_read`, which may take `BODY_SECONDS`."""
    try:
        return await asyncio.wait_for(_read(scope, receive), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise RefusedError(408, "The request did not come in time.") from None


async def _read(scope: Scope, receive: Receive) -> list[Message]:
    """A request that is no file, as it was sent.

    Raises:
        RefusedError: it is too large, or names a place that is not this server's.
    """
    messages, size = [], int(Headers(scope=scope).get("content-length") or 0)
    body = bytearray()
    more = size <= MOST_BYTES
    while more:
        message = await receive()
        messages.append(message)
        body += message.get("body", b"")
        more = message.get("more_body", False) and len(body) <= MOST_BYTES
    if max(size, len(body)) > MOST_BYTES:
        raise RefusedError(413, f"The request is larger than {MOST_BYTES // 1_000_000} MB.")
    _check_places(scope["path"], bytes(body))
    return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replay() -> Message:
        return next(waiting, None) or await receive()

    return replay


def _check_places(path: str, body: bytes) -> None:
    try:
        content = json.loads(body) if body else None
        content = json.loads(content) if isinstance(content, str) else content  # as MLflow reads it
    except RecursionError:
        raise RefusedError(400, "The request is nested too deep.") from None
    except ValueError:
        return
    for place in _places(content, path.endswith("/model-versions/create")):
        address = urlsplit(place)
        if place and (address.scheme not in SCHEMES or address.netloc):
            said = "Artifacts lie in this server's own folder: leave the location out."
            raise RefusedError(403, said)


def _places(content: Any, version: bool) -> Iterator[str]:
    """Where a request would have artifacts; of a version, its source is that too."""
    if isinstance(content, list):
        for each in content:
            yield from _places(each, version)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        plain = key.replace("_", "").lower()
        named = plain in LOCATIONS or key == TRACE_LOCATION or (version and plain == "source")
        if isinstance(value, str) and named:
            yield value
        yield from _places(value, version)
    if content.get("key") == TRACE_LOCATION and isinstance(content.get("value"), str):
        yield content["value"]


def __getattr__(name: str) -> Any:
    """`app`, made when a server process asks for it."""
    if name != "app":
        raise AttributeError(name)
    from mlflow.server.fastapi_app import app as mlflows

    return Guarded(mlflows)


def main() -> None:
    """`mlflow server`, whose processes run `app` in place of MLflow's own.

    Raises:
        RuntimeError: this MLflow starts its server in another way.
    """
    from mlflow import cli, server

    build: Any = server._build_uvicorn_command

    def guarded(*given: Any, **named: Any) -> list[str]:
        command: list[str] = build(*given, **named)
        if command[-1] not in OURS:
            raise RuntimeError(f"MLflow would run {command[-1]}, not {MLFLOWS}")
        return [*command[:-1], "--http", CONNECTIONS, OURS[command[-1]]]

    server._build_uvicorn_command = guarded
    if "--app-name" in sys.argv:
        settle()
    sys.argv[0] = "mlflow"
    cli.cli(["server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
