"""What `odtrain zoo status` says of addresses on this machine."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.file_server import listening
from support.package_index import make_wheel

from odtrain.cli.main import main
from odtrain.zoo.status import ask

ANSWERS = {
    "/alive.tar.gz": (206, b"\x1f\x8b"),
    "/whole.tar.gz": (200, b"\x1f\x8b" + bytes(1000)),
    "/page.tar.gz": (200, b"<html>Sign in"),
    "/denied.tar.gz": (403, b""),
    "/broken.tar.gz": (503, b""),
}


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = ANSWERS.get(self.path, (404, b""))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with listening(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@pytest.fixture(autouse=True)
def index(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    make_wheel(tmp_path / "links", "weights-of", "1.0", {"graph.pb": b"x"})


@pytest.mark.parametrize(
    ("path", "state", "why"),
    [
        ("/alive.tar.gz", "alive", ""),
        ("/whole.tar.gz", "alive", ""),
        ("/gone.tar.gz", "dead", "the server answered 404 Not Found"),
        ("/denied.tar.gz", "closed", "the server answered 403 Forbidden"),
        ("/broken.tar.gz", "not reached", "the server answered 503 Service Unavailable"),
        (
            "/page.tar.gz",
            "closed",
            "what it sends is no .tar.gz: a page that asks to sign in, perhaps",
        ),
    ],
)
def test_a_server_s_answer_says_how_it_stands(server, path, state, why):
    assert ask(f"{server}{path}") == (state, why)


def test_a_server_that_is_not_there_is_not_called_dead():
    assert ask("http://127.0.0.1:9/m.tar.gz") == ("not reached", "no connection to the server")


def test_an_index_is_asked_for_the_version():
    assert ask("pypi:weights-of==1.0:graph.pb") == ("alive", "")
    assert ask("pypi:weights-of==3.0:graph.pb") == (
        "dead",
        "the index has no version 3.0 of it",
    )
    assert ask("pypi:weights-off==1.0:graph.pb") == (
        "dead",
        "pip cannot get it: No matching distribution found for weights-off",
    )


def test_every_address_of_a_model_is_asked_and_what_is_closed_is_told(server, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [ssd_mobilenet_v1_coco, _self_]\nmodel:\n  name: mine\n  zoo:\n"
        f"    sources: ['{server}/denied.tar.gz', 'pypi:weights-of==1.0:graph.pb']\n"
        "    closed: its server asks for a name\n    instead: [ssd_mobilenet_v2_coco]\n"
    )
    assert main(["zoo", "status", "mine", "--config-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "| model | address | answer | why |\n|---|---|---|---|\n"
        f"| mine | {server}/denied.tar.gz | closed | the server answered 403 Forbidden |\n"
        "| mine | pypi:weights-of==1.0:graph.pb | alive |  |\n\n"
        "mine: closed, its server asks for a name. Take model=ssd_mobilenet_v2_coco instead.\n"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nix", "zoo status nix: no such model.\n  Models: efficientdet_lite0_coco, "),
        (
            "panels_ssd_mobilenet_v1",
            "model=panels_ssd_mobilenet_v1: it has no published weights.\n"
            "  Train it from random weights: train.checkpoint=null.\n",
        ),
    ],
)
def test_a_model_without_addresses_is_told(name, said, capsys):
    assert main(["zoo", "status", name]) == 1
    assert capsys.readouterr().err.startswith(said)
