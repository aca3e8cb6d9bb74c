"""HTTP requests that end, whatever the server does: small ones by a deadline, files by a least rate."""

from __future__ import annotations

import socket
import struct
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from odtrain.io.watched import watched_pools

LEAST_RATE = 10_000
"""Bytes a second of a file, either way, measured over `RATE_SECONDS`."""
RATE_SECONDS = 60.0
CONNECTS = 2.4
"""How often connecting fits into a deadline: it is tried twice."""
BYTES_ACKED = 120
"""Where Linux's `struct tcp_info` has the bytes that went out and, behind it, those that came in."""


class _Guard:
    """Cuts the connection of a request whose time is over."""

    def __init__(self, seconds: float | None) -> None:
        """`seconds` for all of it; None where the rate decides."""
        self.seconds = seconds
        self.cut = False
        self._socket: socket.socket | None = None
        self._body: weakref.ref[Any] | None = None
        self._ended = threading.Event()

    @property
    def words(self) -> str:
        if self.seconds is None:
            return f"less than {LEAST_RATE // 1000} kB a second over {RATE_SECONDS:.0f} s"
        return f"no whole answer within {self.seconds:.0f} s"

    def __enter__(self) -> _Guard:
        watch = self._until_deadline if self.seconds is not None else self._at_least_rate
        threading.Thread(target=watch, name="odtrain-deadline", daemon=True).start()
        _here.guard = self
        return self

    def __exit__(self, *_: object) -> None:
        _here.guard = None
        if self._body is None:
            self._ended.set()

    def until_read(self, answer: requests.Response) -> None:
        """Go on behind this block until the body of an answer was read."""
        self._body = weakref.ref(answer.raw)

    def watch(self, connected: socket.socket) -> None:
        """From now on this is the connection."""
        if self.cut:
            connected.close()
            raise OSError(self.words)
        self._socket = connected

    def _until_deadline(self) -> None:
        if not self._ended.wait(self.seconds):
            self._cut()

    def _at_least_rate(self) -> None:
        before, since = _moved(self._socket), time.monotonic()
        while not self._ended.wait(min(1.0, RATE_SECONDS / 4)) and not self._is_read():
            if time.monotonic() - since < RATE_SECONDS:
                continue
            now, since = _moved(self._socket), time.monotonic()
            if now is not None and now - (before or 0) < LEAST_RATE * RATE_SECONDS:
                return self._cut()
            before = now

    def _is_read(self) -> bool:
        if self._body is None:
            return False
        body = self._body()
        return body is None or bool(body.closed)

    def _cut(self) -> None:
        self.cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


_here = threading.local()


def _watch(connected: socket.socket) -> None:
    guard: _Guard | None = getattr(_here, "guard", None)
    if guard is not None:
        guard.watch(connected)


def _moved(connected: socket.socket | None) -> int | None:
    """Bytes that a connection has carried both ways; None where the system does not say."""
    if connected is None:
        return None
    try:
        told = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return int(sum(struct.unpack_from("QQ", told, BYTES_ACKED)))
    except (AttributeError, OSError, struct.error):
        return None


WATCHED = watched_pools(_watch, kept_alive=True)


class DeadlineAdapter(HTTPAdapter):
    """Sends small requests within the time-out they are given, all attempts and the answer together.

    A file that is sent, and an answer that is read in pieces, may take as long as they go on at `LEAST_RATE`.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As the class before it; the connections of its pools are watched."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = WATCHED

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """As the class before it; what goes through a proxy is watched as well, but for SOCKS."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = WATCHED
        return manager

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> requests.Response:
        """Send, and have the whole answer unless it is a stream.

        Raises:
            requests.ReadTimeout: it took too long.
        """
        small = (
            not stream and not hasattr(request.body, "read") and isinstance(timeout, int | float)
        )
        guard = _Guard(float(timeout) if small else None)
        waits = (timeout / CONNECTS, timeout) if isinstance(timeout, int | float) else timeout
        with guard:
            try:
                answer = super().send(request, stream, waits, *args, **kwargs)
                if stream:
                    guard.until_read(answer)
                else:
                    _ = answer.content
            except (requests.RequestException, OSError):
                if guard.cut:
                    raise requests.ReadTimeout(guard.words, request=request) from None
                raise
            if guard.cut:  # what came until then may look whole
                raise requests.ReadTimeout(guard.words, request=request)
        vars(answer)["guard"] = guard
        return answer


def check_whole(answer: requests.Response) -> None:
    """Refuse what was read of a file whose connection was cut: it may look whole.

    Raises:
        requests.ReadTimeout: it was too slow.
    """
    guard = vars(answer).get("guard")
    if guard is not None and guard.cut:
        raise requests.ReadTimeout(guard.words)
