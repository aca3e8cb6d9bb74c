"""Who may call a page that odtrain serves: a real server, asked as browsers and others ask."""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.web_pages import running

from odtrain.cli.main import main
from odtrain.errors import ConfigError, OdtrainError
from odtrain.web import guard as web
from odtrain.web.bounds import Bodies, TooLargeError
from odtrain.web.guard import HEALTH, Guard
from odtrain_runtime.callers import CHALLENGE, LOOPBACK, read_token


def ask(port, path="/", method="GET", body=None, **headers):
    """Status, headers and text of an answer; `Host` is what a browser would send, unless given."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, {"Host": f"127.0.0.1:{port}", **named})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


async def echo(request: Request) -> PlainTextResponse:
    try:
        async with Bodies().of(request, 100) as body:
            return PlainTextResponse(body.decode())
    except TooLargeError:
        return PlainTextResponse("too large", 413)


APP = Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])


@pytest.fixture(scope="module")
def port():
    with running(Guard(APP, [*LOOPBACK, "mine.example"])) as port:
        yield port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:{}", "[::1]:{}", "MINE.example:443"])
def test_own_names_are_answered(port, host):
    assert ask(port, Host=host.format(port))[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{}", "127.0.0.1.evil.example", "192.168.0.7", "", "[::1", "a@b"],
)
def test_foreign_names_are_refused(port, host):
    status, _, text = ask(port, Host=host.format(port))
    assert status == 403
    assert text == f"This server is not called {host.format(port) or 'nothing'}.\n"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:{}", "x"]
)
def test_pages_of_other_sites_are_refused(port, origin):
    status, _, text = ask(port, method="POST", body=b"x", Origin=origin.format(port))
    assert (status, text) == (403, "Other sites may not use this server.\n")


def test_pages_of_this_server_and_programs_are_answered(port):
    own = ask(port, method="POST", body=b"hello", Origin=f"http://127.0.0.1:{port}")
    program = ask(port, method="POST", body=b"hello")
    assert own[::2] == program[::2] == (200, "hello")


def test_pictures_and_frames_in_other_sites_are_refused(port):
    assert ask(port, Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(port, Sec_Fetch_Site="same-origin")[0] == 200


def test_pages_load_nothing_from_elsewhere(port):
    for headers in (ask(port)[1], ask(port, Host="evil.example")[1]):
        assert headers["Content-Security-Policy"].startswith("default-src 'self'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_no_more_is_read_than_is_taken(port):
    assert ask(port, method="POST", body=b"x" * 100)[::2] == (200, "x" * 100)
    assert ask(port, method="POST", body=b"x" * 101)[::2] == (413, "too large")


def test_on_the_network_any_address_is_a_name():
    with running(Guard(APP, [], addresses=True)) as port:
        assert ask(port, Host="192.168.0.7:8765")[0] == 200
        assert ask(port, Host="evil.example")[0] == 403


TOKEN = "a token of many letters"


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def asking():
    with running(Guard(APP, LOOPBACK, token=TOKEN.replace(" ", "-"))) as port:
        yield port


@pytest.mark.parametrize(
    "shown", ["Bearer a-token-of-many-letters", basic("", "a-token-of-many-letters")]
)
def test_who_shows_the_token_is_answered(asking, shown):
    assert ask(asking, Authorization=shown)[0] == 200


@pytest.mark.parametrize(
    "shown",
    [
        "Bearer a-token-of-many-letter",
        "Bearer a-token-of-many-letters-",
        "Bearer",
        "a-token-of-many-letters",
        basic("a-token-of-many-letters", ""),
        "Basic a-token-of-many-letters",
        "Basic \xff",
        "Digest a-token-of-many-letters",
        "",
    ],
)
def test_who_does_not_is_refused_as_browsers_understand_it(asking, shown):
    status, headers, text = ask(asking, Authorization=shown)
    assert (status, headers["WWW-Authenticate"]) == (401, CHALLENGE["WWW-Authenticate"])
    assert json.loads(text) == {
        "message": "This server wants its token: Authorization: Bearer TOKEN."
    }
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_pages_of_other_sites_are_refused_with_the_token_too(asking):
    shown = "Bearer a-token-of-many-letters"
    assert ask(asking, Authorization=shown, Origin="http://evil.example")[0] == 403


def test_whether_the_server_lives_is_told_without_the_token():
    app = Starlette(routes=[HEALTH])
    with running(Guard(app, LOOPBACK, token="x" * 16)) as port:
        assert ask(port, "/health")[::2] == (200, '{"status":"ok"}')


@pytest.mark.parametrize(
    ("kept", "problem"),
    [
        ("short\n", "the token has 5 letters, fewer than 16."),
        ("", "the token has 0 letters, fewer than 16."),
        (TOKEN, "the token has blanks, or letters that are not ASCII."),
        ("\u00e4" * 16, "the token has blanks, or letters that are not ASCII."),
    ],
)
def test_what_is_no_token_is_refused(tmp_path, monkeypatch, kept, problem):
    remedy = "python -c 'import secrets; print(secrets.token_urlsafe())' makes one."
    (tmp_path / "token").write_text(kept)
    monkeypatch.setenv("ODTRAIN_AUTH_TOKEN", kept)
    for file, where in (
        (tmp_path / "token", f"--auth-token-file {tmp_path}/token"),
        (None, "ODTRAIN_AUTH_TOKEN"),
    ):
        with pytest.raises(OdtrainError) as caught:
            read_token(file)
        assert str(caught.value) == f"{where}: {problem}\n  {remedy}"


def test_a_token_that_is_not_there_is_told(tmp_path):
    with pytest.raises(OdtrainError) as caught:
        read_token(tmp_path / "none")
    assert str(caught.value).startswith(
        f"--auth-token-file {tmp_path}/none: cannot be read: No such file or directory.\n"
    )


def test_the_file_of_a_token_wins_over_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("ODTRAIN_AUTH_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("ODTRAIN_AUTH_TOKEN", "e" * 16)
    assert read_token(None) == "e" * 16
    (tmp_path / "token").write_text("f" * 16 + "\n")
    assert read_token(tmp_path / "token") == "f" * 16


@pytest.mark.parametrize("command", ["serve", "webcam"])
def test_a_token_is_read_before_a_model_is(command, tmp_path, capfd):
    assert main([command, "source=none.tflite", "--auth-token-file", str(tmp_path / "none")]) == 1
    assert "--auth-token-file" in capfd.readouterr().err


def test_a_port_in_use_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            web.serve(APP, "127.0.0.1", number, [], "webcam page", open_browser=False)
    assert str(caught.value) == (
        f"webcam.host=127.0.0.1 webcam.port={number}: cannot listen there: Address already in use.\n"
        "  Choose another port (webcam.port=0 takes any free one), or an address of this machine."
    )


def test_answers_do_not_wait_until_the_client_acknowledges_their_beginning():
    async def without_delay(request: Request) -> PlainTextResponse:
        for file in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(file.name))) as each:
                if each.getpeername() == tuple(request.client):
                    flag = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    return PlainTextResponse(f"TCP_NODELAY {flag}")
        return PlainTextResponse("not found")

    with running(Starlette(routes=[Route("/", without_delay)])) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=9)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"TCP_NODELAY 1"
        connection.close()


def test_memory_of_pictures_is_given_back_by_who_serves_a_page(monkeypatch):
    done = []
    monkeypatch.setattr(web, "give_memory_back", lambda: done.append("memory"))
    monkeypatch.setattr(web.uvicorn.Server, "run", lambda self, sockets: done.append("serves"))
    web.serve(echo, "127.0.0.1", 0, [], "test page", False)
    assert done == ["memory", "serves"]


ALLOCATING = """
import ctypes, sys
from odtrain_runtime.turns import give_memory_back
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks mapped usmblks fsmblks uordblks fordblks keepcost".split()]
libc.mallinfo2.restype = Info
if sys.argv[1] == "given back":
    give_memory_back()
libc.free(libc.malloc(ctypes.c_size_t(30 << 20)))
before = libc.mallinfo2().mapped
held = libc.malloc(ctypes.c_size_t(20 << 20))
print(libc.mallinfo2().mapped - before >= 20 << 20)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize(("way", "mapped"), [("given back", "True"), ("as it is", "False")])
def test_what_pictures_take_is_no_part_of_what_the_process_keeps(way, mapped):
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATING, way], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == mapped


ENDED = """
from contextlib import closing
from starlette.applications import Starlette
from odtrain.web.guard import serve

class Log:
    def close(self):
        print("closed", flush=True)

with closing(Log()):
    serve(Starlette(), "127.0.0.1", 0, [], "a page", False)
"""


def test_sigterm_ends_a_server_behind_what_is_to_be_closed():
    command = [sys.executable, "-c", ENDED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline().startswith("a page: http://127.0.0.1:")
        time.sleep(0.5)  # until uvicorn minds signals
        server.terminate()
        assert server.stdout.read() == "closed\n"
    assert server.returncode == 0
