"""What a driver shows of its study while its first training lasts."""

import sys
from types import SimpleNamespace

import pytest

from odtrain.sweep import worker
from odtrain.sweep.show import before_the_first
from odtrain.sweep.worker import StoppedError, last_line, train_in_process


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


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Has a training done that is so many lines of Python."""
    monkeypatch.setattr(worker, "write_request", lambda request, file: file.write_text("{}"))

    def run(program, heard):
        uri, command = f"sqlite:///{tmp_path}/x.db", [sys.executable, "-c", program]
        return train_in_process(SimpleNamespace(uri=uri, threads=None, program=command), {}, heard)

    return run


def test_what_a_training_says_is_heard_while_it_lasts(trained):
    heard = []
    assert trained(TRAINS, heard.append).state == "done"
    assert set(heard) == {"train: 1 of 2 steps"}


def test_a_training_that_ends_by_itself_failed(trained):
    outcome = trained("exit('it is full')", lambda line: None)
    assert (outcome.state, outcome.reason) == (
        "failed",
        "its process ended with status 1: it is full",
    )


def test_a_training_that_ends_as_the_sweep_does_has_not_failed(trained):
    def heard(line):
        raise StoppedError

    with pytest.raises(StoppedError):
        trained("exit('interrupted')", heard)
