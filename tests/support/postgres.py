"""A PostgreSQL server of a test's own, which can be stopped and started."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from support.stores import free_port

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
USER = "postgres"
PROGRAMS = ("initdb", "pg_ctl", "createdb")


class Postgres:
    """A server with one database, `optuna`, in `folder`.

    Attributes:
        url: as SQLAlchemy takes it.
    """

    def __init__(self, folder: Path) -> None:
        on_path = shutil.which("createdb")
        places = [*PLACES, Path(on_path).parent] if on_path else PLACES
        found = [place for place in places if all((place / one).exists() for one in PROGRAMS)]
        if not found:
            pytest.skip("needs PostgreSQL's server and clients on this machine")
        pytest.importorskip("psycopg2")
        self._bin, self._data, self._port = found[0], folder / "data", free_port()
        self._as_user = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            try:
                owner = pwd.getpwnam(USER)
            except KeyError:
                pytest.skip(
                    "needs PostgreSQL: it does not run as root, and there is no user postgres"
                )
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            self._as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "odtrain", "--no-sync")
        self.start()
        address = ["-h", "127.0.0.1", "-p", str(self._port), "-U", "odtrain"]
        self._run("createdb", *address, "optuna")
        self.url = f"postgresql+psycopg2://odtrain@127.0.0.1:{self._port}/optuna"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self._port} -h 127.0.0.1 -k {self._data} -c fsync=off"
        log = self._data.parent / "log"
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-t", "60", "-o", options, "start")

    def stop(self) -> None:
        """End it as an administrator would who does not wait for clients."""
        self._run("pg_ctl", "-D", self._data, "-m", "fast", "-w", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=self._data.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            **self._as_user,
        )
        assert done.returncode == 0, done.stderr
