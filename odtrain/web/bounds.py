"""What strangers may make a page wait and hold; their connections: `odtrain.io.connections`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from odtrain.config.schema import MOST_REQUEST_MEGABYTES
from odtrain.errors import is_of_memory
from odtrain.io.connections import BODY_SECONDS

MOST_HELD = MOST_REQUEST_MEGABYTES * 1_000_000
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


def answer_to(answer: Callable[[Any], Response]) -> Any:
    """An exception handler that needs no thread of its own, which may not be had where memory is short."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(error)

    return handle


def _memory_is_short(error: Exception) -> Response:
    if not is_of_memory(error):
        raise error
    return refused("Memory is short here: ask again later.", 503)


REFUSALS: Mapping[Any, Any] = {
    SlowError: answer_to(lambda error: refused("The request did not come in time.", 408)),
    BusyError: answer_to(lambda error: refused("The server is busy: ask again later.", 503)),
    MemoryError: answer_to(_memory_is_short),
    RuntimeError: answer_to(_memory_is_short),
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
            with anyio.fail_after(BODY_SECONDS):
                await self._read(request, body, limit)
            whole = bytes(body)
            body.clear()
            yield whole
        except TimeoutError:
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
