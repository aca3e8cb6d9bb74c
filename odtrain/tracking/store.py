"""Which MLflow store is meant, how it is opened, and what its failures mean."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import http_request

from odtrain.config.schema import TrackingConfig
from odtrain.errors import OdtrainError, TrackingError
from odtrain.io.locks import alone
from odtrain.secrets import forget, has_secret, masked
from odtrain.system.progress import doing
from odtrain.tracking.reach import (
    FULL,
    TAKES_LATER,
    StoreAwayError,
    away,
    bound_requests,
    brief,
    check_form,
    check_there,
    hurried,
    is_stores,
    lock_seconds,
    locked,
)
from odtrain.tracking.views import Pages, dress

UNLESS_SET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's own 7 retries hold a caller for minutes; odtrain keeps what it has and tries later."""

VERSION = re.compile(r"\d+\.\d+")
"""How the answer to `/version` begins."""

REFUSALS = frozenset(
    {
        "INVALID_PARAMETER_VALUE",
        "RESOURCE_DOES_NOT_EXIST",
        "INVALID_STATE",
        "BAD_REQUEST",
        "RESOURCE_ALREADY_EXISTS",
    }
)
"""MLflow error codes that the same request would get again."""

DENIALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND", "NOT_FOUND"})
"""Codes for the user to mend: an error at the start of a run, a reason to wait in its middle."""

