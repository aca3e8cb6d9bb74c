import subprocess
import sys

import pytest

from odtrain.cli.main import COMMANDS, main


def run(capsys, *arguments):
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_help_lists_commands_groups_and_choices(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for name in COMMANDS:
        assert f"\n  {name} " in out
    assert "\n  model      " in out
    assert "ssd_mobilenet_v1_coco" in out


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["train.steps=5"], id="key=value"),
        pytest.param(["--train.steps", "5"], id="--key value"),
        pytest.param(["--train.steps=5"], id="--key=value"),
        pytest.param(["--overrides", "train.steps=5 train.seed=1"], id="--overrides"),
    ],
)
def test_every_way_to_override_means_the_same(capsys, arguments):
    status, out, _ = run(capsys, "train", "--cfg", *arguments)
    assert status == 0
    assert "\n  steps: 5\n" in out


def test_an_unknown_command_is_told_in_two_lines(capsys):
    status, out, err = run(capsys, "trian")
    assert (status, out) == (1, "")
    assert err == f"trian: no such command.\n  Choose one of: {', '.join(COMMANDS)}.\n"


def test_a_word_that_is_no_setting_is_told(capsys):
    status, _, err = run(capsys, "train", "fast")
    assert status == 1
    assert err.startswith("odtrain train: unrecognized arguments: fast\n  usage: odtrain train ")


def test_a_key_without_value_is_told(capsys):
    assert run(capsys, "train", "--train.steps") == (
        1,
        "",
        "--train.steps: has no value.\n  Give --key value, or key=value.\n",
    )


@pytest.mark.parametrize("arguments", [["--help"], ["train", "train.stepz=5"], ["train", "--cfg"]])
def test_nothing_heavy_is_imported_before_a_command_runs(arguments):
    code = (
        "import sys; from odtrain.cli.main import main; main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'mlflow', 'pandas', 'matplotlib', 'PIL'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
