"""A file server for tests, which breaks off, lies, or counts what it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer


@dataclass
class Server:
    """A file server that can be told to misbehave.

    Attributes:
        content: of its only file, /zoo.tar.gz.
        url: of that file.
        breaks: after how many bytes each of the next answers breaks off.
        ranges: whether it can go on where it stopped.
        asked: the Range header of every request.
        tag: the ETag of the content, if it gives one.
    """

    content: bytes
    url: str = ""
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)
    tag: str | None = None


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A server of `content` on a free port of this machine."""
    state = Server(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if self.path != "/zoo.tar.gz":
                return self.send_error(404)
            same = self.headers.get("If-Range") in (None, state.tag)
            fits = wanted and state.ranges and same
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if fits else 0
            if start >= len(state.content):
                return self.send_error(416)
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if state.tag:
                self.send_header("ETag", state.tag)
            self.end_headers()
            self.wfile.write(body[: state.breaks.pop(0)] if state.breaks else body)

        def log_message(self, *_: object) -> None:
            pass

    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        state.url = f"{address}/zoo.tar.gz"
        yield state


@contextmanager
def listening(http: HTTPServer) -> Iterator[str]:
    """The address of a server that answers for a while."""
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
