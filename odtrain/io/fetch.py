"""Files from the web: one URL at a time, bounded in size and time, never from this network unasked."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from odtrain.io.http_errors import BROKE_OFF, UNKNOWN_HOST, UNTRUSTED, reason, status
from odtrain.io.watched import watched_pools

ATTEMPTS = 3
WAIT_SECONDS = 1.0
"""Before the second attempt; each further wait is twice as long."""
LONGEST_WAIT = 30.0
"""A server that asks for a longer pause is not waited for."""
TIMEOUT_SECONDS = (10, 20)
"""To connect, and between two pieces."""
PICTURE_SECONDS = 60.0
PICTURE_BYTES = 100 * 2**20
MOST_REDIRECTS = 5
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may answer better soon (RFC 9110, RFC 6585, RFC 8470)."""


T = TypeVar("T")


class FetchError(Exception):
    """A URL gave no bytes; says why, in a few words."""


class SlowError(FetchError):
    """What a URL holds takes longer than allowed."""


class Fetcher:
    """Gets what URLs hold; may be used from many threads.

    Addresses of this machine and of private networks are refused unless `private`: a list from the
    web must not reach what only this machine can. The address is looked at where the connection
    has been made, so that neither a redirect nor a name that resolves differently gets around it.
    Behind a proxy the proxy decides.
    """

    def __init__(
        self, private: bool = False, allows: str = "--private", attempts: int = ATTEMPTS
    ) -> None:
        """`allows` is what the user gives to have private addresses; `attempts` where a server is away."""
        self._private = private
        self._allows = allows
        self._attempts = attempts
        self._sockets: dict[int, socket.socket] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make everything that is under way fail at once."""
        self._stopped.set()
        for thread in list(self._sockets):
            self._cut(thread)

    def get(self, url: str) -> bytes:
        """What `url` holds.

        Raises:
            FetchError: it is no http or https URL, its host is private, nobody answers, or what it
                holds is larger or takes longer than allowed.
        """
        return self.taken(url, self._body, PICTURE_SECONDS)

    def taken(self, url: str, take: Callable[[requests.Response], T], seconds: float) -> T:
        """What `take` makes of the answer, whose body it reads.

        Args:
            url: http or https.
            take: called once for each attempt.
            seconds: for one attempt as a whole: a server may not drip.

        Raises:
            FetchError: as of `get`.
        """
        if not url.lower().startswith(("http://", "https://")):
            raise FetchError("is not an http or https URL")
        for attempt in range(self._attempts):
            try:
                return self._in_time(url, take, seconds)
            except _Again as error:
                wait = max(WAIT_SECONDS * 2**attempt, error.wait)
                last = attempt == self._attempts - 1 or wait > LONGEST_WAIT
                if last or self._stopped.wait(wait):
                    tried = f" ({attempt + 1} attempts)" if self._attempts > 1 else ""
                    raise FetchError(f"{error}{tried}") from None
        raise AssertionError

    def _in_time(self, url: str, take: Callable[[requests.Response], T], seconds: float) -> T:
        thread = threading.get_ident()
        timer = threading.Timer(seconds, self._cut, [thread])
        timer.daemon = True
        begun = time.monotonic()
        timer.start()
        try:
            found = self._once(url, take)
            if time.monotonic() - begun >= seconds:  # cut, which looks like an end
                raise SlowError(f"takes longer than {seconds:.0f} s")
            return found
        except (requests.RequestException, HTTPError, OSError) as error:
            if time.monotonic() - begun >= seconds:
                raise SlowError(f"takes longer than {seconds:.0f} s") from None
            raise _understood(error) from None
        finally:
            timer.cancel()
            self._sockets.pop(thread, None)

    def _once(self, url: str, take: Callable[[requests.Response], T]) -> T:
        headers = {"Accept-Encoding": "identity", "User-Agent": "odtrain"}
        with requests.Session() as session:
            session.max_redirects = MOST_REDIRECTS
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter(self._watch))
            with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
                if answer.status_code in TRY_AGAIN:
                    raise _Again(status(answer), _asked_wait(answer))
                if not answer.ok:
                    raise FetchError(status(answer))
                return take(answer)

    def _body(self, answer: requests.Response) -> bytes:
        length = answer.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > PICTURE_BYTES:
            raise FetchError(f"has {int(length):,} bytes, more than {PICTURE_BYTES:,}")
        body = bytearray()
        while block := answer.raw.read1(2**16):
            body += block
            if len(body) > PICTURE_BYTES:
                raise FetchError(f"has more than {PICTURE_BYTES:,} bytes")
        return bytes(body)

    def _watch(self, connected: socket.socket) -> None:
        """Know the socket of this thread, to cut it; refuse it if it leads to a private address."""
        address = ipaddress.ip_address(connected.getpeername()[0].split("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if not self._private and not (mapped or address).is_global:
            connected.close()
            raise FetchError(
                f"leads to {address}, an address of this machine or network; {self._allows} allows it"
            )
        if self._stopped.is_set():
            connected.close()
            raise FetchError("was interrupted")
        self._sockets[threading.get_ident()] = connected

    def _cut(self, thread: int) -> None:
        try:
            self._sockets[thread].shutdown(socket.SHUT_RDWR)
        except (KeyError, OSError):  # it was not connected, or is closed
            pass


class _Again(Exception):
    """An attempt failed in a way that another may not, after `wait` seconds."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Adapter(HTTPAdapter):
    """Shows every new connection to `watch` before anything is sent through it."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = watched_pools(self._watch)


def _asked_wait(answer: requests.Response) -> float:
    """Seconds that the server asks to wait; 0 where it gives none, or a date."""
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _understood(error: Exception) -> Exception:
    """What a failed attempt comes to: worth another one, or not."""
    if isinstance(error, requests.TooManyRedirects):
        return FetchError(f"redirects more than {MOST_REDIRECTS} times")
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return FetchError("leads to what is no http or https URL")
    why = reason(error, BROKE_OFF)
    return FetchError(why) if why in (UNTRUSTED, UNKNOWN_HOST) else _Again(why)
