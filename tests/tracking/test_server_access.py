"""`odtrain server --auth`: who is asked, what they may do, and that nothing keeps what they said."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, UNAUTHENTICATED
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.certificates import certificate
from support.commands import TINY_RUN, odtrain
from support.stores import QUIET, free_port
from support.web_pages import running

from odtrain.config.compose import section
from odtrain.config.schema import TrackingConfig
from odtrain.errors import ConfigError, TrackingError
from odtrain.promotion.promote import sync_all
from odtrain.registry.versions import find_version
from odtrain.tracking.server import find_postgres
from odtrain.tracking.server_access import access
from odtrain.tracking.sign_in import DAY, SignIn, Tokens
from odtrain.tracking.store import failure, open_client
from odtrain.tracking.tracker import Tracker

AS_TINY = (*TINY_RUN, "export.formats=[tflite_fp32]", "evaluate.every=0")
PASSWORDS = {name: f"password-of-{name}" for name in ("alice", "bob", "carol", "dave")}
NEW_PASSWORD = "another-password-of-dave"


# ---- without a server


def test_a_certificate_goes_with_its_key(tmp_path):
    files = certificate(tmp_path)
    reached = access(False, "EDIT", *files)
    assert (reached.scheme, reached.permission, reached.admin_password) == ("https", None, None)
    with pytest.raises(ConfigError) as caught:
        access(False, "EDIT", files[0])
    assert str(caught.value) == (
        "odtrain server: a certificate and its key go together.\n"
        "  Give both: --tls-cert FILE --tls-key FILE."
    )


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("another", "key values mismatch"),
        ("text", "one of them is no PEM file"),
        ("missing", "No such file"),
    ],
)
def test_a_key_that_is_none_of_the_certificate_is_told(tmp_path, wrong, problem):
    cert, _ = certificate(tmp_path)
    (tmp_path / "b").mkdir()
    key = certificate(tmp_path / "b")[1]
    if wrong == "text":
        key.write_text("hello")
    elif wrong == "missing":
        key.unlink()
    with pytest.raises(ConfigError) as caught:
        access(False, "EDIT", cert, key)
    assert str(caught.value).startswith(f"--tls-cert {cert} --tls-key {key}: cannot be used: ")
    assert problem.lower() in str(caught.value).lower()


def test_without_what_mlflow_needs_to_ask_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr("odtrain.tracking.server_access.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        access(True, "EDIT")
    assert str(caught.value) == (
        "odtrain server --auth: MLflow's server asks for names only with a package more.\n"
        "  python -m pip install 'mlflow[auth]'"
    )


@pytest.fixture
def users() -> dict[str, str]:
    """Name -> what the store keeps of the password."""
    return {"alice": "hash 1", "bob": "hash 2"}


@pytest.fixture
def tokens(users) -> Tokens:
    def user_of(name: str) -> SimpleNamespace:
        if name not in users:
            raise MlflowException("no such user")
        return SimpleNamespace(password_hash=users[name])

    return Tokens(user_of, "a key")


def test_a_token_stands_for_its_user(tokens):
    made = tokens.made_for("alice", 1)
    assert tokens.user(made) == "alice"
    taken = tokens.beside(lambda username, password: False)
    assert (taken("alice", made), taken("bob", made)) == (True, False)


def test_a_token_ends_with_its_day_the_password_the_user_and_the_key(tokens, users, monkeypatch):
    made = tokens.made_for("alice", 1)
    assert Tokens(tokens._user_of, "another key").user(made) is None
    with monkeypatch.context() as later:
        now = time.time()
        later.setattr("odtrain.tracking.sign_in.time.time", lambda: now + DAY + 1)
        assert tokens.user(made) is None
    users["alice"] = "hash 3"
    assert tokens.user(made) is None
    del users["alice"]
    assert tokens.user(made) is None


@pytest.mark.parametrize("token", ["", "x", "a.b", "eyJuYW1lIjoiYm9iIn0.AAAA", "\u00e4"])
def test_what_is_no_token_stands_for_nobody(tokens, token):
    assert tokens.user(token) is None


@pytest.fixture
def desk(tokens) -> Iterator[str]:
    """The address of an application behind `SignIn` that says as whom it is asked."""

    async def as_whom(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.headers.get("authorization", "nobody"))

    app = Starlette(routes=[Route("/{path:path}", as_whom, methods=["GET", "PATCH"])])
    with running(SignIn(app, tokens)) as port:
        yield f"http://127.0.0.1:{port}"


def test_mlflow_is_asked_as_the_user_for_whom_a_token_stands(desk, tokens):
    made = tokens.made_for("alice", 1)
    answer = requests.get(f"{desk}/x", headers={"Authorization": f"Bearer {made}"}, timeout=10)
    sent = base64.b64decode(answer.text.removeprefix("Basic ")).decode()
    assert sent == f"alice:{made}"
    assert requests.get(f"{desk}/x", timeout=10).text == "nobody"


def test_a_token_that_stands_for_nobody_gets_no_further(desk):
    answer = requests.get(f"{desk}/x", headers={"Authorization": "Bearer x"}, timeout=10)
    said = "Name and password are wrong, or were not sent.\n"
    assert (answer.status_code, answer.text) == (401, said)


@pytest.mark.parametrize(
    "path", ["api/2.0/mlflow/users/update-password", "ajax-api/3.0/mlflow/roles/x"]
)
def test_a_token_changes_no_users_however_it_is_shown(desk, tokens, path):
    made = tokens.made_for("alice", 1)
    for who in ({"headers": {"Authorization": f"bearer {made}"}}, {"auth": ("alice", made)}):
        answer = requests.patch(f"{desk}/{path}", timeout=10, **who)
        said = "A token changes no users, passwords and rights: show name and password.\n"
        assert (answer.status_code, answer.text) == (403, said)
        assert requests.get(f"{desk}/{path}", timeout=10, **who).status_code == 200


def test_a_refusal_that_is_about_people_is_told_in_a_line():
    unknown = failure("https://h", MlflowException("a page", error_code=UNAUTHENTICATED))
    assert str(unknown) == (
        "https://h: does not know who asks (status 401).\n"
        "  Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    )
    denied = failure("https://h", MlflowException("a page", error_code=PERMISSION_DENIED))
    assert str(denied) == (
        "https://h: does not allow that to who asks (status 403).\n"
        "  Who manages the experiment or the model, or an administrator, may give you the right."
    )


# ---- a real server


class Asking:
    """`odtrain server --auth` with a certificate of its own, in a folder, as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key = certificate(folder)
        self.port = free_port()
        self.uri = f"https://localhost:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "odtrain", "server", "--workers", "1", "--auth"]
        command += ["--folder", str(self.folder / "srv"), "--port", str(self.port)]
        command += ["--tls-cert", str(self.certificate), "--tls-key", str(self.key)]
        inherited = {key: text for key, text in os.environ.items() if "MLFLOW" not in key}
        with (self.folder / "said").open("ab") as said:
            self.process = subprocess.Popen(command, env=inherited, stdout=said, stderr=said)
        deadline = time.monotonic() + 240
        while "  stop  " not in (self.folder / "said").read_text():
            assert self.process.poll() is None, (self.folder / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def end(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    def as_user(self, name: str, password: str | None = None) -> dict[str, str]:
        """The environment of a client."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.certificate),
            "MLFLOW_TRACKING_USERNAME": name,
            "MLFLOW_TRACKING_PASSWORD": password or PASSWORDS[name],
        }

    def ask(self, method: str, path: str, name: str, password: str, **options: object):
        return requests.request(
            method,
            f"{self.uri}{path}",
            auth=(name, password),
            verify=str(self.certificate),
            timeout=30,
            **options,  # type: ignore[arg-type]
        )

    def token_of(self, name: str, password: str | None = None, query: str = "") -> str:
        answer = self.ask("POST", f"/odtrain/token{query}", name, password or PASSWORDS[name])
        assert answer.status_code == 200, answer.text
        return answer.text.strip()


@pytest.fixture(scope="module")
def asking() -> Iterator[Asking]:
    """With alice, bob and dave, and carol who may not even look into the experiment `Default`."""
    if find_postgres() is None:
        pytest.skip("needs PostgreSQL's programs (apt install postgresql)")
    pytest.importorskip("psycopg2")
    pytest.importorskip("flask_wtf")
    folder = Path(tempfile.mkdtemp(prefix="odtrain-auth-"))
    folder.chmod(0o755)
    server = Asking(folder)
    try:
        server.start()
        kept = folder / "srv/admin_password"
        assert kept.stat().st_mode & 0o077 == 0
        admin = kept.read_text().strip()
        PASSWORDS["admin"] = admin
        kept.unlink()
        for name in ("alice", "bob", "carol", "dave"):
            user = {"username": name, "password": PASSWORDS[name]}
            made = server.ask("POST", "/api/2.0/mlflow/users/create", "admin", admin, json=user)
            assert made.status_code == 200, made.text
        right = {
            "username": "carol",
            "resource_type": "experiment",
            "resource_id": "0",
            "permission": "DENY",
        }
        given = server.ask(
            "POST", "/api/3.0/mlflow/users/permissions/grant", "admin", admin, json=right
        )
        assert given.status_code == 200, given.text
        yield server
    finally:
        with contextlib.suppress(Exception):
            server.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def alone(monkeypatch):
    """This process is a client of no one yet, and of no one afterwards."""

    def becomes(environment: dict[str, str]) -> None:
        for key, text in environment.items():
            monkeypatch.setenv(key, text)

    return becomes


def leaks(*folders: Path) -> list[tuple[str, str]]:
    """File and secret, wherever one is kept."""
    secrets = [*PASSWORDS.values(), NEW_PASSWORD]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert files
    found = []
    for file in files:
        content = file.read_bytes()
        found += [(str(file), one) for one in secrets if one.encode() in content]
    return found


def train(asking: Asking, shapes: Path, folder: Path, environment: dict[str, str], *more: str):
    folder.mkdir(exist_ok=True)
    command = ["train", f"data.images={shapes}", *AS_TINY, *more]
    done = odtrain(command, folder, **environment)
    (folder / "said").write_text(done.stdout + done.stderr)
    return done


@pytest.mark.long
def test_who_registers_may_promote_only_where_that_is_allowed(asking, shapes, tmp_path, alone):
    """Alice makes the model and manages it; bob's versions wait for her, and nobody's secrets are kept."""
    first = train(asking, shapes, tmp_path / "alice", asking.as_user("alice"))
    assert first.returncode == 0, first.stderr
    assert "Registered models:/shapes/1 is @champion." in first.stdout
    token = asking.token_of("bob", query="?days=1")
    as_bob = {
        key: text
        for key, text in asking.as_user("bob").items()
        if "NAME" not in key and "WORD" not in key
    }
    as_bob["MLFLOW_TRACKING_TOKEN"] = PASSWORDS["token of bob"] = token
    easier = ("registry.max_map_loss=1", "registry.min_recall=0", "train.seed=7")
    second = train(asking, shapes, tmp_path / "bob", as_bob, *easier)
    assert second.returncode == 0, second.stderr
    wanted = (
        "models:/shapes/2 is @challenger, and passed every check. "
        "models:/shapes/2: you may not make it @champion.\n"
        "  Who manages the model may: odtrain models promote shapes 2"
    )
    assert wanted in second.stdout + second.stderr
    promoted = ["models", "promote", "shapes", "2", *easier[:2]]
    refused = odtrain(promoted, tmp_path / "bob", **as_bob)
    assert refused.returncode == 1
    assert refused.stderr.endswith(wanted.partition(". ")[2] + "\n")
    alone(asking.as_user("alice"))
    aliases = {
        alias: find_version(f"models:/shapes@{alias}").number
        for alias in ("champion", "challenger")
    }
    assert aliases == {"champion": "1", "challenger": "2"}
    done = odtrain(promoted, tmp_path / "alice", **asking.as_user("alice"))
    assert done.returncode == 0, done.stderr
    assert find_version("models:/shapes@champion", asking.uri).number == "2"
    assert leaks(tmp_path, asking.folder) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("alice", "wrong", "does not know who asks (status 401).\n  Set MLFLOW_TRACKING_USERNAME"),
        ("nobody", "wrong", "does not know who asks (status 401).\n  Set MLFLOW_TRACKING_USERNAME"),
        (
            "carol",
            None,
            "does not allow that to who asks (status 403).\n  Who manages the experiment",
        ),
    ],
)
def test_who_is_refused_leaves_nothing(asking, shapes, tmp_path, alone, name, password, said):
    done = train(asking, shapes, tmp_path / "at", asking.as_user(name, password))
    assert done.returncode == 1
    assert f"{asking.uri}: {said}" in done.stderr
    assert not (tmp_path / "at/outputs").exists()
    alone(asking.as_user("admin"))
    client = open_client(asking.uri)
    users = {run.data.tags["mlflow.user"] for run in client.search_runs(["0"])}
    assert not users & {"carol", "nobody"}
    assert leaks(tmp_path, asking.folder) == []


@pytest.mark.long
def test_what_a_changed_password_keeps_back_is_sent_by_the_new_one(asking, tmp_path, alone):
    alone(asking.as_user("dave"))
    config = section(TrackingConfig, **{**vars(QUIET), "uri": asking.uri, "experiment": "of dave"})
    tracker = Tracker(config, tmp_path / "outputs")
    with tracker.start("train"):
        tracker.log({"train/loss": 2.0}, 1)
        tracker.flush()
        new = {
            "username": "dave",
            "password": NEW_PASSWORD,
            "current_password": PASSWORDS["dave"],
        }
        path = "/api/2.0/mlflow/users/update-password"
        assert asking.ask("PATCH", path, "dave", PASSWORDS["dave"], json=new).status_code == 200
        tracker.log({"train/loss": 1.0}, 2)
    with pytest.raises(TrackingError, match=r"does not know who asks \(status 401\)"):
        sync_all(tmp_path / "outputs", str(tmp_path / "outputs"))
    alone(asking.as_user("dave", NEW_PASSWORD))
    assert sync_all(tmp_path / "outputs", str(tmp_path / "outputs")).startswith("1 runs sent")
    run = open_client(asking.uri).get_run(str(tracker.run_id))
    assert (run.info.status, run.data.metrics["train/loss"]) == ("FINISHED", 1.0)
    assert leaks(tmp_path, asking.folder) == []


@pytest.mark.long
def test_a_token_is_made_for_who_has_the_password_alone(asking):
    def status(*who: str, query: str = "", method: str = "POST") -> int:
        return asking.ask(method, f"/odtrain/token{query}", *who).status_code

    token = asking.token_of("alice")
    assert status("alice", "wrong") == 401
    assert status("alice", token) == 401
    assert status("alice", PASSWORDS["alice"], query="?days=0") == 400
    assert status("alice", PASSWORDS["alice"], query="?days=367") == 400
    assert status("alice", PASSWORDS["alice"], method="GET") == 405
    shown = {"Authorization": f"Bearer {token}"}
    path = f"{asking.uri}/api/2.0/mlflow/users/current"
    answer = requests.get(path, headers=shown, verify=str(asking.certificate), timeout=30)
    assert json.loads(answer.text)["user"]["username"] == "alice"
    user = {"username": "alice", "password": "taken-over-by-a-token", "current_password": token}
    for who in ({"headers": shown}, {"auth": ("alice", token)}):
        taken = requests.patch(
            f"{asking.uri}/api/2.0/mlflow/users/update-password",
            json=user,
            verify=str(asking.certificate),
            timeout=30,
            **who,
        )
        said = "A token changes no users, passwords and rights: show name and password.\n"
        assert (taken.status_code, taken.text) == (403, said)
    wrong = {"Authorization": f"Bearer {token[:-1]}"}
    assert (
        requests.get(path, headers=wrong, verify=str(asking.certificate), timeout=30).status_code
        == 401
    )


@pytest.mark.long
def test_started_again_it_knows_its_users_and_shows_no_password(asking):
    token = asking.token_of("alice")
    (asking.folder / "said").write_text("")
    asking.end()
    asking.start()
    said = (asking.folder / "said").read_text()
    assert re.search("administrator|password is", said) is None
    assert not (asking.folder / "srv/admin_password").exists()
    shown = {"Authorization": f"Bearer {token}"}
    path = f"{asking.uri}/api/2.0/mlflow/users/current"
    answer = requests.get(path, headers=shown, verify=str(asking.certificate), timeout=30)
    assert answer.status_code == 200


@pytest.mark.long
def test_a_certificate_that_nobody_vouches_for_is_told(asking, tmp_path):
    environment = asking.as_user("alice")
    del environment["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    done = odtrain(["models", "list"], tmp_path, **environment)
    assert done.returncode == 1
    assert f"{asking.uri}: cannot be reached: " in done.stderr
    assert done.stderr.endswith(
        "Is it the right one? Name who vouches for it: MLFLOW_TRACKING_SERVER_CERT_PATH=FILE.\n"
    )
