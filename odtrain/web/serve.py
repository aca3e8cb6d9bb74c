"""A model behind a page and two addresses: drop a picture, or send one, and get what is found in it.

`/detect` takes a picture's bytes. `/invocations` is MLflow's own scoring server, for a registered model:
what `mlflow models serve` answers, this answers too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from odtrain.config.schema import Config, ServeConfig
from odtrain.errors import OdtrainError
from odtrain.media.draw import class_colour
from odtrain.model_files.thresholds import Thresholds, choose_thresholds
from odtrain.model_source import Source, open_source
from odtrain.predict.predict import tell_nameless
from odtrain.registry.download import scoring_app
from odtrain.system.workers import cores
from odtrain.tracking.store import tracking_uri
from odtrain.web.guard import TooLargeError, page, read_body, serve
from odtrain_runtime.answers import as_json, asked_score, failure, sent_picture

COLOURS = 256
"""Class colours that the page knows; classes beyond share them."""


def serve_model(config: Config) -> None:
    """Serve the model of `source=` until Ctrl-C.

    Raises:
        ConfigError: the source is not given, or the address cannot be had.
        OdtrainError: the model is not there or cannot be run.
    """
    settings = config.serve
    source = open_source(config.source, config, cores(), config.predict.threads)
    tell_nameless(source)
    thresholds = choose_thresholds(config.predict, source.class_names, source.passport, source.name)
    scoring = (
        scoring_app(source.name, tracking_uri(config.tracking))
        if source.name.startswith("models:/")
        else None
    )
    app = build_app(source, thresholds, settings, scoring)
    names = settings.allowed_hosts
    serve(app, settings.host, settings.port, names, "serve page", settings.open_browser)


def build_app(
    source: Source, thresholds: Thresholds, settings: ServeConfig, scoring: ASGIApp | None = None
) -> Starlette:
    """The page and what it calls.

    Args:
        source: the model.
        thresholds: of the page and of `/detect`, where a request names none.
        settings: limits of a request.
        scoring: MLflow's scoring server, which gets every address that is not the page's.
    """
    limit = round(settings.max_megabytes * 1_000_000)

    async def detect(request: Request) -> Response:
        asked = request.query_params.get("threshold")
        chosen = thresholds if asked is None else Thresholds(asked_score(asked))
        body = await read_body(request, limit)
        image = await run_in_threadpool(sent_picture, body, settings.max_megapixels)
        begun = time.perf_counter()
        found = (await run_in_threadpool(source.detect_all, [image]))[0]
        milliseconds = 1000 * (time.perf_counter() - begun)
        kept = chosen.keep(found)
        return JSONResponse(as_json(image, kept, source.class_names, milliseconds))

    routes: list[Any] = [
        Route("/", lambda request: page("serve.html")),
        *(Route(f"/{name}", _file(name)) for name in ("serve.js", "serve.css")),
        Route("/about", lambda request: JSONResponse(_about(source, thresholds, settings))),
        Route("/detect", detect, methods=["POST"]),
    ]
    if scoring is not None:
        routes.append(Mount("/", _Limited(scoring, limit)))
    else:
        routes.append(Route("/invocations", _unregistered, methods=["POST"]))
    too_large = f"The request is larger than {settings.max_megabytes:g} MB (serve.max_megabytes)."
    handlers: Mapping[Any, Any] = {
        TooLargeError: lambda request, error: _refused(too_large, 413),
        OdtrainError: _failed,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


def _file(name: str) -> Callable[[Request], Response]:
    return lambda request: page(name)


def _about(source: Source, thresholds: Thresholds, settings: ServeConfig) -> dict[str, Any]:
    colours = [
        "#" + "".join(f"{part:02x}" for part in class_colour(n)) for n in range(1, COLOURS + 1)
    ]
    return {
        "source": source.name,
        "classes": list(source.class_names),
        "colours": colours,
        "threshold": thresholds.lowest,
        "max_megabytes": settings.max_megabytes,
    }


def _refused(message: str, status: int) -> Response:
    return JSONResponse({"message": message}, status)


def _failed(request: Request, error: Any) -> Response:
    status, message = failure(error)
    return _refused(message, status)


def _unregistered(request: Request) -> Response:
    said = "Only a registered model (source=models:/NAME@ALIAS) answers here; send pictures to /detect."
    return _refused(said, 404)


class _Limited:
    """An application whose requests may have bodies of `limit` bytes at most."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, or say 413, before the application sees the request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        body = await read_body(Request(scope, receive), self._limit)

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return await self._app(scope, replay, send)
