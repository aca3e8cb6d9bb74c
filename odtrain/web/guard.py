"""What every page that odtrain serves is built on: what it may load, how it is guarded, starts and ends."""

from __future__ import annotations

import os
import signal
import socket
import sys
import webbrowser
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import anyio
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from odtrain.errors import ConfigError
from odtrain.io.connections import ANSWER_SECONDS, HEAD_SECONDS, PatientProtocol
from odtrain.reports.pages import served_page
from odtrain.system.progress import ready
from odtrain_runtime.callers import CHALLENGE, LOOPBACK, NO_TOKEN, OPEN, own_names, refusal, shows
from odtrain_runtime.turns import give_memory_back

POLICY = "Content-Security-Policy"
HEADERS = {
    POLICY: (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TOO_LONG = f"The answer took longer than {ANSWER_SECONDS:.0f} s: send fewer pictures at once."
END_SECONDS = 2
"""That requests under way have when the server is stopped."""


class Guard:
    """Lets requests to this server's own names through, from its own pages or from no page at all."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        addresses: bool = False,
        token: str | None = None,
    ) -> None:
        """`hosts` are the names by which `app` may be called, without ports.

        With `addresses`, any IP address is one too: no foreign page has an address of this machine. With
        `token`, who calls must show it.
        """
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._addresses = addresses
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 to what is foreign, 401 without the token; add `HEADERS` to every answer."""
        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None
        app = self._refusal(scope) or self._app
        # Callers who hang up, or never fetch their answer, are no news.
        with suppress(ClientDisconnect):
            try:
                with anyio.fail_after(ANSWER_SECONDS):
                    await app(scope, receive, send_guarded)
            except TimeoutError:
                if not begun:
                    with anyio.move_on_after(HEAD_SECONDS):
                        late = PlainTextResponse(TOO_LONG, 503)
                        await late(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        header = Headers(scope=scope).get
        foreign = refusal(header, self._hosts, self._addresses)
        if foreign is not None:
            return PlainTextResponse(foreign, 403)
        if self._token is None or scope["path"] in OPEN or shows(header, self._token):
            return None
        return JSONResponse({"message": NO_TOKEN}, 401, CHALLENGE)


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


HEALTH = Route(OPEN[0], _health)
"""Says that a server lives."""


def page(name: str) -> Response:
    """A page of `odtrain.reports`, whose policy lets nothing run but its own style and script."""
    text, policy = served_page(name)
    return HTMLResponse(text, headers={POLICY: f"{policy}; frame-ancestors 'none'"})


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    allowed: Sequence[str],
    what: str,
    open_browser: bool,
    token: str | None = None,
) -> None:
    """Serve `app` behind a `Guard` until Ctrl-C; say where.

    Args:
        app: what is served.
        host: address to listen at.
        port: 0 takes any free one.
        allowed: names of this server, besides `host` and the loopback ones.
        what: for the line that says where.
        open_browser: show it, where there is a desktop.
        token: that callers must show; None where nobody is asked.

    Raises:
        ConfigError: the address cannot be had.
    """
    with closing(_listen(host, port, what)) as listener:
        address = f"http://{_in_url(host)}:{listener.getsockname()[1]}/"
        ready()
        print(f"{what}: {address}  (Ctrl-C ends it)", flush=True)
        if token is not None:
            print("  A browser asks for a name and a password: any name, and the token.")
        elif host not in LOOPBACK:
            print(
                "  Whoever reaches this address can look and use it: nobody is asked for a password."
            )
        if open_browser and _has_desktop():
            webbrowser.open(address)
        guarded = Guard(app, own_names(host, allowed), host not in LOOPBACK, token)
        settings = uvicorn.Config(
            guarded,
            log_level="warning",
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=END_SECONDS,
            http=PatientProtocol,
            ws="none",
        )
        give_memory_back()
        with suppress(KeyboardInterrupt), _ended_by_sigterm():
            uvicorn.Server(settings).run(sockets=[listener])


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends what is inside as Ctrl-C does: uvicorn raises it again behind its last answer."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(host: str, port: int, what: str) -> socket.socket:
    key = what.partition(" ")[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off Nagle's algorithm where a socket names TCP: else answers wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # so that whoever reads the address can call at once
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{key}.host={host} {key}.port={port}",
            f"cannot listen there: {reason}.",
            f"Choose another port ({key}.port=0 takes any free one), or an address of this machine.",
        ) from None
    return listener


def _in_url(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _has_desktop() -> bool:
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
