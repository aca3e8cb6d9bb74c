"""What a server of ours lets a connection cost: how many there are, and how long they may wait."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST_CONNECTIONS = 128
"""Open at once; for one more, the one is closed that has waited longest without asking anything."""
HEAD_SECONDS = 10.0
"""In which the head of a request must have come."""
BODY_SECONDS = 60.0
"""In which a request's body must have come."""
ANSWER_SECONDS = 300.0
"""In which a request must have been answered, and the answer fetched."""


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
