"""Stores that are away, locked, misspelt or mute: found out within seconds, and told in one screen."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import sqlalchemy
from mlflow.store.db import utils as mlflow_db
from mlflow.utils import request_utils
from sqlalchemy.engine import URL, make_url

from odtrain.errors import TrackingError, first_line
from odtrain.io import patience
from odtrain.io.deadlines import DeadlineAdapter
from odtrain.io.patience import Patience, one_patience
from odtrain.secrets import masked

logger = logging.getLogger(__name__)

WAIT_SECONDS = 10.0
"""For one answer, where somebody waits for a command; a run has all that MLFLOW_HTTP_REQUEST_TIMEOUT gives.

What a command that looks waits for slow answers in all, `odtrain.io.patience` says."""
LEAST_WAIT = 0.1
"""For an answer, where nothing is left to wait."""
SAID_AFTER = 2.0
LOCK_SECONDS = 7.0
"""For a database that another process holds; its lock and the one beside it may both be waited for."""
OTHERS_OPEN_SECONDS = 300.0
"""For other runs that make the same new database."""
CONNECT_SECONDS = 4.0
CONNECTS = 2
"""How often MLflow tries to connect to a database."""
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DRIVERS = {
    "postgresql": ("psycopg2-binary", "postgresql+psycopg2"),
    "mysql": ("pymysql", "mysql+pymysql"),
    "mssql": ("pyodbc", "mssql+pyodbc"),
}
"""What to install, and how an address begins that means it."""
NAME_ONE = "Name a database (sqlite:///runs.db) or a server (http://host:5000)."
FULL = "database or disk is full"
TAKES_LATER = ("database is locked", FULL)
"""What SQLite says where the same will be taken later."""
STORES = frozenset(
    (
        *("alembic", "azure", "boto3", "botocore", "databricks", "google", "mlflow", "paramiko"),
        *("psycopg2", "requests", "sqlalchemy", "urllib3"),
    )
)
"""Packages whose errors are the store's, whatever they are."""

_hurried: ContextVar[Patience | None] = ContextVar("odtrain_hurried", default=None)


class StoreAwayError(TrackingError):
    """The store takes nothing now, and may later."""


# ---- how addresses are written


def check_form(uri: str) -> None:
    """Refuse what can be no store, before anybody waits for it.

    Raises:
        TrackingError: it is written wrongly, or its driver is not installed.
    """
    scheme, _, rest = uri.partition(":")
    kind = scheme.partition("+")[0]
    if kind == "sqlite":
        _check_sqlite(uri)
    elif kind in PORTS:
        _check_driver(uri, kind)
    elif scheme in ("http", "https"):
        _check_address(uri)
    elif scheme == "databricks":
        _check_databricks(uri)
    elif re.fullmatch(r"[\w.\-]+:\d+(/.*)?", uri):
        raise _refused(uri, "is no address: http:// is missing.", f"tracking.uri=http://{uri}")
    elif rest.startswith("//") and scheme not in _of_plugins():
        raise _refused(uri, "is no store that MLflow knows.", NAME_ONE)


def _of_plugins() -> set[str]:
    """Schemes of stores that packages beside MLflow have brought, such as azureml."""
    return {point.name for point in entry_points(group="mlflow.tracking_store")}


def _refused(uri: str, problem: str, remedy: str) -> TrackingError:
    return TrackingError("tracking.uri", f'"{uri}" {problem}', remedy)


def _check_sqlite(uri: str) -> None:
    path = uri.partition(":///")[2].partition("?")[0]
    if not path or path.endswith("/"):
        name = uri.removeprefix("sqlite:").strip("/") or "mlflow.db"
        remedy = "Three slashes stand before a path from here, four before one from the root: "
        raise _refused(uri, "names no database.", f"{remedy}sqlite:///{name}")
    if Path(path).is_dir():
        raise _refused(uri, "is a folder.", f"Name a file in it: sqlite:///{path}/mlflow.db")


def _check_driver(uri: str, kind: str) -> None:
    try:
        make_url(uri).get_dialect().import_dbapi()
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as problem:
        missing = getattr(problem, "name", None) or first_line(problem)
        raise _refused(
            uri,
            f"needs a driver that is not installed: {missing}.",
            "python -m pip install {}, and write {}://...".format(*DRIVERS[kind]),
        ) from None
    except (ValueError, sqlalchemy.exc.SQLAlchemyError) as problem:
        raise _refused(uri, f"cannot be read: {first_line(problem)}", NAME_ONE) from None


def _check_address(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        there = bool(parts.hostname) and (parts.port or True)
    except ValueError:  # its words would show a password
        there = False
    if not there:
        raise _refused(uri, "is no address of a server.", "Write http://host:5000.")


def _check_databricks(uri: str) -> None:
    said = ("DATABRICKS_HOST", "DATABRICKS_CONFIG_FILE", "DATABRICKS_RUNTIME_VERSION")
    known = any(map(os.environ.get, said)) or Path("~/.databrickscfg").expanduser().is_file()
    if not known or importlib.util.find_spec("databricks") is None:
        raise _refused(
            uri,
            "is Databricks' own store, and nothing says where it is.",
            "Set DATABRICKS_HOST and DATABRICKS_TOKEN (pip install databricks-sdk), or name another: "
            "tracking.uri=sqlite:///runs.db",
        )


# ---- whether they are there


def check_there(uri: str) -> None:
    """Find out at once whether a database can be asked; MLflow would try for minutes.

    Raises:
        StoreAwayError: nobody listens there, or another process has locked it.
        TrackingError: it is no database.
    """
    if uri.startswith("sqlite:"):
        _check_readable(uri, Path(uri.partition(":///")[2]))
    elif uri.partition(":")[0].partition("+")[0] in PORTS:
        _check_listening(uri, make_url(uri))


def _check_readable(uri: str, database: Path) -> None:
    if not database.is_file() or not database.stat().st_size:
        return
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=LOCK_SECONDS)
        ) as connection:
            connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError as problem:
        if "locked" in str(problem):
            raise locked(uri) from None
        if "not a database" in str(problem) or "malformed" in str(problem):
            remedy = "Restore it from a copy, or choose another: tracking.uri=sqlite:///runs.db"
            raise TrackingError(uri, f"cannot be read: {problem}.", remedy) from None


