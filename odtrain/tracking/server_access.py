"""How `odtrain server` is reached: who has to say who they are, and by which certificate it answers."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shlex
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from odtrain.errors import ConfigError
from odtrain.io.atomic import PRIVATE, write_text
from odtrain.tracking.mlflow_process import answers

ADMIN = "admin"
ADMIN_FILE, KEY_FILE, RULES_FILE = "admin_password", "secret_key", "auth.ini"
WHO_AM_I = "/api/2.0/mlflow/users/current"
CACHED_SECONDS = 30
"""For which a worker takes a name and a password without looking again: a look takes 0.1 s of its time."""
NAME, PASSWORD = "MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD"
SECRET_KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
OF_ONES_OWN = (
    "MLflow's server asks for names only with a package more.",
    "python -m pip install 'mlflow[auth]'",
)


@dataclass(frozen=True)
class Tls:
    """A certificate, with those that vouch for it behind it, and its key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Access:
    """How a server is reached.

    Attributes:
        tls: by which it answers; None without encryption.
        permission: of users, where nothing else is said; None where nobody is asked who they are.
        admin_password: made for the first start; None where the environment has one.
    """

    tls: Tls | None = None
    permission: str | None = None
    admin_password: str | None = None

    @property
    def scheme(self) -> str:
        """Of its addresses."""
        return "https" if self.tls else "http"

    @property
    def options(self) -> list[str]:
        """For `mlflow server`."""
        options = ["--app-name", "basic-auth"] if self.permission else []
        if self.tls:
            files = [
                "--ssl-certfile",
                str(self.tls.certificate),
                "--ssl-keyfile",
                str(self.tls.key),
            ]
            options += ["--uvicorn-opts", shlex.join(files)]
        return options

    def environment(self, folder: Path) -> dict[str, str]:
        """For `mlflow server`, whose rules and key are kept in `folder`."""
        if not self.permission:
            return {}
        rules = folder / RULES_FILE
        write_text(rules, _rules(self.permission))
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(rules),
            NAME: _admin(),
            PASSWORD: self.admin_password or os.environ[PASSWORD],
            SECRET_KEY: os.environ.get(SECRET_KEY) or _kept_key(folder / KEY_FILE),
        }

    def greeting(self, address: str, folder: Path) -> list[str]:
        """What clients need beside the address; an administrator's password that was made just now."""
        if not self.permission:
            return []
        lines = [
            "  they say who     export MLFLOW_TRACKING_USERNAME=NAME MLFLOW_TRACKING_PASSWORD=PASSWORD",
            f"  or by a token    curl --user NAME --request POST {address}/odtrain/token",
        ]
        made = self.admin_password
        if made and answers(f"{address}{WHO_AM_I}", (_admin(), made)):
            lines.append(f"  administrator    {_admin()}, whose password is {_shown(made, folder)}")
        return lines


OPEN = Access()
"""To whoever reaches it, unencrypted."""


def access(
    auth: bool, permission: str, certificate: Path | None = None, key: Path | None = None
) -> Access:
    """How the server is reached, once it is known that it can be.

    Raises:
        ConfigError: what asks for names is not installed, or certificate and key are none.
    """
    if auth and importlib.util.find_spec("flask_wtf") is None:
        raise ConfigError("odtrain server --auth", *OF_ONES_OWN)
    made = secrets.token_urlsafe(16) if auth and not os.environ.get(PASSWORD) else None
    return Access(_tls(certificate, key), permission if auth else None, made)


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError(
            "odtrain server",
            "a certificate and its key go together.",
            "Give both: --tls-cert FILE --tls-key FILE.",
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:
        of_files = None if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
        reason = getattr(error, "reason", None) or of_files or "one of them is no PEM file"
        raise ConfigError(
            f"--tls-cert {certificate} --tls-key {key}",
            f"cannot be used: {str(reason).replace('_', ' ').lower()}.",
            "They are PEM files, the key without a password, and belong together.",
        ) from None
    return Tls(certificate.absolute(), key.absolute())


def _admin() -> str:
    return os.environ.get(NAME) or ADMIN


def _rules(permission: str) -> str:
    """What MLflow's basic-auth app reads; the database, which may have a password, is not written down."""
    return (
        "[mlflow]\n"
        f"default_permission = {permission}\n"
        "database_uri = sqlite://\n"
        f"auth_cache_ttl_seconds = {CACHED_SECONDS}\n"
    )


def _kept_key(file: Path) -> str:
    """Signs tokens and forms; made at the first start."""
    if not file.exists():
        write_text(file, secrets.token_urlsafe(32), mode=PRIVATE)
    return file.read_text(encoding="utf-8")


def _shown(password: str, folder: Path) -> str:
    """The password for a terminal; elsewhere, where it would stay in a log, the file that has it."""
    if sys.stdout.isatty():
        return f"{password} (not shown again)"
    file = folder / ADMIN_FILE
    write_text(file, f"{password}\n", mode=PRIVATE)
    return f"in {file}: delete that file"
