"""What strangers may cost a page: connections, waiting, and memory; every bound of this room."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST_CONNECTIONS = 128
"""Open at once; for one more, the one is closed that has waited longest without asking anything."""
HEAD_SECONDS = 10.0
"""In which the head of a request must have come."""
BODY_SECONDS = 60.0
"""In which a request's body must have come."""
ANSWER_SECONDS = 300.0
"""In which a request must have been answered, and the answer fetched."""
MOST_HELD = 200_000_000
"""Bytes of bodies of all requests together."""
MOST_PICTURES = 1000
"""In one request to `/invocations`."""
LONGEST_MESSAGE = 1000
"""Letters of an error that is answered."""
LONGEST_BOXES = 1 << 20
"""Bytes of the boxes that come with a frame to save."""
MOST_SAVED = 10_000
"""Frames that one `odtrain webcam` saves."""


class TooLargeError(Exception):
    """A request's body is larger than what is taken."""


class SlowError(Exception):
    """A request's body did not come in time."""


class BusyError(Exception):
    """Other requests hold as much as may be held."""


def refused(message: str, status: int) -> Response:
    """An answer that is no result."""
    return JSONResponse({"message": message}, status)


REFUSALS: Mapping[Any, Any] = {
    SlowError: lambda request, error: refused("The request did not come in time.", 408),
    BusyError: lambda request, error: refused("The server is busy: ask again later.", 503),
}
"""Exception handlers that every page has."""


class Bodies:
    """The bodies of requests under way."""

    def __init__(self) -> None:
        self._held = 0

    @asynccontextmanager
    async def of(self, request: Request, limit: int) -> AsyncIterator[bytes]:
        """A request's body of at most `limit` bytes, for as long as it is needed.

        Raises:
            TooLargeError, SlowError, BusyError: it is not to be had.
        """
        body, whole = bytearray(), b""
        try:
            await asyncio.wait_for(self._read(request, body, limit), BODY_SECONDS)
            whole = bytes(body)
            body.clear()
            yield whole
        except asyncio.TimeoutError:
            raise SlowError from None
        finally:
            self._held -= len(body) + len(whole)

    async def _read(self, request: Request, body: bytearray, limit: int) -> None:
        async for block in request.stream():
            body += block
            self._held += len(block)
            if len(body) > limit:
                raise TooLargeError
            if self._held > MOST_HELD:
                raise BusyError


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # h11's or httptools'
    """uvicorn's connection, which waits for the head of a request for a while only."""

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or another's place where there are too many."""
        super().connection_made(transport)
        self.waits_since = self.loop.time()
        self.closes_since: float | None = None
        there = list(self.connections)
        waiting = [each for each in there if each.waits or each.transport.is_closing()]
        if len(there) > MOST_CONNECTIONS and waiting:
            min(waiting, key=lambda each: each.waits_since).transport.abort()
        self.loop.call_later(HEAD_SECONDS, self._look)

    @property
    def waits(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self.waits_since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        if self not in self.connections:  # it is gone
            return
        now = self.loop.time()
        if self.transport.is_closing():  # what is left of its answer is not fetched
            self.closes_since = now if self.closes_since is None else self.closes_since
            if now - self.closes_since >= ANSWER_SECONDS:
                self.transport.abort()
            else:
                self.loop.call_later(HEAD_SECONDS, self._look)
            return
        left = self.waits_since + HEAD_SECONDS - now if self.waits else HEAD_SECONDS
        if left <= 0:
            self.transport.abort()
        else:
            self.loop.call_later(left, self._look)


def nested_too_deep(text: bytes) -> bool:
    """Whether JSON cannot be read for its depth; what else is wrong with it is for others to say."""
    try:
        json.loads(text)
    except RecursionError:
        return True
    except ValueError:
        return False
    return False


def shortened(message: str) -> str:
    """The beginning and the end of a message, which may hold all of the request."""
    half = LONGEST_MESSAGE // 2
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:half]} ... {message[-half:]}"
