"""One at a time, by lock files."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from odtrain.errors import DataError
from odtrain.io.locks import alone

BUSY = DataError("here", "another is at work.", "Wait.")


def test_a_second_one_is_refused_with_the_callers_words(tmp_path):
    with alone(tmp_path / "lock"), pytest.raises(DataError) as caught:
        in_another_thread(tmp_path / "lock")
    assert caught.value is BUSY


def in_another_thread(file):
    errors = []

    def take():
        try:
            with alone(file, busy=BUSY):
                pass
        except DataError as error:
            errors.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_it_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="mine"), alone(tmp_path / "lock"):
        raise ValueError("mine")
    with alone(tmp_path / "lock", busy=BUSY):
        pass


def test_the_folder_of_the_lock_is_made(tmp_path):
    with alone(tmp_path / "new/lock"):
        assert (tmp_path / "new/lock").exists()


def test_one_that_waits_says_so_and_goes_on_when_the_other_is_killed(tmp_path, capsys):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom odtrain.io.locks import alone\n"
        "with alone(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        threading.Timer(0.3, other.kill).start()
        with alone(tmp_path / "lock", waits="waiting for the other"):
            assert other.wait() != 0
    assert capsys.readouterr().err == "waiting for the other\n"
