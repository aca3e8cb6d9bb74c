"""What is said where."""

import logging
import re
import subprocess
import sys

import pytest
from tqdm import tqdm

from odtrain.system import logs

LOGGER = logging.getLogger("odtrain.somewhere")


@pytest.fixture(autouse=True)
def as_before():
    handlers, level = list(logs.ROOT.handlers), logs.ROOT.level
    yield
    logs.ROOT.handlers[:], level = handlers, logs.ROOT.setLevel(level)


@pytest.mark.parametrize(
    ("verbosity", "lines"),
    [
        pytest.param(-1, ["careful"], id="quiet"),
        pytest.param(0, ["for you", "careful"], id="as usual"),
        pytest.param(1, ["odtrain.somewhere: a detail", "for you", "careful"], id="verbose"),
        pytest.param(3, ["odtrain.somewhere: a detail", "for you", "careful"], id="very verbose"),
    ],
)
def test_as_much_is_said_as_is_asked_for(capsys, verbosity, lines):
    logs.show(verbosity)
    LOGGER.debug("a detail")
    LOGGER.info("for you")
    LOGGER.warning("careful")
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()) == ("", lines)


def test_a_second_call_says_nothing_twice(capsys):
    logs.show()
    logs.show()
    LOGGER.info("for you")
    assert capsys.readouterr().err == "for you\n"


def test_a_line_stands_above_the_progress_bar(capsys):
    logs.show()
    with tqdm(total=2, file=sys.stderr, ascii=True, ncols=30) as bar:
        bar.update()
        LOGGER.info("for you")
    assert "\nfor you\n" in capsys.readouterr().err.replace("\r", "\n")


def test_a_file_has_everything_with_time_and_place(tmp_path):
    logs.show(-1)
    with logs.also_in(tmp_path / "new" / "run.log"):
        LOGGER.debug("a detail")
        LOGGER.info("for %s", "you")
    LOGGER.info("afterwards")
    lines = (tmp_path / "new/run.log").read_text(encoding="utf-8").splitlines()
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
    assert [re.sub(f"^{moment}", "", line) for line in lines] == [
        "DEBUG odtrain.somewhere: a detail",
        "INFO odtrain.somewhere: for you",
    ]


def test_a_file_goes_on_where_it_stopped(tmp_path):
    for said in ("first", "second"):
        with logs.also_in(tmp_path / "run.log"):
            LOGGER.info(said)
    assert [line[-6:] for line in (tmp_path / "run.log").read_text().splitlines()] == [
        " first",
        "second",
    ]


def test_a_full_disk_stops_nothing(small_disk, capsys):
    (small_disk / "filled").write_bytes(bytes(290_000))
    logs.show()
    with logs.also_in(small_disk / "run.log"):
        for _ in range(4000):
            LOGGER.info("a line")
    assert capsys.readouterr().err.count("a line\n") == 4000


def test_as_a_library_it_says_nothing_by_itself():
    code = "import logging, odtrain.system.logs\nlogging.getLogger('odtrain.x').warning('no')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_the_first_file_has_what_was_said_before_it_and_the_second_has_not(tmp_path):
    logs.show(-1)
    with logs.remembering():
        LOGGER.info("before")
        with logs.also_in(tmp_path / "first.log"):
            LOGGER.info("meanwhile")
        LOGGER.info("after")
        with logs.also_in(tmp_path / "second.log"):
            LOGGER.info("later")
    said = [
        re.findall(r"\w+$", (tmp_path / f).read_text(), re.M) for f in ("first.log", "second.log")
    ]
    assert said == [["before", "meanwhile"], ["later"]]
