"""Connections of HTTP sessions, shown to somebody before anything is sent through them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


def watched_pools(
    watch: Callable[[socket.socket], None], *, kept_alive: bool = False
) -> dict[str, type[HTTPConnectionPool]]:
    """Pools by scheme, as urllib3's managers take them; `watch` is given every new connection.

    With `kept_alive` it is given one that is used again too, at each request.
    """

    class Watched(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connected = super()._new_conn()
            watch(connected)
            return connected

        def request(self, *args: Any, **kwargs: Any) -> None:
            if kept_alive and self.sock is not None:
                watch(self.sock)
            super().request(*args, **kwargs)

    class Secure(Watched, HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            watch(self.sock)  # wrapped by now: what can be cut

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Watched

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
