"""`odtrain server`: MLflow on PostgreSQL with an artifact store, all of it in one folder.

PostgreSQL is this server's own: it is reached by a socket in that folder and listens on no network, so
that it needs no password. Clients need the server's address alone; artifacts go through it. A database
that is there already is used with `--database`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from odtrain.addresses import is_remote, scheme_of
from odtrain.errors import ConfigError, TrackingError
from odtrain.io.atomic import PRIVATE
from odtrain.io.locks import alone
from odtrain.io.remote import store
from odtrain.system.progress import ready
from odtrain.tracking.mlflow_process import check_port, served, stopped_by_signals
from odtrain.tracking.reach import check_form, check_there
from odtrain.tracking.server_access import OPEN, Access

PROGRAMS = ("initdb", "pg_ctl", "createdb")
USER = "odtrain"
DATABASE = "mlflow"
LONGEST_SOCKET = 90
"""Bytes of a folder in which a Unix socket can lie (107 with its name)."""
CLIENTS = {
    "s3": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
}
"""What MLflow speaks to a store with: a module, and the package that brings it."""
OF_STORES = ("MLFLOW_S3_", "MLFLOW_GCS_")
"""How variables begin that MLflow's own code for stores reads."""
PROBE = ".odtrain"
"""No such folder is there: the store says whether it may be asked."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 5000,
    database: str | None = None,
    allowed_hosts: str | None = None,
    workers: int = 2,
    reached: Access = OPEN,
    artifacts: str | None = None,
) -> int:
    """Serve until interrupted or terminated; PostgreSQL is stopped behind the server.

    Args:
        folder: of the database, the artifacts and the logs; made if need be.
        host: address to listen at.
        port: to listen at.
        database: SQLAlchemy's URI of a database to use instead of an own one; without it that of
            MLFLOW_BACKEND_STORE_URI, if there is one.
        allowed_hosts: names by which clients may call the server, separated by commas.
        workers: processes that answer.
        reached: who is asked for a name, and how it is encrypted.
        artifacts: where files of runs are kept, a folder or an address of a store; None for one in `folder`.

    Returns:
        The exit status.

    Raises:
        ConfigError: the port is taken, or what is needed is not installed.
        TrackingError: PostgreSQL or MLflow does not start; the log says why.
    """
    _check_installed()
    _check_artifacts(artifacts)
    check_port(host, port, "odtrain server")
    folder = folder.absolute()
    with stopped_by_signals(), _alone_in(folder), _database(folder, database) as uri:
        command = ["--host", host, "--port", str(port), "--workers", str(workers)]
        if allowed_hosts:
            command += ["--allowed-hosts", allowed_hosts]
        kept = artifacts or str(folder / "artifacts")
        return _run_mlflow(folder, uri, command, host, port, reached, kept)


def _check_installed() -> None:
    if sys.platform == "win32":
        raise ConfigError(
            "odtrain server",
            "does not run on Windows: it needs process groups and a socket of PostgreSQL's.",
            "Run it on Linux, or give an MLflow server of another kind: tracking.uri=http://...",
        )
    if importlib.util.find_spec("psycopg2") is None:
        raise ConfigError(
            "odtrain server",
            "psycopg2 is not installed, by which MLflow speaks to PostgreSQL.",
            "python -m pip install 'psycopg2-binary>=2.9'",
        )


def _check_artifacts(place: str | None) -> None:
    """Refuse a store that cannot be read with what this process knows, before anybody sends a file there.

    Raises:
        ConfigError, DataError: it cannot.
    """
    if place is None or not is_remote(place):
        return
    needed = CLIENTS.get(scheme_of(place))
    if needed is None:
        raise ConfigError(f"--artifacts {place}", "is no store.", "Give s3://BUCKET/FOLDER.")
    module, package = needed
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"--artifacts {place}",
            f"{package} is not installed, by which MLflow speaks to it.",
            f"python -m pip install {package}",
        )
    store.check_can_read(place)
    store.listed(Path(place, PROBE))


def _alone_in(folder: Path) -> AbstractContextManager[None]:
    remedy = "Stop that one, or give --folder DIR."
    busy = ConfigError(folder, "another server is at work in it.", remedy)
    return alone(folder / ".lock", busy=busy)


# ---- PostgreSQL


@dataclass(frozen=True)
class Postgres:
    """An own cluster of PostgreSQL.

    Attributes:
        programs: folder of initdb, pg_ctl and createdb.
        data: folder of the cluster.
        sockets: folder of its socket.
        log: file.
        user: of the operating system whose processes they are; None for the present one.
    """

    programs: Path
    data: Path
    sockets: Path
    log: Path
    user: str | None

    @property
    def uri(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg2://{USER}@/{DATABASE}?host={self.sockets}"

    def run(self, program: str, *arguments: str, wrong: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs.

        Raises:
            TrackingError: it fails, and `wrong` is not empty.
        """
        # A daemon that is left behind would hold a pipe open: what is said goes into a file.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                [str(self.programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                cwd="/",
                user=self.user,
                group=None if self.user is None else pwd.getpwnam(self.user).pw_gid,
            )
            said.seek(0)
            text = said.read().strip()
        if done.returncode and wrong:
            last = text.splitlines()[-1] if text else f"status {done.returncode}"
            raise TrackingError(self.data, f"{wrong}: {last}", f"Look into {self.log}.")
        return subprocess.CompletedProcess(done.args, done.returncode, text)

    def start(self) -> None:
        """Start it, new or again; what a killed server left running is stopped first."""
        if not (self.data / "PG_VERSION").exists():
            local = ("--auth-local=trust", "--auth-host=reject", "--encoding=UTF8")
            names = ("-D", str(self.data), "-U", USER, "--locale=C.UTF-8")
            self.run("initdb", *names, *local, wrong="PostgreSQL cannot make its files")
        self.stop()
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.sockets}'"
        starting = ("-D", str(self.data), "-l", str(self.log), "-o", options, "-w", "start")
        self.run("pg_ctl", *starting, wrong="PostgreSQL does not start")
        made = self.run("createdb", "-h", str(self.sockets), "-U", USER, DATABASE, wrong="")
        if made.returncode and "already exists" not in made.stdout:
            raise TrackingError(
                self.data, f"PostgreSQL makes no database: {made.stdout}", f"Look into {self.log}."
            )

    def stop(self) -> None:
        """Stop it, if it runs, without waiting for clients."""
        self.run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop", wrong="")


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs: that of the PATH, else the newest of Debian's, or None."""
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    newest = sorted(debian, key=lambda folder: float(folder.parts[-2]), reverse=True)
    found = shutil.which("initdb")
    folders = [Path(found).parent, Path(found).resolve().parent] if found else []
    for folder in (*folders, *newest):
        if all((folder / program).is_file() for program in PROGRAMS):
            return folder
    return None


