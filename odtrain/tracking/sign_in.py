"""Who may do what at `odtrain server --auth`: what MLflow's process does beside its own basic-auth app.

MLflow knows users, roles and permissions (READ, USE, EDIT, MANAGE) for experiments and registered models.
Added here are tokens, which stand for a user without the password, and that a champion is changed by who
may MANAGE its model alone: EDIT is what registering takes.

What is reached into is not part of MLflow's interface: a version in which it is not there does not start.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from odtrain.tracking.names import CHAMPION

MLFLOWS_AUTH, OURS_AUTH = "mlflow.server.auth:create_app", "odtrain.tracking.sign_in:app"
TOKEN_PATH = "/odtrain/token"
TOKEN_DAYS, MOST_DAYS = 30, 366
DAY = 24 * 60 * 60
SALT = "odtrain token"
DENIED = "Name and password are wrong, or were not sent.\n"
CHALLENGE = {"WWW-Authenticate": 'Basic realm="mlflow"'}
HOW_LONG = f"days=N is from 1 to {MOST_DAYS}.\n"
OF_PEOPLE = re.compile("/mlflow/(users|roles)/")
NOT_BY_TOKEN = "A token changes no users, passwords and rights: show name and password.\n"
CHAMPIONS_VERSION = (
    "/model-versions/set-tag",
    "/model-versions/delete-tag",
    "/model-versions/update",
)
"""Ends of paths by which a version is changed: its tags say which file stands for it."""


def settle() -> tuple[Any, Tokens]:
    """MLflow's module of basic authentication, with users in the server's own database and our additions.

    And the tokens that it takes beside passwords.
    """
    from mlflow.server import auth

    database = os.environ["MLFLOW_BACKEND_STORE_URI"]
    auth.auth_config = auth.auth_config._replace(database_uri=database)
    tokens = Tokens(auth.store.get_user, auth.get_flask_server_secret_key())
    auth.store.authenticate_user = tokens.beside(auth.store.authenticate_user)  # type: ignore[method-assign]
    _keep_champions(auth)
    return auth, tokens


def app() -> ASGIApp:
    """MLflow's application for who has a name and a password, or a token."""
    from odtrain.tracking.guarded_mlflow import Guarded

    auth, tokens = settle()
    return Guarded(SignIn(auth.create_app(), tokens))


# ---- tokens


class Tokens:
    """Signed texts that stand for a user until a day, or until the user gets another password."""

    def __init__(self, user_of: Callable[[str], Any], key: str) -> None:
        """`user_of` gives a user of MLflow's store by name, and raises where there is none."""
        from itsdangerous import URLSafeSerializer

        self._user_of = user_of
        self._signer = URLSafeSerializer(key, salt=SALT)

    def made_for(self, name: str, days: int) -> str:
        """A token of a user who is there."""
        content = {"name": name, "until": int(time.time()) + days * DAY, "of": self._state(name)}
        return str(self._signer.dumps(content))

    def user(self, token: str) -> str | None:
        """The name of the user for whom a token stands; None where it stands for nobody."""
        from itsdangerous import BadData
        from mlflow.exceptions import MlflowException

        try:
            said = self._signer.loads(token)
            good = said["until"] > time.time() and said["of"] == self._state(said["name"])
            return str(said["name"]) if good else None
        except (BadData, MlflowException):
            return None

    def beside(self, by_password: Callable[..., bool]) -> Callable[..., bool]:
        """MLflow's check of a name and a password, which takes a token of that name as well."""

        def authenticate_user(username: str, password: str, **options: Any) -> bool:
            return self.user(password) == username or by_password(username, password, **options)

        return authenticate_user

    def _state(self, name: str) -> str:
        """Changes with the password."""
        return hashlib.sha256(self._user_of(name).password_hash.encode()).hexdigest()[:16]


class SignIn:
    """MLflow's application, which knows names and passwords alone, for who shows a token or asks for one."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the token's user in its place; answer at `TOKEN_PATH`."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        authorization = Headers(scope=scope).get("authorization") or ""
        bearer = authorization[:7].lower() == "bearer "
        token = authorization[7:].strip() if bearer else _taken_apart(authorization)[1]
        name = await run_in_threadpool(self._tokens.user, token)
        if name is not None and bearer:
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)["authorization"] = _basic(name, token)
        answer: ASGIApp = self._app
        if name is None and bearer:
            answer = PlainTextResponse(DENIED, 401, CHALLENGE)
        elif scope["path"] == TOKEN_PATH:
            answer = await self._token(Request(scope, receive))
        elif name is not None and scope["method"] != "GET" and OF_PEOPLE.search(scope["path"]):
            answer = PlainTextResponse(NOT_BY_TOKEN, 403)
        return await answer(scope, receive, send)

    async def _token(self, request: Request) -> Response:
        if request.method != "POST":
            return PlainTextResponse("POST it.\n", 405, {"Allow": "POST"})
        name = await run_in_threadpool(self._who, request.headers.get("authorization") or "")
        if name is None:
            return PlainTextResponse(DENIED, 401, CHALLENGE)
        days = request.query_params.get("days", str(TOKEN_DAYS))
        if not re.fullmatch("[0-9]{1,3}", days) or not 0 < int(days) <= MOST_DAYS:
            return PlainTextResponse(HOW_LONG, 400)
        made = await run_in_threadpool(self._tokens.made_for, name, int(days))
        return PlainTextResponse(f"{made}\n", headers={"Cache-Control": "no-store"})

    def _who(self, authorization: str) -> str | None:
        """Whose name and password these are; a token makes no other one."""
        from mlflow.server import auth

        name, password = _taken_apart(authorization)
        known = self._tokens.user(password) is None
        return name if known and auth.store.authenticate_user(name, password) else None


def _taken_apart(authorization: str) -> tuple[str, str]:
    """Name and password of a header of Basic; both empty where it is none."""
    kind, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials).decode() if kind.lower() == "basic" else ""
    except ValueError:
        decoded = ""
    name, _, password = decoded.partition(":")
    return name, password


def _basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


# ---- champions


def _keep_champions(auth: Any) -> None:
    """Have the alias `champion`, and the version that has it, changed by who may manage the model alone."""
    rules = auth.BEFORE_REQUEST_VALIDATORS
    aliases = (
        auth.validate_can_set_model_or_prompt_version_alias,
        auth.validate_can_delete_model_or_prompt_version_alias,
    )
    found = 0
    for (path, method), may in list(rules.items()):
        if may in aliases:
            rules[path, method] = _kept(auth, may, _names_champion)
        elif path.endswith(CHAMPIONS_VERSION):
            rules[path, method] = _kept(auth, may, _is_of_champion)
        else:
            continue
        found += 1
    if found < len(aliases) + len(CHAMPIONS_VERSION):
        raise RuntimeError("this MLflow keeps its rules in another way")


def _kept(
    auth: Any, may: Callable[[], bool], of_champion: Callable[[Any], bool]
) -> Callable[[], bool]:
    def may_indeed() -> bool:
        return may() and (not of_champion(auth) or auth.validate_can_manage_registered_model())

    return may_indeed


def _names_champion(auth: Any) -> bool:
    return bool(auth._get_request_param("alias") == CHAMPION)


def _is_of_champion(auth: Any) -> bool:
    ask = auth._get_request_param
    version = auth._get_model_registry_store().get_model_version(ask("name"), ask("version"))
    return CHAMPION in version.aliases
