import os
import subprocess
import sys

import pytest
from support.commands import LASTING

from odtrain.cli.main import main


@pytest.fixture
def run(capsys):
    """Runs a command, and gives its exit status and what it said."""

    def run(*arguments):
        status = main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["train.steps=5"], id="key=value"),
        pytest.param(["--train.steps", "5"], id="--key value"),
        pytest.param(["--train.steps=5"], id="--key=value"),
        pytest.param(["--overrides", "train.steps=5 train.seed=1"], id="--overrides"),
    ],
)
def test_every_way_to_override_means_the_same(run, arguments):
    status, out, _ = run("train", "--cfg", *arguments)
    assert status == 0
    assert "\n  steps: 5\n" in out


def test_a_model_of_the_zoo_that_is_named_is_composed_with_its_own_settings(run):
    status, out, _ = run("zoo", "fetch", "ssd_mobilenet_v2_coco", "--cfg", "model.l2=0.5")
    assert status == 0
    assert "\n  name: ssd_mobilenet_v2_coco\n" in out
    assert "\n  l2: 0.5\n" in out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["train", "--cfg"], ["zoo"]]
)
def test_who_reads_what_is_said_may_stop_before_its_end(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "odtrain", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, LASTING.sub("", done.stderr)) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "train.stepz=5"],
        ["train", "--cfg"],
        ["train", "--nothing", "5"],
        ["--complete", "train", "train.optimizer="],
    ],
)
def test_nothing_heavy_is_imported_before_a_command_runs(arguments):
    assert not imported_by(arguments) & {"tensorflow", "mlflow", "pandas", "matplotlib", "PIL"}


@pytest.mark.parametrize("arguments", [["--help"], ["--complete", "train", "train.optimizer="]])
def test_help_and_completion_do_not_wait_for_hydra(arguments):
    assert not imported_by(arguments) & {"hydra", "omegaconf", "yaml", "numpy"}


def imported_by(arguments):
    """The modules that a command line imports."""
    code = (
        "import sys; from odtrain.cli.main import main; main(sys.argv[1:]); "
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines())
