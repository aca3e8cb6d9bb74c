"""Memory that runs out: one line and an exit status, never a traceback; then all is as it should be."""

from __future__ import annotations

import io
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image
from support.faults import WHOLE, Command, note
from support.stores import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def at_most(megabytes: int) -> Callable[[], None]:
    """Limit the address space of a process."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


@pytest.mark.parametrize("megabytes", [200, 300, 500])
def test_prepare(training, megabytes):
    arguments = ["prepare", training.settings[0], "data.name=shapes"]
    done = training.command(*arguments, limits=at_most(megabytes)).wait()
    again = training.begin().wait()
    assert again.rc == 0, again.said
    state = training.state()
    note(f"`prepare` with {megabytes} MB of address space", done, state)
    assert "Traceback" not in done.said
    assert state == WHOLE


@pytest.mark.parametrize("megabytes", [1500, 3000, 4000, 5000, 6000])
def test_train(training, megabytes):
    done = training.begin(limits=at_most(megabytes)).wait()
    training.check_whole(f"`train` with {megabytes} MB of address space", done)


@pytest.mark.parametrize("megabytes", [1500, 2500, 3000, 4000])
def test_evaluate(trained_once, megabytes):
    words = ["evaluate", f"source={trained_once.run}", f"tracking.uri={trained_once.uri}"]
    done = trained_once.command(*words, limits=at_most(megabytes)).wait()
    synced = trained_once.sync()
    assert synced.rc == 0, synced.said
    again = trained_once.command(*words).wait()
    assert again.rc == 0, again.said
    state = trained_once.state()
    note(f"`evaluate` with {megabytes} MB of address space", done, state)
    assert "Traceback" not in done.said + synced.said
    assert state == WHOLE


def picture(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side)).save(stream, "PNG")
    return stream.getvalue()


def up(serving: Command, port: int) -> bool:
    """Whether a server came up before its process ended."""
    while serving.process.poll() is None:
        try:
            return requests.get(f"http://127.0.0.1:{port}/about", timeout=5) is not None
        except requests.ConnectionError:
            time.sleep(0.1)
    return False


@pytest.mark.parametrize("megabytes", [400, 1000, 1500, 3000])
def test_serve(trained_once, megabytes):
    port = free_port()
    words = ["serve", "source=models:/shapes@champion", f"serve.port={port}"]
    words += ["serve.open_browser=false", f"tracking.uri={trained_once.uri}"]
    serving = trained_once.command(*words, limits=at_most(megabytes))

    def ask(body: bytes) -> int:
        return requests.post(f"http://127.0.0.1:{port}/detect", data=body, timeout=120).status_code

    answers: list[int] = []
    if up(serving, port):
        with ThreadPoolExecutor(4) as pool:
            answers = [*pool.map(ask, [picture(7000)] * 4), ask(picture(64))]
    done = serving.kill(signal.SIGINT) if serving.process.poll() is None else serving.wait()
    state = trained_once.state()
    note(f"`serve` with {megabytes} MB of address space: answers {answers or 'none'}", done, state)
    assert "Traceback" not in done.said
    assert not answers or answers[-1] == 200
    assert set(answers) <= {200, 503}