WHO_ASKS = {
    "UNAUTHENTICATED": (
        "does not know who asks (status 401).",
        "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    ),
    "PERMISSION_DENIED": (
        "does not allow that to who asks (status 403).",
        "Who manages the experiment or the model, or an administrator, may give you the right.",
    ),
}
"""What is said of refusals that are about people."""

DEFAULT, FORMER = "Default", "odtrain"
"""The experiment of runs for which no other is named, as `mlflow run` has it; and that of older versions."""

UI = "odtrain ui"
"""In place of MLflow's own command where that would have to name a password."""

READ_ONLY = (
    "readonly database",
    "Read-only file system",
    "Permission denied",
    "read-only transaction",
)
"""What SQLite, the system and PostgreSQL say where nothing can be written."""


def tracking_uri(config: TrackingConfig) -> str:
    """The store to use: `tracking.uri`, else MLFLOW_TRACKING_URI, else mlflow.db in this folder.

    Raises:
        TrackingError: it is written wrongly, lacks its driver, or is a folder; MLflow keeps no runs in
            folders any more.
    """
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith("file:"):
        raise _folder_refused(uri)
    check_form(uri)
    if uri.startswith("sqlite:"):
        return f"sqlite:///{_database(uri)}"
    if "://" not in uri and not uri.startswith("databricks"):
        return _from_path(uri)
    return uri.rstrip("/")


def is_run_store(uri: str, kept: str) -> bool:
    """Whether a store is the one whose address a run kept, without its password."""
    return masked(uri) == masked(kept)


def registry_uri(uri: str) -> str:
    """Where the models of a store are registered: MLFLOW_REGISTRY_URI, as MLflow has it, else the store."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or uri


def _from_path(path: str) -> str:
    if Path(path).suffix == ".db":
        return f"sqlite:///{Path(path).absolute()}"
    raise _folder_refused(path)


def _folder_refused(uri: str) -> TrackingError:
    return TrackingError(
        "tracking.uri",
        f'"{uri}" is a folder, and MLflow keeps no runs in folders any more.',
        "Name a database (sqlite:///runs.db) or a server (http://host:5000). "
        "`mlflow migrate-filestore` moves the runs of an old folder.",
    )


def _database(uri: str) -> Path:
    """The file of a sqlite URI, absolute."""
    return Path(uri.partition(":///")[2].partition("?")[0]).absolute()


def repeated(overrides: Sequence[str], keys: Sequence[str]) -> str:
    """What the next command needs of a command's overrides, ready to be put behind it, without passwords.

    Args:
        overrides: as they were given, `key=value`.
        keys: whole keys, or with a dot at the end all below it.
    """
    words = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if any(key.startswith(one) if one.endswith(".") else key == one for one in keys):
            words.append(f" {shlex.quote(f'{key}={masked(value)}')}")
    return "".join(words)


class NothingYetError(TrackingError):
    """The database that is asked is not there: nothing was tracked in it yet."""


def is_made(uri: str) -> bool:
    """Whether there is a store to ask; of a server that is not known before."""
    return not uri.startswith("sqlite:") or _database(uri).exists()


def open_client(uri: str, *, making: bool = False) -> MlflowClient:
    """Open the store.

    Processes that open a new sqlite database at once break each other's migrations, so they queue.

    Args:
        uri: of the store.
        making: whether a database that is not there is made; who only looks leaves none behind.

    Raises:
        NothingYetError: it is not there.
        TrackingError: the store is there but cannot be used.
    """
    if not (making or is_made(uri) or "MLFLOW_REGISTRY_URI" in os.environ):
        raise NothingYetError(
            str(_database(uri)),
            "is not there: nothing has been tracked yet.",
            "`odtrain train` makes it. Runs and models that are elsewhere: tracking.uri=URI.",
        )
    _calm_mlflow()
    check_there(uri)
    try:
        with doing("Opening the store of the runs"), _alone(uri), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "The ``noload`` loader strategy"
            )  # SQLAlchemy 2.1 on MLflow's mappings
            if uri.startswith("sqlite:") and not _database(uri).exists():
                _make_database(uri)
            return MlflowClient(uri)
    except Exception as problem:
        if is_outage(uri, problem):
            raise
        raise failure(uri, problem) from problem


def _make_database(uri: str) -> None:
    """A new sqlite database whose `Default` keeps its artifacts beside it, wherever this process works."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, _beside(uri).as_uri())  # type: ignore[no-untyped-call]


def _beside(uri: str) -> Path:
    """Where the artifacts of a sqlite database are kept."""
    return _database(uri).parent / "mlartifacts"


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[MlflowClient]:
    """A client for who waits for a command; what the store does meanwhile is told in our words, and soon.

    Raises:
        StoreAwayError: it does not answer, or not as MLflow does.
        TrackingError: it refuses.
    """
    with told(uri), hurried(uri):
        yield open_client(uri)


@contextlib.contextmanager
def told(uri: str) -> Iterator[None]:
    """Tell in our words what the store does meanwhile.

    Raises:
        StoreAwayError: it does not answer, or not as MLflow does.
        TrackingError: it refuses.
    """
    try:
        yield
    except Exception as problem:
        if isinstance(problem, OdtrainError) or not is_stores(problem):
            raise
        raise failure(uri, problem) from problem


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    if not uri.startswith("sqlite:"):
        yield
        return
    database = _database(uri)
    lock = database.with_name(f"{database.name}.lock")
    with alone(lock, busy=locked(uri), after=lock_seconds()):
        yield


def _calm_mlflow() -> None:
    for name, value in UNLESS_SET.items():
        os.environ.setdefault(name, value)
    bound_requests()
    for logger, level in {
        "urllib3.connectionpool": logging.ERROR,
        "mlflow.store.db.utils": logging.CRITICAL,
        "mlflow.store.model_registry.abstract_store": logging.WARNING,
        "alembic": logging.WARNING,
    }.items():
        logging.getLogger(logger).setLevel(level)


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """The id of an experiment, created if need be: its artifacts then go beside a sqlite database.

    Raises:
        TrackingError: the experiment was deleted.
    """
    with _alone(uri):
        found = client.get_experiment_by_name(name)
        if found is None:
            found = _create_experiment(client, uri, name)
    check_said(found.experiment_id)
    check_active(found)
    dress(client, found)
    return str(found.experiment_id)


def check_said(*answers: object) -> None:
    """Refuse the empty answer of what only looks like MLflow: a proxy's `{}`, in which nothing is named.

    Raises:
        MlflowException: one is empty; the store may answer better later.
    """
    if not all(answers):
        raise MlflowException("its answer is empty")


def check_answers(client: MlflowClient, uri: str) -> None:
    """Have a server say what only MLflow says: an empty answer looks like an empty store.

    Who may see no experiment gets that answer from a real server too, which then knows its version.

    Raises:
        MlflowException: it does not.
    """
    if not uri.startswith("http"):
        return
    if not client.search_experiments(view_type=ViewType.ALL, max_results=1):
        ask: Any = http_request
        there = client._tracking_client.store.get_host_creds()
        check_said(VERSION.match(ask(there, "/version", "GET").text))


def check_active(experiment: Experiment) -> None:
    """Refuse an experiment that takes no runs.

    Raises:
        TrackingError: it was deleted.
    """
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {experiment.name}",
            "it has been deleted.",
            f"Restore it (mlflow experiments restore --experiment-id {experiment.experiment_id}), "
            "or choose another with tracking.experiment=NAME.",
        )


