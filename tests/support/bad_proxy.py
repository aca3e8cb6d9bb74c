"""A proxy in front of a real server, whose manners can be spoilt for a while."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANNERS = ("good", "slow", "dripping", "looping", "cut off", "rubbish", "empty", "failing")


OWN = ("host", "transfer-encoding")
"""Headers that are of this connection, not of what is asked."""


class BadProxy:
    """Forwards everything to `port` while `manners` is good.

    Attributes:
        manners: one of `MANNERS`; may be changed at any time.
        uri: where it listens.
    """

    def __init__(self, port: int) -> None:
        self.manners = "good"
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing."""

            def _any(self) -> None:
                body = self._body()
                manners = proxy.manners
                if manners == "good":
                    self._forward(body)
                elif manners == "slow":
                    time.sleep(8)
                    self._forward(body)
                else:
                    self._spoilt(manners)

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                chunks = []  # as an empty file is sent
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size + 2)[:-2])
                self.rfile.readline()
                return b"".join(chunks)

            def _forward(self, body: bytes) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in OWN}
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                    self.send_response(answer.status)
                    for key, value in answer.getheaders():
                        if key.lower() not in ("transfer-encoding", "content-length", "connection"):
                            self.send_header(key, value)
                    self._end(content)
                except OSError:
                    self.close_connection = True
                finally:
                    connection.close()

            def _end(self, content: bytes) -> None:
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _spoilt(self, manners: str) -> None:
                self.close_connection = True
                try:
                    self._answer(manners)
                except OSError:
                    pass  # the client has had enough

            def _answer(self, manners: str) -> None:
                if manners == "looping":
                    self.send_response(302)
                    self.send_header("Location", self.path)
                    self._end(b"")
                elif manners == "dripping":
                    self.send_response(200)
                    self.send_header("Content-Length", "100000")
                    self.end_headers()
                    while proxy.manners == "dripping":
                        self.wfile.write(b" ")
                        time.sleep(1)
                elif manners == "cut off":
                    self.send_response(200)
                    self.send_header("Content-Length", "100000")
                    self.end_headers()
                    self.wfile.write(b'{"run": ')
                elif manners == "failing":
                    self.send_response(503)
                    self._end(b"no")
                else:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self._end(b"{}" if manners == "empty" else bytes(range(256)))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _any

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()
