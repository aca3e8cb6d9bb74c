"""What strangers may cost a page, over real connections."""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.browsers import soon
from support.tiny_models import model
from support.web_pages import running

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import ServeConfig
from odtrain.io import connections
from odtrain.model_files.thresholds import Thresholds
from odtrain.model_source import Source
from odtrain.web import bounds
from odtrain.web.guard import Guard
from odtrain.web.serve import _Limited, build_app, serve_model
from odtrain_runtime.callers import LOOPBACK
from odtrain_runtime.model_files import load_detectors
from odtrain_runtime.turns import PixelTurns

__all__ = ["model"]
NAMES = ("circle", "square")


async def echo(request: Request) -> PlainTextResponse:
    async with BODIES.of(request, 10_000_000) as body:
        return PlainTextResponse(str(len(body)))


BODIES = bounds.Bodies()
APP = Guard(
    Starlette(
        routes=[Route("/", echo, methods=["GET", "POST"])], exception_handlers=bounds.REFUSALS
    ),
    LOOPBACK,
)
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"


def call(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(sent)
    return connection


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def answer(connection: socket.socket) -> bytes:
    with connection:
        try:
            return b"".join(iter(lambda: connection.recv(2**16), b""))
        except ConnectionResetError:
            return b""


def test_a_request_whose_head_does_not_come_is_cut_off(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with running(APP) as port:
        for sent in (b"", HEAD, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET"):
            assert answer(call(port, sent))[:15] in (b"", b"HTTP/1.1 200 OK")


def test_a_body_that_does_not_come_is_refused(monkeypatch):
    monkeypatch.setattr(bounds, "BODY_SECONDS", 0.3)
    with running(APP) as port:
        said = answer(call(port, HEAD + b"Connection: close\r\n\r\n12345"))
    assert said.startswith(b"HTTP/1.1 408 ")
    assert said.endswith(b'{"message":"The request did not come in time."}')


def test_bodies_beyond_what_may_be_held_are_refused(monkeypatch):
    monkeypatch.setattr(bounds, "MOST_HELD", 1000)
    with running(APP) as port:
        said = requests.post(f"http://127.0.0.1:{port}", data=bytes(1001), timeout=10)
        assert (said.status_code, said.json()["message"]) == (
            503,
            "The server is busy: ask again later.",
        )
        assert requests.post(f"http://127.0.0.1:{port}", data=bytes(999), timeout=10).text == "999"


def test_connections_that_ask_nothing_do_not_keep_others_out(monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 10)
    with running(APP) as port, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(call(port, b"POST")) for _ in range(50)]
        assert requests.post(f"http://127.0.0.1:{port}", data=b"1", timeout=5).text == "1"
        soon(lambda: sum(map(is_closed, waiting)) >= 40)


def test_a_client_that_hangs_up_leaves_no_traceback(capfd):
    with running(APP) as port:
        for _ in range(5):
            call(port, HEAD + b"\r\n12345").close()
        requests.post(f"http://127.0.0.1:{port}", data=b"1", timeout=5)
        time.sleep(0.1)
    assert capfd.readouterr().err == ""


# ---- pictures


def test_pictures_wait_for_their_turn_and_a_large_one_is_worked_on_alone():
    turns, here, most = PixelTurns(100), [], []

    def work(pixels: int) -> None:
        with turns.of(pixels):
            here.append(pixels)
            most.append(sum(min(each, 100) for each in here))
            time.sleep(0.01)
            here.remove(pixels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [40, 60, 300, 50, 50, 10, 90, 100]))
    assert max(most) <= 100


def picture(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG")
    return stream.getvalue()


def test_large_pictures_that_come_at_once_are_decoded_one_after_another(model, monkeypatch):
    opened = load_detectors(model, 2, 1, NAMES)
    together, most, lock = [], [], threading.Lock()

    def detect(images):
        with lock:
            together.append(1)
            most.append(len(together))
        time.sleep(0.02)
        with lock:
            together.pop()
        return opened.detect_all(images)

    source = Source(str(model), opened, NAMES, file=model)
    monkeypatch.setattr(Source, "detect_all", lambda self, images: detect(images))
    monkeypatch.setattr("odtrain.web.serve.cores", lambda: 8)
    monkeypatch.setattr("odtrain.web.serve.PixelTurns", lambda: PixelTurns(2_000_000))
    app = build_app(source, Thresholds(0.5), section(ServeConfig))
    with running(Guard(app, LOOPBACK)) as port, ThreadPoolExecutor(8) as pool:
        post = lambda _: requests.post(  # noqa: E731
            f"http://127.0.0.1:{port}/detect", data=picture(1000), timeout=30
        )
        assert {each.status_code for each in pool.map(post, range(8))} == {200}
    assert max(most) == 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_a_picture_that_memory_does_not_hold_is_no_damaged_one(error, model, monkeypatch, capfd):
    def detect(self, images):
        raise error

    source = Source(str(model), load_detectors(model, 2, 1, NAMES), NAMES, file=model)
    monkeypatch.setattr(Source, "detect_all", detect)
    with running(build_app(source, Thresholds(0.5), section(ServeConfig))) as port:
        said = requests.post(f"http://127.0.0.1:{port}/detect", data=picture(10), timeout=30)
    assert (said.status_code, said.json()["message"]) == (
        503,
        "Memory is short here: ask again later.",
    )
    assert capfd.readouterr().err == ""


# ---- MLflow's forms


def scored(max_pictures: int = 3, max_pixels: int = 1000):
    """MLflow's scoring server on a detector that finds nothing, behind the bounds."""
    import numpy as np
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel
    from mlflow.pyfunc.model import _PythonModelPyfuncWrapper
    from mlflow.pyfunc.scoring_server import init

    from odtrain.registry.register import SIGNATURE
    from odtrain.structures import Detections
    from odtrain_runtime.pyfunc import DetectorModel

    detector = DetectorModel(max_pixels, max_pictures)
    detector.detector = lambda image: Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    wrapped = _PythonModelPyfuncWrapper(detector, None, SIGNATURE)
    scoring = init(PyFuncModel(Model(signature=SIGNATURE), wrapped))
    return Starlette(
        routes=[Route("/invocations", _Limited(scoring, bounds.Bodies(), 20_000_000))],
        exception_handlers=bounds.REFUSALS,
    )


@pytest.fixture(scope="module")
def invocations():
    with running(Guard(scored(), LOOPBACK)) as port:
        yield f"http://127.0.0.1:{port}/invocations"


def form(*pictures: bytes) -> dict[str, object]:
    return {"inputs": {"image": [base64.b64encode(each).decode() for each in pictures]}}


def said(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["message"]


def test_invocations_hold_to_the_pixels_of_a_picture(invocations):
    assert requests.post(invocations, json=form(picture(31)), timeout=30).status_code == 200
    status, message = said(requests.post(invocations, json=form(picture(32)), timeout=30))
    assert status == 400
    assert "picture 0 cannot be read: it has more than 0 million pixels." in message


def test_invocations_hold_to_a_number_of_pictures(invocations):
    status, message = said(requests.post(invocations, json=form(*[picture(9)] * 4), timeout=30))
    assert status == 400
    assert "4 pictures are more than 3." in message


def test_an_error_does_not_repeat_the_request(invocations):
    rubbish = {"inputs": {"image": ["x" * 1_000_000]}}
    status, message = said(requests.post(invocations, json=rubbish, timeout=30))
    assert status == 400
    assert "picture 0 cannot be read" in message
    assert len(message) < 1100


def test_deep_json_is_refused(invocations):
    deep = b'{"inputs": ' + b"[" * 100_000
    headers = {"Content-Type": "application/json"}
    assert said(requests.post(invocations, data=deep, headers=headers, timeout=30)) == (
        400,
        "The request is nested too deep.",
    )


def test_what_mlflow_does_not_expect_leaves_no_traceback(invocations, capfd):
    status, message = said(requests.post(invocations, data=b"{}", timeout=30))  # names no type
    assert (status, message) == (500, "The request could not be answered.")
    assert "Traceback" not in capfd.readouterr().err


def test_a_registered_model_is_scored_within_the_bounds_that_are_set(model, monkeypatch):
    handed = []
    source = Source("models:/x/1", load_detectors(model, 1, 1, NAMES), NAMES)
    monkeypatch.setattr("odtrain.web.serve.open_source", lambda *_: source)
    monkeypatch.setattr("odtrain.web.serve.scoring_app", lambda *given: handed.extend(given))
    monkeypatch.setattr("odtrain.web.serve.serve", lambda *_: None)
    serve_model(compose_config(["source=models:/x/1", "serve.max_megapixels=0.002"]))
    assert (handed[0], handed[2:]) == (
        "models:/x/1",
        [2000, bounds.MOST_PICTURES, None],
    )