def locked(uri: str) -> StoreAwayError:
    """What is said of a database that another process keeps to itself."""
    return StoreAwayError(
        uri,
        f"is locked by another process; waited {LOCK_SECONDS:.0f} s.",
        "Wait until that one is done, or stop it.",
    )


def _check_listening(uri: str, url: URL) -> None:
    by_name = url.get_backend_name() == "mssql" and not url.port  # of a data source, or an instance
    if not url.host or {"host", "unix_socket"} & set(url.query) or by_name:
        return
    port = url.port or PORTS[url.get_backend_name()]
    try:
        socket.create_connection((url.host, port), CONNECT_SECONDS).close()
    except OSError as problem:
        raise away(uri, problem) from None


# ---- what their failures mean


def is_stores(problem: BaseException) -> bool:
    """Whether an error is the store's or its client's, rather than a fault of this program."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return any(name.partition(".")[0] in STORES for name in (type(problem).__module__, raised_in))


def away(uri: str, problem: BaseException) -> StoreAwayError:
    """What is said of a store that cannot be had now."""
    heard = not any(
        isinstance(each, OSError | sqlalchemy.exc.SQLAlchemyError) for each in chain(problem)
    )
    words = "does not answer as MLflow does" if heard else "cannot be reached"
    why = cause(problem).rstrip(".")
    remedy = "Is it up, and the address right? Another: tracking.uri=, or MLFLOW_TRACKING_URI."
    if "CERTIFICATE_VERIFY_FAILED" in why:
        remedy = (
            "Is it the right one? Name who vouches for it: MLFLOW_TRACKING_SERVER_CERT_PATH=FILE."
        )
    return StoreAwayError(uri, f"{words}: {why}.", remedy)


def chain(problem: BaseException) -> Iterator[BaseException]:
    """An error and those it came from."""
    while True:
        yield problem
        hidden = problem.__suppress_context__
        earlier = problem.__cause__ or (None if hidden else problem.__context__)
        if earlier is None:
            return
        problem = earlier


def brief(problem: BaseException) -> str:
    """The first line of what went wrong, cut to fit a terminal, without passwords."""
    text = masked(first_line(problem))
    return text if len(text) <= 300 else f"{text[:297]}..."


def cause(problem: BaseException) -> str:
    """What went wrong, at its root and in few words: `Connection refused`."""
    return brief([*chain(problem)][-1])[:160]


# ---- how long they are waited for


@contextlib.contextmanager
def hurried(uri: str) -> Iterator[None]:
    """Wait at most `WAIT_SECONDS` for an answer and `ALL_SECONDS` for slow ones, and say so in time."""
    said = threading.Timer(
        SAID_AFTER,
        logger.info,
        [
            f"Waiting for {masked(uri)}: {WAIT_SECONDS:.0f} s at most for an answer, "
            f"{patience.ALL_SECONDS:.0f} s for all that are slow."
        ],
    )
    said.daemon = True
    said.start()
    with one_patience() as shared:
        token = _hurried.set(shared)
        try:
            yield
        finally:
            _hurried.reset(token)
            said.cancel()


def lock_seconds() -> float:
    """How long to wait for another process that opens the same database."""
    return OTHERS_OPEN_SECONDS if _hurried.get() is None else LOCK_SECONDS


class _Adapter(DeadlineAdapter, request_utils.TCPKeepAliveHTTPAdapter):
    def send(
        self, request: Any, stream: bool = False, timeout: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        shared = _hurried.get()
        if shared is None or not isinstance(timeout, int | float):
            return super().send(request, stream, timeout, *args, **kwargs)
        try:
            with shared.waiting():
                most = max(min(timeout, WAIT_SECONDS, shared.left), LEAST_WAIT)
                return super().send(request, stream, most, *args, **kwargs)
        except requests.ReadTimeout:
            if shared.left:
                raise
            words = f"its slow answers took {patience.ALL_SECONDS:.0f} s in all"
            raise requests.ReadTimeout(words, request=request) from None


def bound_requests() -> None:
    """Have MLflow's requests and its attempts at databases end in time."""
    mlflow_db.MAX_RETRY_COUNT = CONNECTS
    os.environ.setdefault("PGCONNECT_TIMEOUT", f"{CONNECT_SECONDS:.0f}")
    if request_utils.TCPKeepAliveHTTPAdapter is not _Adapter:
        request_utils.TCPKeepAliveHTTPAdapter = _Adapter  # type: ignore[misc]
        request_utils._cached_get_request_session.cache_clear()
        sqlalchemy.event.listen(
            sqlalchemy.Engine, "before_cursor_execute", _shorter_lock, retval=True
        )


def _shorter_lock(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
) -> tuple[str, Any]:
    """MLflow waits 20 s for a lock of SQLite's, which is too long for who waits for a command."""
    if statement.startswith("PRAGMA busy_timeout") and _hurried.get() is not None:
        statement = f"PRAGMA busy_timeout = {1000 * LOCK_SECONDS:.0f}"
    return statement, parameters
