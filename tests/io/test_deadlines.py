from __future__ import annotations

import io
import time

import pytest
import requests
from support.odd_servers import DRIPS, EMPTY, MUTE, odd_server

from odtrain.io import deadlines
from odtrain.io.deadlines import DeadlineAdapter, check_whole


@pytest.fixture
def session():
    with requests.Session() as session:
        session.mount("http://", DeadlineAdapter())
        yield session


@pytest.mark.parametrize("way", [DRIPS, MUTE])
def test_an_answer_has_a_deadline_however_steadily_it_drips(session, way):
    with odd_server(way) as server:
        begun = time.monotonic()
        with pytest.raises(requests.ReadTimeout) as caught:
            session.get(server.uri, timeout=0.6)
        assert time.monotonic() - begun < 2
    assert str(caught.value) == "no whole answer within 1 s"


def test_a_connection_that_is_kept_alive_has_one_for_each_request(session):
    with odd_server(EMPTY) as server:
        assert session.get(server.uri, timeout=5).json() == {}
        server.way = MUTE
        with pytest.raises(requests.ReadTimeout):
            session.get(server.uri, timeout=0.5)


def test_a_file_may_take_longer_than_the_deadline_and_not_less_than_the_least_rate(
    session, monkeypatch
):
    monkeypatch.setattr(deadlines, "RATE_SECONDS", 1.0)
    with odd_server(DRIPS) as server:
        begun = time.monotonic()
        with pytest.raises(requests.RequestException):
            answer = session.get(server.uri, timeout=0.5, stream=True)
            _ = answer.content
            check_whole(answer)
        assert 0.9 < time.monotonic() - begun < 4


def test_a_file_that_is_sent_and_not_taken_is_given_up(session, monkeypatch):
    monkeypatch.setattr(deadlines, "RATE_SECONDS", 1.0)
    with odd_server(MUTE) as server:
        begun = time.monotonic()
        with pytest.raises(requests.ReadTimeout) as caught:
            session.put(server.uri, data=io.BytesIO(b"x" * 1000), timeout=30)
        assert time.monotonic() - begun < 5
    assert str(caught.value) == "less than 10 kB a second over 1 s"


def test_a_file_that_comes_quickly_is_read_whole(session, monkeypatch):
    monkeypatch.setattr(deadlines, "RATE_SECONDS", 0.5)
    with odd_server(EMPTY) as server:
        answer = session.get(server.uri, timeout=5, stream=True)
        assert answer.content == b"{}"
        check_whole(answer)
