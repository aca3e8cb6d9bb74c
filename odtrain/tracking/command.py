"""`odtrain track`, `server` and `ui`."""

from __future__ import annotations

from pathlib import Path

from odtrain.command import Action, Command, Composed, Invocation, flag, looks, prints, with_config
from odtrain.system.telemetry import allow_telemetry


def _sync(given: Composed) -> str:
    from odtrain.promotion.promote import sync_all

    folder = Path(given.flags.folder or given.config.outputs)
    return sync_all(folder, given.config.outputs, given.config.tracking.uri)


def _server(invocation: Invocation) -> int:
    allow_telemetry(False)
    from odtrain.tracking.server import serve
    from odtrain.tracking.server_access import access

    flags = invocation.flags
    where = (Path(flags.folder), flags.host, flags.port)
    files = [Path(each) if each else None for each in (flags.tls_cert, flags.tls_key)]
    reached = access(flags.auth, flags.permission, *files)
    return serve(
        *where, flags.database, flags.allowed_hosts, flags.workers, reached, flags.artifacts
    )


def _ui(given: Composed) -> int:
    from odtrain.tracking.ui import run_ui

    return run_ui(given.config.tracking, given.flags.port)


SYNC = Action(
    prints(_sync),
    "send what was spooled while the tracking server was away",
    flags=(flag("folder", "of one run; without it, all runs here", nargs="?"),),
    settings=("tracking", "registry", "outputs"),
)
SERVER = Action(
    _server,
    flags=(
        flag("--folder", "of all it keeps", default="server", metavar="DIR"),
        flag("--host", "address to listen at", default="127.0.0.1"),
        flag("--port", "to listen at", type=int, default=5000),
        flag(
            "--database",
            "to use instead of an own PostgreSQL; else MLFLOW_BACKEND_STORE_URI",
            metavar="URI",
        ),
        flag(
            "--artifacts",
            "where files of runs are kept: a folder, s3://BUCKET/FOLDER, gs://...",
            metavar="PLACE",
        ),
        flag("--allowed-hosts", "by which clients call it", metavar="NAMES"),
        flag("--workers", "processes that answer", type=int, default=2),
        flag("--auth", "ask everybody for a name and a password, or a token", action="store_true"),
        flag(
            "--permission",
            "with --auth: what users may do where nobody said more or less",
            choices=("NO_PERMISSIONS", "READ", "USE", "EDIT", "MANAGE"),
            default="EDIT",
        ),
        flag("--tls-cert", "PEM file of the certificate to answer with", metavar="FILE"),
        flag("--tls-key", "PEM file of its key", metavar="FILE"),
    ),
    stays=True,
)
UI = Action(
    looks(with_config(_ui)),
    flags=(flag("--port", "of the local server", type=int, default=5000),),
    settings=("tracking",),
    stays=True,
)
COMMANDS = {
    "track": Command({"sync": SYNC}, default=None),
    "server": Command({"": SERVER}),
    "ui": Command({"": UI}),
}
