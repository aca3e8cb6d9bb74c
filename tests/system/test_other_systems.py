"""What other systems lack, taken away here: nothing more can be said of them without a trial."""

import subprocess
import sys
from pathlib import Path

import pytest

from odtrain.io import atomic

WITHOUT = "import sys\nsys.modules['fcntl'] = None\n"


def test_turns_are_not_taken_where_the_system_has_no_such_locks(tmp_path):
    code = (
        f"{WITHOUT}from pathlib import Path\nfrom odtrain.system import timing_lock as turns\n"
        f"turns.take_part(Path({str(tmp_path / 'turns')!r}))\nturns.give_way()\n"
        "with turns.alone(), turns.away():\n    print('computes')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("computes\n", "")
    assert not (tmp_path / "turns").exists()


def test_the_commands_load_where_there_is_no_fcntl():
    code = (
        f"{WITHOUT}from odtrain.cli.commands import COMMANDS, load\n"
        "print(all(map(load, COMMANDS)))\nimport odtrain.export.benchmark"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_an_empty_folder_is_replaced_as_windows_lets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(atomic, "WINDOWS", True)
    (tmp_path / "new").mkdir()
    with atomic.replacing_folder(tmp_path / "new") as part:
        (part / "file").write_text("whole")
    assert (tmp_path / "new/file").read_text() == "whole"