def _create_experiment(client: MlflowClient, uri: str, name: str) -> Experiment:
    beside = _beside(uri).as_uri() if uri.startswith("sqlite:") else None
    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=beside))
    except MlflowException as problem:
        found = client.get_experiment_by_name(name)  # another process may have been faster
        if found is None:
            raise problem
        return found


def is_outage(uri: str, problem: Exception) -> bool:
    """Whether the store may take the same request later: it is away or locked, and does not refuse."""
    if isinstance(problem, TrackingError):
        return isinstance(problem, StoreAwayError)
    if uri.startswith("sqlite:"):
        return any(words in str(problem) for words in TAKES_LATER)
    return not isinstance(problem, MlflowException) or problem.error_code not in REFUSALS | DENIALS


def of_who_asks(problem: BaseException) -> tuple[str, str] | None:
    """What to say of a refusal that is about people, and what to do; None of any other."""
    return WHO_ASKS.get(getattr(problem, "error_code", ""))


def failure(uri: str, problem: Exception) -> TrackingError:
    """What to tell the user about a store that cannot be used; passwords in `problem` are forgotten."""
    forget(problem)
    if is_outage(uri, problem):
        if FULL in str(problem):
            return StoreAwayError(uri, "the disk is full.", "Free space there, then try again.")
        return locked(uri) if uri.startswith("sqlite:") else away(uri, problem)
    if "upgrade" in str(problem) and "schema" in str(problem):
        return TrackingError(
            uri,
            "this database was made by another version of MLflow.",
            f"Back it up and run: mlflow db upgrade {shlex.quote(masked(uri))}",
        )
    about_people = of_who_asks(problem)
    if about_people is not None:
        return TrackingError(uri, *about_people)
    remedy = "Check tracking.uri."
    if any(words in str(problem) for words in READ_ONLY):
        remedy = "Have it made writable, or choose another: tracking.uri=sqlite:///runs.db"
    return TrackingError(uri, f"MLflow cannot use it: {brief(problem)}", remedy)


def download(uri: str, to: Path, store: str) -> Path:
    """Fetch `runs:/<run id>/<path>`, or any other artifact URI, into the folder `to`.

    Raises:
        StoreAwayError: the store cannot be reached.
        TrackingError: there is nothing there.
    """
    try:
        with hurried(store), doing(f"Fetching {uri}"):
            open_client(store)
            to.mkdir(parents=True, exist_ok=True)
            return Path(download_artifacts(artifact_uri=uri, dst_path=str(to), tracking_uri=store))
    except (StoreAwayError, NothingYetError):
        raise
    except Exception as problem:
        forget(problem)
        raise TrackingError(
            uri,
            f"cannot be downloaded: {brief(problem)}",
            f"Is the run in {store}? Choose another: tracking.uri=.",
        ) from problem


def ui_command(uri: str, port: int = 5000) -> str | None:
    """The command that serves a store's pages at `port`; None for a server, whose pages are served already."""
    if uri.startswith(("http://", "https://")):
        return None
    if has_secret(uri):
        return UI
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)} --port {port}"


def pages(
    uri: str, experiment: str | None = None, view: str | None = None, port: int = 5000
) -> Pages:
    """Addresses of the pages of a store: a server's own, else those that `ui_command` serves.

    Args:
        uri: the store.
        experiment: id of the experiment to open.
        view: in which its charts and its table open.
        port: where a database is served.
    """
    served = ui_command(uri, port) is None
    return Pages(uri if served else f"http://127.0.0.1:{port}", experiment, view)


def experiments_of(client: MlflowClient, config: TrackingConfig) -> list[Experiment]:
    """Where the runs of a configuration are: in its experiment, and for MLflow's default in that of old."""
    names = [config.experiment, *([FORMER] if config.experiment == DEFAULT else [])]
    found = [client.get_experiment_by_name(name) for name in names]
    return [each for each in found if each is not None]


@contextlib.contextmanager
def mlflow_uses(uri: str) -> Iterator[None]:
    """Point MLflow's own functions, which take no URI, at the store."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None is how it is unset
