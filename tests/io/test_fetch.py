"""URLs fetched from a local server that is slow, breaks off, lies and redirects."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from odtrain.io.fetch import Fetcher, FetchError


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar = {}
    ports: ClassVar = []

    def do_GET(self):
        times = self.asked[self.path] = self.asked.get(self.path, 0) + 1
        getattr(self, f"do_{self.path.strip('/')}")(times)

    def answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_good(self, times):
        self.ports.append(self.client_address[1])
        self.answer(200, b"good", Content_Type="application/x-lie")

    def do_busy(self, times):
        self.answer(*((503, b"") if times < 3 else (200, b"at last")))

    def do_asks_to_wait(self, times):
        self.answer(429, Retry_After="3600")

    def do_gone(self, times):
        self.answer(404)

    def do_breaks_off(self, times):
        self.answer(200, b"half", length=8)
        self.close_connection = True

    def do_breaks_off_once(self, times):
        self.answer(200, b"whole" if times > 1 else b"who", length=5)
        self.close_connection = True

    def do_redirects(self, times):
        self.ports.append(self.client_address[1])
        self.answer(302, Location="/good")

    def do_circle(self, times):
        self.answer(302, Location="/circle")

    def do_to_a_file(self, times):
        self.answer(302, Location="file:///etc/passwd")

    def do_says_too_large(self, times):
        self.answer(200, b"", length=10**10)

    def do_is_too_large(self, times):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for _ in range(64):
                self.wfile.write(b"x" * 2**16)
        except OSError:
            pass

    def do_drips(self, times):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            for _ in range(200):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    do_drips_until_stopped = do_drips

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("odtrain.io.fetch.WAIT_SECONDS", 0.01)


def refusal(url, private=True):
    with pytest.raises(FetchError) as raised:
        Fetcher(private).get(url)
    return str(raised.value)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("good", b"good"),
        ("busy", b"at last"),
        ("breaks_off_once", b"whole"),
        ("redirects", b"good"),
    ],
)
def test_what_a_server_has_is_fetched_also_at_the_second_or_third_attempt(web, path, body):
    assert Fetcher(private=True).get(f"{web}/{path}") == body


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("gone", "the server answered 404 Not Found"),
        ("asks_to_wait", "the server answered 429 Too Many Requests (1 attempts)"),
        ("breaks_off", "the connection broke off (3 attempts)"),
        ("circle", "redirects more than 5 times"),
        ("to_a_file", "leads to what is no http or https URL"),
        ("says_too_large", "has 10,000,000,000 bytes, more than 104,857,600"),
    ],
)
def test_what_cannot_be_had_is_told(web, path, why):
    assert refusal(f"{web}/{path}") == why


def test_a_redirect_on_one_server_goes_through_one_connection(web):
    Server.ports.clear()
    assert Fetcher(private=True).get(f"{web}/redirects") == b"good"
    first, second = Server.ports
    assert first == second


def test_a_body_without_end_is_cut_at_the_limit(web, monkeypatch):
    monkeypatch.setattr("odtrain.io.fetch.PICTURE_BYTES", 2**17)
    assert refusal(f"{web}/is_too_large") == "has more than 131,072 bytes"


def test_a_server_that_drips_is_cut_off(web, monkeypatch):
    monkeypatch.setattr("odtrain.io.fetch.PICTURE_SECONDS", 0.3)
    begun = time.monotonic()
    assert refusal(f"{web}/drips") == "takes longer than 0 s"
    assert time.monotonic() - begun < 5


def test_stopping_ends_what_is_under_way(web):
    fetcher = Fetcher(private=True)
    stop = threading.Timer(0.3, fetcher.stop)
    stop.start()
    begun = time.monotonic()
    with pytest.raises(FetchError):
        fetcher.get(f"{web}/drips_until_stopped")
    assert time.monotonic() - begun < 5
    stop.join()


@pytest.mark.parametrize("path", ["good", "redirects"])
def test_this_machine_is_not_asked_unless_that_is_allowed(web, path):
    Server.asked.clear()
    assert refusal(f"{web}/{path}", private=False) == (
        "leads to 127.0.0.1, an address of this machine or network; --private allows it"
    )
    assert Server.asked == {}


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x.jpg", "/etc/passwd", "data:,x"]
)
def test_only_http_and_https_are_fetched(url):
    assert refusal(url) == "is not an http or https URL"


def test_a_host_that_nobody_knows_is_told():
    assert refusal("http://no-such-host.invalid/x.jpg") == "its host is not known"


def test_nobody_at_the_address_is_told(web):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    port = server.server_port
    server.server_close()
    assert refusal(f"http://127.0.0.1:{port}/x") == "no connection to the server (3 attempts)"
