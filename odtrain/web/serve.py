"""A model behind a page and two addresses: drop a picture, or send one, and get what is found in it.

`/detect` takes a picture's bytes. `/invocations` is MLflow's own scoring server, for a registered model:
what `mlflow models serve` answers, this answers too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from odtrain.config.schema import Config, ServeConfig
from odtrain.config.shipped import shipped
from odtrain.errors import ConfigError, OdtrainError
from odtrain.media.palette import css_colours
from odtrain.model_files.thresholds import Thresholds, choose_thresholds
from odtrain.model_source import Source, open_source
from odtrain.predict.predict import tell_nameless
from odtrain.registry.download import scoring_app
from odtrain.system.workers import cores
from odtrain.tracking.store import tracking_uri
from odtrain.web.bounds import (
    MOST_PICTURES,
    REFUSALS,
    Bodies,
    TooLargeError,
    answer_to,
    nested_too_deep,
    refused,
    shortened,
)
from odtrain.web.guard import HEALTH, page, serve
from odtrain_runtime.answers import as_json, asked_score, failure, sent_picture
from odtrain_runtime.seen.usage_log import LogSettings, UsageLog
from odtrain_runtime.turns import PixelTurns

logger = logging.getLogger(__name__)

SAMPLE = shipped("data/panels/images") / "test/panel-test-0003.jpg"


def serve_model(config: Config, token: str | None = None) -> None:
    """Serve the model of `source=` until Ctrl-C, to who shows the token if there is one.

    Raises:
        ConfigError: the source is not given, or the address cannot be had.
        OdtrainError: the model is not there or cannot be run.
    """
    settings = config.serve
    asked = config.predict
    source = open_source(config.source, config, cores(), asked.threads, asked.tiles)
    tell_nameless(source)
    thresholds = choose_thresholds(asked, source.class_names, source.passport, source.name)
    with usage_log(settings, source) as log:
        scoring = (
            scoring_app(
                source.name,
                tracking_uri(config.tracking),
                max_pixels_of(settings),
                MOST_PICTURES,
                log,
            )
            if source.name.startswith("models:/")
            else None
        )
        app = build_app(source, thresholds, settings, scoring, log)
        names = settings.allowed_hosts
        where = (settings.host, settings.port, names, "serve page", settings.open_browser)
        serve(app, *where, token)


@contextmanager
def usage_log(settings: ServeConfig, source: Source) -> Iterator[UsageLog | None]:
    """The log that `serve.log` asks for, written to its end afterwards; None where it asks for none.

    Raises:
        ConfigError: its folder cannot be written.
    """
    if settings.log is None:
        yield None
        return
    folder = Path(settings.log)
    try:
        log = UsageLog(
            LogSettings(folder, settings.log_pictures, settings.log_megabytes),
            source.name,
            source.class_names,
            source.run_id or source.passport.get("run", ""),
        )
    except OSError as error:
        problem = f"cannot be written: {error.strerror}."
        raise ConfigError(f"serve.log={folder}", problem, "Name a folder that can be.") from error
    with closing(log):
        yield log


def max_pixels_of(settings: ServeConfig) -> int:
    """`serve.max_megapixels` in pixels."""
    return round(settings.max_megapixels * 1_000_000)


def build_app(
    source: Source,
    thresholds: Thresholds,
    settings: ServeConfig,
    scoring: ASGIApp | None = None,
    log: UsageLog | None = None,
) -> Starlette:
    """The page and what it calls.

    Args:
        source: the model.
        thresholds: of the page and of `/detect`, where a request names none.
        settings: limits of a request.
        scoring: MLflow's scoring server, which gets every address that is not the page's.
        log: of what `/detect` saw and found.
    """
    limit = round(settings.max_megabytes * 1_000_000)
    bodies, turns = Bodies(), PixelTurns()
    pool = ThreadPoolExecutor(cores(), "odtrain-serve")

    def look(body: bytes, chosen: Thresholds) -> dict[str, Any]:
        with sent_picture(body, settings.max_megapixels, turns) as image:
            begun = time.perf_counter()
            found = source.detect_all([image])[0]
            milliseconds = 1000 * (time.perf_counter() - begun)
            if log is not None:
                log.add(image, found)
            return as_json(image, chosen.keep(found), source.class_names, milliseconds)

    async def detect(request: Request) -> Response:
        asked = request.query_params.get("threshold")
        chosen = thresholds if asked is None else Thresholds(asked_score(asked))
        async with bodies.of(request, limit) as body:
            found = await asyncio.get_running_loop().run_in_executor(pool, look, body, chosen)
        return JSONResponse(found)

    routes: list[Any] = [
        HEALTH,
        Route("/", lambda request: page("serve")),
        Route("/sample", lambda request: _sample()),
        Route("/about", lambda request: JSONResponse(_about(source, thresholds, settings))),
        Route("/detect", detect, methods=["POST"]),
    ]
    if scoring is not None:
        routes.append(Mount("/", _Limited(scoring, bodies, limit)))
    else:
        routes.append(Route("/invocations", _unregistered, methods=["POST"]))
    too_large = f"The request is larger than {settings.max_megabytes:g} MB (serve.max_megabytes)."
    handlers: Mapping[Any, Any] = {
        **REFUSALS,
        TooLargeError: answer_to(lambda error: refused(too_large, 413)),
        OdtrainError: answer_to(_failed),
    }
    return Starlette(routes=routes, exception_handlers=handlers)


def _sample() -> Response:
    """The picture that whoever has none at hand tries the model on."""
    if not SAMPLE.is_file():
        return refused("There is no sample.", 404)
    return Response(SAMPLE.read_bytes(), media_type="image/jpeg")


def _about(source: Source, thresholds: Thresholds, settings: ServeConfig) -> dict[str, Any]:
    return {
        "source": source.name,
        "classes": list(source.class_names),
        "colours": css_colours(),
        "threshold": thresholds.lowest,
        "max_megabytes": settings.max_megabytes,
        "sample": SAMPLE.name if SAMPLE.is_file() else None,
    }


def _failed(error: Any) -> Response:
    status, message = failure(error)
    return refused(message, status)


def _unregistered(request: Request) -> Response:
    said = "Only a registered model (source=models:/NAME@ALIAS) answers here; send pictures to /detect."
    return refused(said, 404)


class _Limited:
    """MLflow's application behind bounds: of what is sent, and of what errors say."""

    def __init__(self, app: ASGIApp, bodies: Bodies, limit: int) -> None:
        self._app = app
        self._bodies = bodies
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, or say 413, before the application sees the request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        async with self._bodies.of(Request(scope, receive), self._limit) as body:
            answer = await self._answer(scope, receive, body)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, body: bytes) -> Response:
        if await run_in_threadpool(nested_too_deep, body):
            return refused("The request is nested too deep.", 400)
        sent = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return sent.pop() if sent else await receive()

        status, content, kind = 500, bytearray(), None

        async def keep(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = Headers(raw=message["headers"]).get("content-type")
            content.extend(message.get("body", b""))

        try:
            await self._app(scope, replay, keep)
        except Exception as error:
            logger.warning(f"/invocations: {type(error).__name__}: {shortened(str(error))}")
            return refused("The request could not be answered.", 500)
        if status < 400:
            return Response(bytes(content), status, media_type=kind)
        return refused(_message_in(bytes(content)), status)


def _message_in(content: bytes) -> str:
    """What an error of MLflow's says, without the request that it repeats and where in the code it was."""
    text = content.decode("utf-8", "replace")
    try:
        said = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        said = text
    return shortened(str(said))
