"""A clock that is set back and forward, by Debian's faketime."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.faults import KILLED_RUN, WHOLE, note

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
needs_faketime = pytest.mark.skipif(
    LIBRARY is None or shutil.which("faketime") is None, reason="needs faketime (apt install)"
)


def at(clock: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@needs_faketime
@pytest.mark.parametrize("jump", ["-2d", "+2d", "-10y"])
def test_the_clock_is_set_in_a_training(training, jump):
    clock = training.folder.parent / "clock"
    clock.write_text("+0")
    command = training.begin(**at(clock))
    command.until("3/14 [")
    clock.write_text(jump)
    done = command.wait()
    state = training.state()
    note(f"the clock is set {jump} in training", done, state)
    assert done.rc == 0, done.said
    assert state == WHOLE


@needs_faketime
@pytest.mark.parametrize("jump", ["-2d", "+2d"])
def test_a_run_goes_on_at_another_time(training, jump):
    clock = training.folder.parent / "clock"
    clock.write_text("+0")
    killed = training.begin(program=(str(KILLED_RUN), "batch:9"), **at(clock)).wait()
    assert killed.rc == -9, killed.said
    clock.write_text(jump)
    again = training.begin("train.resume=auto", **at(clock)).wait()
    state = training.state()
    note(f"killed, the clock set {jump}, gone on with", again, state)
    assert again.rc == 0, again.said
    assert state == WHOLE
