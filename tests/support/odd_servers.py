"""Servers on loopback that are no MLflow, or a sick one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.file_server import listening

DRIPS, EMPTY, RUBBISH, CUT_OFF, WRONG = "drips", "empty", "rubbish", "cut off", "wrong"
MUTE = "mute"
SLOW = "slow"
"""Has twenty models without versions, and takes its time to say so."""
NO_RIGHTS = "no rights"
"""MLflow, to who may see nothing."""
ALL = (DRIPS, EMPTY, RUBBISH, CUT_OFF, WRONG, MUTE)
BODIES = {
    EMPTY: b"{}",
    DRIPS: b" " * 1000 + b"{}",
    RUBBISH: b"<html><body>Sign in, please</body></html>",
    CUT_OFF: b'{"experiments": [',
    WRONG: b'{"experiments": 5, "experiment": [], "registered_models": "x", "run": 1, "model_versions": {}}',
    MUTE: b"",
    NO_RIGHTS: b"{}",
    SLOW: json.dumps({"registered_models": [{"name": f"m{i}"} for i in range(20)]}).encode(),
}


@dataclass
class OddServer:
    """What it does, and what it was asked.

    Attributes:
        uri: where it is.
        asked: method and path of every request.
        way: one of `ALL`; may be changed while it runs.
        pause: seconds before each answer.
    """

    uri: str
    way: str
    pause: float = 0.0
    asked: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def odd_server(way: str, pause: float = 0.0) -> Iterator[OddServer]:
    """A server that answers everything in its own way, each time after `pause` seconds."""
    state = OddServer("", way, pause)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            state.asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = BODIES[state.way]
            if state.way == NO_RIGHTS and self.path == "/version":
                body = b"3.1.0"
            if state.ended.wait(state.pause):
                return
            if state.way == MUTE:
                state.ended.wait(60)
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) + 100 * (state.way == CUT_OFF)))
            self.end_headers()
            for place in range(len(body)) if state.way == DRIPS else ():
                self.wfile.write(body[place : place + 1])
                if state.ended.wait(0.2):
                    return
            if state.way != DRIPS:
                self.wfile.write(body)
            self.close_connection = state.way == CUT_OFF

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hung up."""

    with listening(Quiet(("127.0.0.1", 0), Handler)) as state.uri:
        try:
            yield state
        finally:
            state.ended.set()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port at which connections are taken, and nothing is said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield listening.getsockname()[1]
