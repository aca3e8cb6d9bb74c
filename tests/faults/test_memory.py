"""Memory that runs out: one line and an exit status, never a traceback; then all is as it should be."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
from support.faults import WHOLE, note

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
