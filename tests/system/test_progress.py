"""What is shown while something lasts: in a terminal, and where none is."""

import os
import pty
import subprocess
import sys
import time

import pytest

from odtrain.system import logs, progress
from odtrain.system.progress import Bar, doing, ready


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    handlers, level = list(logs.ROOT.handlers), logs.ROOT.level
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "SOON", 1.0)
    monkeypatch.setattr(logs, "time", clock)
    monkeypatch.setattr(progress._Watch, "_look", lambda watch: None)
    monkeypatch.setattr(progress, "_WATCH", progress._Watch())
    monkeypatch.setattr(logs.Terminal, "last", 0.0)
    logs.show()
    yield clock
    logs.ROOT.handlers[:], level = handlers, logs.ROOT.setLevel(level)


def passes(clock, seconds, *bars):
    """What is said while so many seconds pass, looked at twice a second."""
    for _ in range(round(2 * seconds)):
        clock.now += 0.5
        for bar in bars:
            bar.tick()


# ---- lines


def test_without_a_terminal_a_line_says_how_much_is_done_and_how_long_the_rest_takes(clock, capsys):
    with Bar(doing="export", unit="file", total=6) as bar:
        passes(clock, 1, bar)
        passes(clock, 3, bar)
        bar.update(2)
        passes(clock, 2, bar)
        bar.note("small ones")
        bar.update(4)
    assert capsys.readouterr().err.splitlines() == [
        "export: 0 of 6 files",
        "export: 0 of 6 files, 3 s so far",
        "export: 2 of 6 files, about 7 s left",
        "export: 6 of 6 files in 6 s, small ones",
    ]


def test_what_is_quick_says_nothing(clock, capsys):
    assert list(Bar("abc", doing="look")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("leave", "said"), [(True, "look: 1 of 1 picture in 3 s\n"), (False, "")])
def test_what_lasted_ends_with_a_line_unless_it_leaves_nothing(clock, capsys, leave, said):
    for _ in Bar("a", doing="look", leave=leave):
        clock.now += 3
    assert capsys.readouterr().err == said


def test_what_breaks_off_is_not_said_to_be_done(clock, capsys):
    with pytest.raises(ZeroDivisionError):
        for number in Bar([1, 0], doing="divide"):
            1 // number
    assert capsys.readouterr().err == ""


def test_bytes_are_said_in_megabytes(clock, capsys):
    with Bar(doing="weights.tar.gz", unit="B", total=45_000_000, done=5_000_000) as bar:
        clock.now += 9
        bar.update(10_000_000)
        bar.tick()
    assert capsys.readouterr().err.splitlines()[0] == (
        "weights.tar.gz: 15.0 of 45.0 MB, about 27 s left"
    )


def test_lines_come_less_often_the_longer_it_lasts(clock, capsys):
    with Bar(doing="train", unit="step", total=10**6) as bar:
        passes(clock, 3600, bar)
    said = len(capsys.readouterr().err.splitlines()) - 1
    assert 60 < said < 120


def test_what_has_no_parts_is_named_once_it_lasts(clock, capsys):
    with doing("Loading TensorFlow"):
        (lasting,) = progress._WATCH._lasting
        passes(clock, 4, lasting)
    assert capsys.readouterr().err.splitlines() == [
        "Loading TensorFlow ...",
        "Loading TensorFlow: 3 s so far",
    ]


def test_what_is_quick_is_not_named(clock, capsys):
    with doing("Reading the versions"):
        (lasting,) = progress._WATCH._lasting
        passes(clock, 0.5, lasting)
    assert capsys.readouterr().err == ""


def test_many_quick_things_after_each_other_are_no_silence(clock, capsys):
    with doing("Working"):
        for _ in range(4):
            with doing("Reading"):
                passes(clock, 0.5, progress._WATCH._lasting[-1])
    assert capsys.readouterr().err.splitlines() == ["Reading ...", "Reading ..."]


