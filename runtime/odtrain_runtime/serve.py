"""A detector behind an address, by the standard library: POST a picture to /detect, GET /health."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from odtrain_runtime.answers import as_json, asked_score, failure, sent_picture
from odtrain_runtime.callers import CHALLENGE, LOOPBACK, NO_TOKEN, OPEN, own_names, refusal, shows
from odtrain_runtime.errors import OdtrainError
from odtrain_runtime.predictor import Detector
from odtrain_runtime.turns import PixelTurns, give_memory_back

IDLE_SECONDS = 30
"""After which a connection that says nothing is closed."""
REQUEST_SECONDS = 60
"""In which a request must have come as a whole: a caller may not drip."""
MOST_CONNECTIONS = 128
"""Open at once; one more is closed unanswered."""
BLOCK = 1 << 16
WITH_TOKEN = "  Who calls it shows the token: Authorization: Bearer TOKEN."


class AddressError(OdtrainError):
    """A server cannot listen where it is told to."""


@dataclass(frozen=True)
class Limits:
    """What is answered, and to whom.

    Attributes:
        threshold: the lowest score that is told, where a request names none.
        max_megabytes: of one request.
        max_megapixels: of one picture.
        allowed_hosts: names of the server, besides its address and the loopback ones.
        token: that callers must show; None where nobody is asked.
    """

    threshold: float = 0.5
    max_megabytes: float = 20
    max_megapixels: float = 50
    allowed_hosts: Sequence[str] = ()
    token: str | None = field(default=None, repr=False)


class DetectorServer(ThreadingHTTPServer):
    """Answers each connection in a thread of its own; as many pictures at a time as there are cores."""

    daemon_threads = True
    request_queue_size = 128
    """Connections that wait to be taken; the standard library's 5 resets those of a busy moment."""

    def __init__(self, detector: Detector, host: str, port: int, limits: Limits) -> None:
        """Listen at once.

        Raises:
            AddressError: the address cannot be had.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.detector, self.limits = detector, limits
        self.turns = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.pixels = PixelTurns()
        self.open: dict[socket.socket, float] = {}
        self.addresses = host not in LOOPBACK
        self.names = own_names(host, limits.allowed_hosts)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            remedy = "Choose another port (0 takes any free one), or an address of this machine."
            raise AddressError(
                f"{host} port {port}", f"cannot listen there: {reason}.", remedy
            ) from None

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread, unless there are too many."""
        if len(self.open) >= MOST_CONNECTIONS:
            return self.shutdown_request(request)
        self.open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut connections whose request has not come in time; twice a second."""
        late = time.monotonic() - REQUEST_SECONDS
        for request in [each for each, since in list(self.open.items()) if since < late]:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of callers that hang up."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: DetectorServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "odtrain-runtime", ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # else answers wait 40 ms for an ACK

    def do_GET(self) -> None:
        """Say that the server lives, and what its model finds to who may know."""
        if not self._refused("/health"):
            classes = {"classes": list(self.server.detector.class_names)}
            self._answer(200, {"status": "ok", **(classes if self._trusted() else {})})

    def do_POST(self) -> None:
        """Say what is in the picture that is sent."""
        if self._refused("/detect"):
            return
        body = self._body()
        if body is None:
            return
        self.server.open[self.connection] = math.inf  # it has come
        try:
            self._answer(200, self._found(body))
        except OdtrainError as error:
            status, message = failure(error)
            self._answer(status, {"message": message})

    def _found(self, body: bytes) -> Mapping[str, Any]:
        limits, detector = self.server.limits, self.server.detector
        asked = parse_qs(urlsplit(self.path).query, keep_blank_values=True).get("threshold")
        threshold = asked_score(asked[-1]) if asked else limits.threshold
        with (
            self.server.turns,
            sent_picture(body, limits.max_megapixels, self.server.pixels) as image,
        ):
            begun = time.perf_counter()
            found = detector.detect(image)
            milliseconds = 1000 * (time.perf_counter() - begun)
            return as_json(image, found.above(threshold), detector.class_names, milliseconds)

    def _refused(self, path: str) -> bool:
        """Whether the request was answered with why it is not this address's, or not for the caller."""
        foreign = refusal(self.headers.get, self.server.names, self.server.addresses)
        known = urlsplit(self.path).path == path
        trusted = path in OPEN or self._trusted()
        if foreign is not None:
            self._give_up(403, foreign.strip())
        elif not known:
            self._give_up(404, "POST a picture to /detect, or GET /health.")
        elif not trusted:
            self._give_up(401, NO_TOKEN, CHALLENGE)
        return foreign is not None or not known or not trusted

    def _trusted(self) -> bool:
        token = self.server.limits.token
        return token is None or shows(self.headers.get, token)

    def _body(self) -> bytes | None:
        """The request's body; None once it was refused."""
        length = self.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            self._give_up(411, "The request does not say how long it is (Content-Length).")
            return None
        megabytes = self.server.limits.max_megabytes
        if int(length) > round(megabytes * 1_000_000):
            self._give_up(413, f"The request is larger than {megabytes:g} MB.")
            return None
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else None

    def _give_up(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer, and read what is still sent: a caller whose sending fails sees no answer."""
        self.close_connection = True
        self._answer(status, {"message": message}, headers or {})
        left = 2 * round(self.server.limits.max_megabytes * 1_000_000)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and (block := self.rfile.read1(BLOCK)):
                left -= len(block)

    def _answer(
        self, status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        self.server.open[self.connection] = time.monotonic()  # for the next request
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not told."""


def serve(detector: Detector, host: str, port: int, limits: Limits) -> None:
    """Serve `detector` until Ctrl-C or SIGTERM; say where.

    Raises:
        AddressError: the address cannot be had.
    """
    with DetectorServer(detector, host, port, limits) as server:
        give_memory_back()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        shown = f"[{host}]" if ":" in host else host
        print(f"serve: http://{shown}:{server.server_port}/detect  (Ctrl-C ends it)", flush=True)
        if limits.token is not None:
            print(WITH_TOKEN, flush=True)
        elif server.addresses:
            print("  Whoever reaches this address can use it: nobody is asked for a password.")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
