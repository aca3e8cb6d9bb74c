"""The standard library's server, over real connections: it answers as `odtrain serve` does."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace

import pytest
import requests
from PIL import Image
from support.tiny_models import model
from support.web_pages import running

import odtrain_runtime
from odtrain.config.compose import section
from odtrain.config.schema import ServeConfig
from odtrain.model_files.thresholds import Thresholds
from odtrain.model_source import Source
from odtrain.web.guard import Guard
from odtrain.web.serve import build_app
from odtrain_runtime import serve as served
from odtrain_runtime.callers import LOOPBACK
from odtrain_runtime.model_files import load_detectors
from odtrain_runtime.serve import AddressError, DetectorServer, Limits

__all__ = ["model"]

NAMES = ("circle", "square")
LIMITS = Limits(max_megabytes=0.1, max_megapixels=1, allowed_hosts=("Mine.example",))


def picture(size=(60, 40)):
    stream = io.BytesIO()
    Image.new("RGB", size, (90, 120, 200)).save(stream, "PNG")
    return stream.getvalue()


@contextmanager
def serving(detector, limits=LIMITS, host="127.0.0.1"):
    with DetectorServer(detector, host, 0, limits) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.fixture
def port(model):
    with serving(odtrain_runtime.load(model, workers=2)) as port:
        yield port


@pytest.fixture
def address(port):
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def whole(model):
    """`odtrain serve` with the same model and the same bounds."""
    opened = load_detectors(model, 2, 1, NAMES)
    source = Source(str(model), opened, NAMES, file=model, opened=opened)
    settings = section(ServeConfig, max_megabytes=0.1, max_megapixels=1)
    with running(Guard(build_app(source, Thresholds(0.5), settings), LOOPBACK)) as port:
        yield f"http://127.0.0.1:{port}"


def post(address, data, **options):
    return requests.post(f"{address}/detect", data=data, timeout=10, **options)


@pytest.mark.parametrize("query", ["", "?threshold=0.8", "?threshold=0", "?threshold="])
def test_a_picture_gets_the_answer_of_odtrain_serve(address, whole, query):
    answers = [
        requests.post(f"{server}/detect{query}", data=picture(), timeout=10)
        for server in (address, whole)
    ]
    content = [answer.json() for answer in answers]
    assert all(each.pop("model_ms", 0) >= 0 for each in content)
    assert content[0] == content[1]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].headers["content-type"] == answers[1].headers["content-type"]


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("?threshold=nan", picture()),
        ("?threshold=2", picture()),
        ("", b"GIF89a broken"),
        ("", b""),
        ("", picture((4000, 4000))),
    ],
)
def test_what_cannot_be_answered_is_refused_as_odtrain_serve_refuses_it(
    address, whole, query, data
):
    answers = [
        requests.post(f"{server}/detect{query}", data=data, timeout=10)
        for server in (address, whole)
    ]
    assert answers[0].status_code >= 400
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].json() == answers[1].json()


def said(answer):
    return answer.status_code, answer.json()["message"]


def test_without_its_token_it_says_that_it_lives_and_no_more(model):
    limits = replace(LIMITS, token="a-token-of-many-letters")
    assert "a-token" not in repr(limits)
    with serving(odtrain_runtime.load(model), limits) as port:
        address = f"http://127.0.0.1:{port}"
        shown = {"Authorization": "Bearer a-token-of-many-letters"}
        answer = post(address, picture())
        assert said(answer) == (401, "This server wants its token: Authorization: Bearer TOKEN.")
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="odtrain", charset="UTF-8"'
        assert post(address, picture(), headers=shown).status_code == 200
        assert post(address, picture(), auth=("any", "a-token-of-many-letters")).status_code == 200
        assert requests.get(f"{address}/health", timeout=10).json() == {"status": "ok"}
        known = requests.get(f"{address}/health", headers=shown, timeout=10).json()
        assert known == {"status": "ok", "classes": list(NAMES)}


def test_a_request_that_is_too_large_is_refused(address):
    assert said(post(address, bytes(100_001))) == (413, "The request is larger than 0.1 MB.")


def test_a_request_without_a_length_is_refused(address):
    answer = post(address, iter([b"a", b"b"]))
    assert said(answer) == (411, "The request does not say how long it is (Content-Length).")


def test_it_says_that_it_lives_and_what_it_finds(address):
    answer = requests.get(f"{address}/health", timeout=10)
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ok", "classes": ["circle", "square"]},
    )


@pytest.mark.parametrize(("method", "path"), [("GET", "/detect"), ("POST", "/"), ("GET", "/x")])
def test_other_addresses_are_not_there(address, method, path):
    answer = requests.request(method, f"{address}{path}", timeout=10)
    assert said(answer) == (404, "POST a picture to /detect, or GET /health.")


def test_other_sites_may_not_use_it(address):
    answer = post(address, picture(), headers={"Origin": "http://evil.example"})
    assert said(answer) == (403, "Other sites may not use this server.")


def test_it_answers_to_its_own_names_only(address):
    foreign = post(address, picture(), headers={"Host": "evil.example"})
    assert said(foreign) == (403, "This server is not called evil.example.")
    assert post(address, picture(), headers={"Host": "mine.example:80"}).status_code == 200


def test_any_address_of_this_machine_is_a_name_where_it_listens_at_all_of_them(model):
    with serving(odtrain_runtime.load(model), host="0.0.0.0") as port:
        address = f"http://127.0.0.1:{port}"
        answer = post(address, picture(), headers={"Host": f"10.1.2.3:{port}"})
        assert answer.status_code == 200


def test_a_caller_that_speaks_http_1_0_is_answered(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.read()) == (
            200,
            b'{"status": "ok", "classes": ["circle", "square"]}',
        )


def test_a_connection_is_kept_for_the_next_picture(port):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        for _ in range(2):
            connection.request("POST", "/detect", picture())
            assert connection.getresponse().read()
            assert connection.sock is not None


def test_a_caller_that_hangs_up_is_passed_over(port, address, capfd):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nhalf"
        )
    assert post(address, picture()).status_code == 200
    assert capfd.readouterr() == ("", "")


def test_a_hundred_requests_at_once_are_answered_alike(address):
    def scores(_):
        return tuple(post(address, picture()).json()["scores"])

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(scores, range(100))) == {(0.9, 0.6)}


def test_an_address_that_is_taken_is_refused_with_what_to_do(model, port):
    with pytest.raises(AddressError) as caught:
        DetectorServer(odtrain_runtime.load(model), "127.0.0.1", port, LIMITS)
    assert str(caught.value) == (
        f"127.0.0.1 port {port}: cannot listen there: Address already in use.\n"
        "  Choose another port (0 takes any free one), or an address of this machine."
    )


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_serves_and_ends_when_it_is_told_to(model, ending):
    command = [sys.executable, "-m", "odtrain_runtime", "serve", str(model), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    line = process.stdout.readline()
    address = line.removeprefix("serve: ").partition("  ")[0]
    assert line == f"serve: {address}  (Ctrl-C ends it)\n"
    answer = requests.post(address, data=picture(), timeout=10)
    process.send_signal(ending)
    assert process.communicate(timeout=10) == ("", "")
    assert (answer.status_code, process.returncode) == (200, 0)


def test_a_token_is_said_by_nothing_that_it_says(model, tmp_path):
    (tmp_path / "token").write_text("a-token-of-many-letters")
    command = [sys.executable, "-m", "odtrain_runtime", "serve", str(model), "--port", "0"]
    command += ["--auth-token-file", str(tmp_path / "token")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = process.stdout.readline().removeprefix("serve: ").partition("  ")[0]
    refused = requests.post(address, data=picture(), timeout=10)
    shown = {"Authorization": "Bearer a-token-of-many-letters"}
    answer = requests.post(address, data=picture(), headers=shown, timeout=10)
    said = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said += process.communicate(timeout=10)[0]
    assert said == "  Who calls it shows the token: Authorization: Bearer TOKEN.\n"
    assert (refused.status_code, answer.status_code) == (401, 200)
    assert "a-token" not in refused.text + answer.text + str(refused.headers) + str(answer.headers)


def test_a_caller_that_drips_is_cut_off(model, monkeypatch):
    monkeypatch.setattr(served, "REQUEST_SECONDS", 0.3)
    with serving(odtrain_runtime.load(model)) as port:
        caller = socket.create_connection(("127.0.0.1", port), timeout=10)
        with closing(caller):
            caller.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            assert caller.recv(100) == b""


def test_connections_beyond_the_bound_are_closed(model, monkeypatch):
    monkeypatch.setattr(served, "MOST_CONNECTIONS", 3)
    with serving(odtrain_runtime.load(model)) as port, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
        one_more = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
        one_more.settimeout(10)
        assert one_more.recv(100) == b""


def test_memory_of_pictures_is_given_back(model, monkeypatch):
    done = []
    monkeypatch.setattr(served, "give_memory_back", lambda: done.append("memory"))
    monkeypatch.setattr(served.DetectorServer, "serve_forever", lambda self: done.append("serves"))
    before = signal.getsignal(signal.SIGTERM)
    served.serve(odtrain_runtime.load(model), "127.0.0.1", 0, Limits())
    signal.signal(signal.SIGTERM, before)
    assert done == ["memory", "serves"]
