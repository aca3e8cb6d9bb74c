"""MLflow's own server as a child process: there when it answers, gone with all its workers when it is left."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from odtrain.errors import ConfigError, TrackingError
from odtrain.system.progress import doing

START_SECONDS = 300
"""A new database is filled with tables before the server answers."""


class _Stopped(Exception):
    """SIGTERM or Ctrl-C."""


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and Ctrl-C are how one ends: what is inside is left, without an error."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with contextlib.suppress(_Stopped):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_port(host: str, port: int, command: str) -> None:
    """Let nobody wait for a server that cannot listen.

    Raises:
        ConfigError: the port is taken, or there is no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as problem:
            raise ConfigError(
                f"--host {host} --port {port}",
                f"cannot be listened at: {getattr(problem, 'strerror', None) or problem}.",
                f"Give another: {command} --port 5001",
            ) from None


@contextlib.contextmanager
def served(
    command: Sequence[str],
    environment: Mapping[str, str],
    health: str,
    log: Path,
    folder: Path,
    remedy: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """The server that answers; it and its workers are stopped at the end.

    Args:
        command: that starts it.
        environment: of its process.
        health: the address that answers when it does.
        log: what it says is added to it.
        folder: where it works.
        remedy: what to do where it does not start.

    Raises:
        TrackingError: it does not start.
    """
    with log.open("ab") as stream:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    try:
        with doing("Starting MLflow"):
            _wait(server, health, log, remedy)
        yield server
    finally:
        _end(server)


def _wait(server: subprocess.Popen[bytes], url: str, log: Path, remedy: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if answers(url):
            return
        time.sleep(0.3)
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    last = text.splitlines()[-1] if text else "it said nothing"
    raise TrackingError(url, f"MLflow's server does not start: {last}", remedy)


def answers(url: str, user: tuple[str, str] | None = None) -> bool:
    """Whether a server of this machine, whose certificate may be for another name, answers with success.

    Args:
        url: of what is asked for.
        user: name and password, as whom to ask.
    """
    parts = urlsplit(url)
    place = parts.hostname or "", parts.port
    connection = http.client.HTTPConnection(*place, timeout=5)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(*place, timeout=5, context=context)
    sent = base64.b64encode(":".join(user).encode()).decode() if user else None
    try:
        headers = {"Authorization": f"Basic {sent}"} if sent else {}
        connection.request("GET", parts.path, headers=headers)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(server: subprocess.Popen[bytes]) -> None:
    """Stop the server and its workers."""
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)
            if not _group_lives(server.pid):
                return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
