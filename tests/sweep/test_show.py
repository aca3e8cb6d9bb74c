"""What a driver shows of its study while its first training lasts."""

import sys
from types import SimpleNamespace

import pytest

from odtrain.sweep import worker
from odtrain.sweep.show import before_the_first
from odtrain.sweep.worker import last_line, train_in_process


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "train: 500 of 2,000 steps, about 9 s left, loss 1.2",
            "step 500 of 2,000 of the first training, about 20 min left for all",
        ),
        ("train: 0 of 2,000 steps", "step 0 of 2,000 of the first training"),
        ("Loading TensorFlow: 4 s so far", "Loading TensorFlow: 4 s so far"),
        ("x" * 99, "x" * 60),
    ],
)
def test_the_first_training_says_how_long_all_may_take(line, said):
    assert before_the_first(line, seconds=30.0, rounds=10) == said


def test_the_last_line_of_a_long_text(tmp_path):
    (tmp_path / "said").write_text("a\n" * 9000 + "the last\n\n")
    (tmp_path / "nothing").write_text("")
    assert [last_line(tmp_path / name) for name in ("said", "nothing")] == ["the last", ""]


TRAINS = """
import json, sys, time
print("train: 1 of 2 steps", file=sys.stderr, flush=True)
time.sleep(1.6)
json.dump({"state": "done"}, open(sys.argv[2], "w"))
"""


def test_what_a_training_says_is_heard_while_it_lasts(monkeypatch):
    monkeypatch.setattr(worker, "write_request", lambda request, file: file.write_text("{}"))
    job = SimpleNamespace(
        uri="sqlite:///x.db", threads=None, program=[sys.executable, "-c", TRAINS]
    )
    heard = []
    assert train_in_process(job, {}, heard.append).state == "done"
    assert set(heard) == {"train: 1 of 2 steps"}