def test_other_lines_are_no_silence_either(clock, capsys):
    with doing("Working"):
        clock.now += 1.5
        progress.logger.info("something else")
        passes(clock, 0.5, *progress._WATCH._lasting)
    assert capsys.readouterr().err == "something else\n"


def test_of_what_is_there_nothing_more_is_said(clock, capsys):
    with doing("Starting"):
        lasting = progress._WATCH._lasting[:]
        passes(clock, 1, *lasting)
        ready()
        passes(clock, 9, *lasting)
    assert (capsys.readouterr().err, progress._WATCH._lasting) == ("Starting ...\n", [])


def test_a_function_can_say_what_it_does(clock, capsys):
    @doing("Thinking")
    def think():
        passes(clock, 1, *progress._WATCH._lasting)
        return 42

    assert (think(), think(), capsys.readouterr().err) == (42, 42, "Thinking ...\n" * 2)


@pytest.mark.parametrize("leave", [True, False])
def test_quiet_is_quiet(clock, capsys, leave):
    logs.show(-1)
    with Bar(doing="export", unit="file", total=6, leave=leave) as bar, doing("Working"):
        passes(clock, 9, *progress._WATCH._lasting)
        bar.update(6)
    assert capsys.readouterr().err == ""


def test_a_bar_is_what_is_shown_also_while_something_without_parts_lasts_within(monkeypatch):
    shown = []
    monkeypatch.setattr(progress, "TICK", 0.02)
    monkeypatch.setattr(Bar, "tick", lambda bar: shown.append(bar.doing))
    monkeypatch.setattr(progress, "_WATCH", progress._Watch())
    with Bar(doing="measure exports", total=6), doing("Running the file"):
        time.sleep(0.2)
    assert set(shown) == {"measure exports"}


# ---- on a terminal

SHOWS = """
import time
from odtrain.system import logs, progress
progress.TICK = progress.SOON = 0.05
logs.show()
with progress.doing("Loading"):
    time.sleep(0.3)
for each in progress.Bar(range(3), doing="export", unit="file"):
    progress.logger.info("a line")
    time.sleep(0.03)
"""


def on_a_terminal(**environment):
    """What somebody sees of `SHOWS`, as it is sent to the terminal."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")}
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SHOWS]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    environment = {**kept, "TERM": "xterm-256color", **environment}
    with subprocess.Popen(command, env=environment, **streams) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # how Linux says that nobody writes any more
            pass
    os.close(ours)
    assert process.returncode == 0
    return said.decode()


def test_a_terminal_has_bars_that_move(capfd):
    said = on_a_terminal()
    assert "\rLoading (00:00)\r" in said
    assert "\rexport:   0%|" in said
    assert "3/3 [00:00<00:00," in said


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}])
def test_a_terminal_that_draws_nothing_has_lines(environment):
    said = on_a_terminal(**environment).replace("\r\n", "\n")
    assert said.splitlines()[-4:] == ["a line"] * 3 + ["export: 3 of 3 files in 0 s"]
    assert said.startswith("Loading ...\n")
    assert "\r" not in said
    assert "\x1b" not in said


def test_nothing_is_coloured():
    assert "\x1b" not in on_a_terminal(NO_COLOR="1")


def test_bars_reach_people_while_a_library_is_kept_quiet():
    code = (
        "import os, sys, tempfile\n"
        "from odtrain.system import logs\n"
        "from odtrain_runtime.native_stderr import PEOPLE, stderr_into\n"
        "logs.show()\n"
        "with tempfile.TemporaryFile() as said:\n"
        "    with stderr_into(said):\n"
        "        os.write(2, b'noise')\n"
        "        logs.ROOT.info('export: 1 of 6 files')\n"
        "    said.seek(0)\n"
        "    print(said.read(), file=PEOPLE)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "export: 1 of 6 files\nb'noise'\n"
