"""The services of compose.yaml, begun one by one without Docker by the commands that it holds.

They live in a network and a tree of mounts of their own, in which their names lead to this machine and
`/srv` is a folder of the test: commands, addresses and ports are those of the file. What only an image
would bring is made here: PostgreSQL's first files, and the programs.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from odtrain.tracking.server import find_postgres

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(:[-?])?([^}]*)\}")
ALONE = """
ip link set lo up
mount --make-rprivate /
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/srv" /srv
exec sleep infinity
"""
KEPT = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR")
"""Of this process's variables; a container has none of them."""


def read(settings: dict[str, str]) -> dict[str, Any]:
    """The services, with `settings` in the place of their variables."""

    def put(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if kind == ":?":
            return settings[name]
        return settings.get(name, rest)

    services: dict[str, Any] = yaml.safe_load(VARIABLE.sub(put, FILE.read_text()))["services"]
    return services


def made_settings() -> dict[str, str]:
    """What the first command of the file writes."""
    text = subprocess.run([ROOT / "deploy/secrets"], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in text.stdout.splitlines())


class Composed:
    """The services in `folder`; must be ended."""

    def __init__(self, folder: Path) -> None:
        """Make the network.

        Skips where this user may not, or a program is missing.
        """
        missing = [name for name in ("ip", "unshare", "nsenter", "weed") if not shutil.which(name)]
        if os.geteuid() != 0 or missing:
            pytest.skip(f"needs root, and the programs {', '.join(missing)}")
        self.postgres = find_postgres()
        if self.postgres is None:
            pytest.skip("needs PostgreSQL's programs (apt install postgresql)")
        self.folder = folder
        self.settings = made_settings()
        self.services = read(self.settings)
        for name in ("srv/store", "srv/odtrain", "srv/model", "work", "postgres"):
            (folder / name).mkdir(parents=True)
        names = " ".join(["localhost", *self.services])
        (folder / "hosts").write_text(f"127.0.0.1 {names}\n")
        alone = ["unshare", "--net", "--mount", "sh", "-ec", ALONE, "sh", str(folder)]
        self._keeper = subprocess.Popen(alone, stderr=subprocess.PIPE, text=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        time.sleep(0.5)
        if self._keeper.poll() is not None:
            assert self._keeper.stderr is not None
            pytest.skip(f"needs a network of its own: {self._keeper.stderr.read()}")

    def start(self, name: str) -> None:
        """Begin a service, and wait until its own health check passes, if it has one."""
        if name == "postgres":
            self._first_files()
        with self._log(name).open("ab") as log:
            command = self._inside(self._words(name, ()), name)
            self._running[name] = subprocess.Popen(
                command,
                env=self._environment(name),
                stdout=log,
                stderr=log,
                cwd=self.folder / "work",
            )
        check = self.services[name].get("healthcheck")
        deadline = time.monotonic() + 120
        while check and self._ask(check["test"], name):
            assert self._running[name].poll() is None, self.said(name)
            assert time.monotonic() < deadline, self.said(name)
            time.sleep(0.5)

    def run(self, name: str, *more: str, instead: tuple[str, ...] = ()) -> str:
        """As `docker compose run --rm NAME`: the service once, to its end; what it said.

        Args:
            name: of the service.
            more: words behind its own.
            instead: words in place of its own.
        """
        done = subprocess.run(
            self._inside(self._words(name, more, instead), name),
            env=self._environment(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder / "work",
            check=False,
        )
        with self._log(name).open("a") as log:
            log.write(done.stdout)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def curl(self, *words: str) -> str:
        """What a client of the machine gets."""
        command = self._inside(["curl", "--silent", "--show-error", *words], "serve")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def said(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")

    def end(self) -> None:
        """Stop everything, the last first."""
        for process in reversed(list(self._running.values())):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        self._keeper.kill()
        self._keeper.wait()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _ask(self, test: list[str], name: str) -> int:
        command = [str(self._program(test[1])), *test[2:]]
        return subprocess.run(
            self._inside(command, name),
            env=self._environment(name),
            capture_output=True,
            check=False,
        ).returncode

    def _program(self, word: str) -> str | Path:
        assert self.postgres is not None
        there = self.postgres / word
        return sys.executable if word == "python" else there if there.exists() else word

    def _words(self, name: str, more: tuple[str, ...], instead: tuple[str, ...] = ()) -> list[str]:
        service = self.services[name]
        words = [*(instead or service["command"]), *more]
        if service["image"].startswith("odtrain"):
            module = "odtrain" if service["image"] == "odtrain" else "odtrain_runtime"
            return [sys.executable, "-m", module, *words]
        words = [*service.get("entrypoint", ()), *words]
        return [str(self._program(words[0])), *words[1:]]

    def _inside(self, command: list[str], name: str) -> list[str]:
        inside = ["nsenter", f"--target={self._keeper.pid}", "--net", "--mount"]
        if name == "postgres":
            owner = pwd.getpwnam("postgres")
            inside += [f"--setuid={owner.pw_uid}", f"--setgid={owner.pw_gid}"]
        return [*inside, f"--wd={self.folder / 'work'}", "--", *command]

    def _environment(self, name: str) -> dict[str, str]:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        given = self.services[name].get("environment", {})
        own = {"PGDATA": f"{self.folder}/postgres/data"} if name == "postgres" else {}
        return {**kept, **{key: str(text) for key, text in given.items()}, **own}

    def _first_files(self) -> None:
        """As PostgreSQL's image makes them of its variables, with a socket that its user may write."""
        assert self.postgres is not None
        given = self.services["postgres"]["environment"]
        folder = self.folder / "postgres"
        shutil.chown(folder, "postgres", "postgres")
        password = folder / "password"
        password.write_text(given["POSTGRES_PASSWORD"])
        shutil.chown(password, "postgres")
        as_user = {"user": "postgres", "cwd": folder, "check": True, "capture_output": True}
        asks = ["--auth=scram-sha-256", f"--username={given['POSTGRES_USER']}"]
        data = f"--pgdata={folder}/data"
        subprocess.run(
            [self.postgres / "initdb", data, *asks, f"--pwfile={password}"],
            **as_user,  # type: ignore[call-overload]
        )
        password.unlink()
        create = f"create database {given['POSTGRES_DB']};\n"
        subprocess.run(
            [self.postgres / "postgres", "--single", "-D", f"{folder}/data", "postgres"],
            input=create.encode(),
            **as_user,  # type: ignore[call-overload]
        )