@contextlib.contextmanager
def _database(folder: Path, given: str | None) -> Iterator[str]:
    """The URI of the database, which runs as long as this does."""
    given = given or os.environ.get("MLFLOW_BACKEND_STORE_URI")
    if given:
        check_form(given)
        check_there(given)
        yield given
        return
    with _socket_folder(folder) as sockets:
        postgres = _postgres(folder, sockets)
        try:
            postgres.start()
            yield postgres.uri
        finally:
            postgres.stop()


def _postgres(folder: Path, sockets: Path) -> Postgres:
    programs = find_postgres()
    if programs is None:
        raise ConfigError(
            "odtrain server",
            "PostgreSQL is not installed.",
            "apt install postgresql, or name a database that is there: --database postgresql://...",
        )
    user = _unprivileged()
    for path in (folder / "postgres", sockets):
        path.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
    log = folder / "postgres" / "server.log"
    return Postgres(programs, folder / "postgres" / "data", sockets, log, user)


def _unprivileged() -> str | None:
    """Root may not run PostgreSQL: then the user that Debian's package has made does."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise ConfigError(
            "odtrain server",
            "PostgreSQL does not run as root, and there is no user postgres.",
            "Run it as another user.",
        ) from None


@contextlib.contextmanager
def _socket_folder(folder: Path) -> Iterator[Path]:
    """Where the socket lies: in the folder, or in a short one where its path would be too long."""
    if len(os.fsencode(folder / "socket")) <= LONGEST_SOCKET:
        yield folder / "socket"
        return
    with tempfile.TemporaryDirectory(prefix="odtrain-") as short:
        yield Path(short)


# ---- MLflow


def _run_mlflow(
    folder: Path,
    uri: str,
    options: Sequence[str],
    host: str,
    port: int,
    reached: Access,
    artifacts: str,
) -> int:
    log = folder / "mlflow.log"
    log.touch(PRIVATE)  # SQLAlchemy's complaints name the database
    command = [sys.executable, "-m", "odtrain.tracking.guarded_mlflow", *options, *reached.options]
    address = f"{reached.scheme}://{_own_address(host)}:{port}"
    look = f"Look into {log}."
    environment = {**_environment(uri, artifacts), **reached.environment(folder)}
    with served(command, environment, f"{address}/health", log, folder, look) as server:
        ready()
        print(_greeting(folder, address, reached, host in LOOPBACK, artifacts), flush=True)
        status = server.wait()
        raise TrackingError(folder, f"MLflow's server ended with status {status}.", look)


def _environment(uri: str, artifacts: str) -> dict[str, str]:
    """What `mlflow server` is told; not by arguments, where everybody here could read a password."""
    kept = {
        key: text
        for key, text in os.environ.items()
        if not key.startswith("MLFLOW_") or key.startswith(OF_STORES)
    }
    return {
        **kept,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _own_address(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _greeting(folder: Path, address: str, reached: Access, here_alone: bool, artifacts: str) -> str:
    lines = [
        f"MLflow is at {address}/#/experiments?workflowType=machine_learning",
        f"  clients          export MLFLOW_TRACKING_URI={address}   (or tracking.uri={address})",
        *reached.greeting(address, folder),
        f"  kept in          {folder}",
        *([f"  artifacts        {artifacts}"] if is_remote(artifacts) else []),
        "  stop             Ctrl-C, or SIGTERM",
    ]
    if not here_alone and not reached.permission:
        lines.append("  It asks nobody for a password: let only your team reach it.")
    elif not here_alone and not reached.tls:
        lines.append("  Passwords travel in the clear: give --tls-cert and --tls-key.")
    return "\n".join(lines)
