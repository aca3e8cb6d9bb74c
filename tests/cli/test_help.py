import pytest

from odtrain.cli.commands import COMMANDS
from odtrain.cli.main import main
from odtrain.config.comments import key_comments
from odtrain.config.schema import keys
from odtrain.config.shipped import conf


@pytest.fixture
def helped(capsys, monkeypatch):
    """What a command says that must succeed, on a terminal of 112 columns."""
    monkeypatch.setenv("COLUMNS", "112")

    def run(*arguments):
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    return run


def test_help_lists_commands_groups_and_choices(helped):
    out = helped("--help")
    for name in COMMANDS:
        assert f"\n  {name} " in out
    assert "\n  model      " in out
    assert "ssd_mobilenet_v1_coco" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(helped, name):
    out = helped(name, "--help")
    assert out.startswith(f"usage: odtrain {name} ")
    assert " ".join(COMMANDS[name][1].split()) in " ".join(out.split())


def test_help_of_an_action_is_about_it(helped):
    out = helped("models", "promote", "--help")
    assert out.startswith("usage: odtrain models promote [-h] ")
    assert "\nmake a version the champion, if it passes the gate\n" in out
    assert "  VERSION " in out
    assert "--to" not in out
    assert "\nregistry: where models are registered\n" in out
    assert "  train.steps" not in out


def test_help_of_a_command_lists_its_actions(helped):
    out = helped("models", "--help")
    assert "\n    promote   make a version the champion, if it passes the gate\n" in out
    assert out.endswith("\nodtrain models ACTION --help: its flags and settings.\n")


def test_help_needs_no_words(helped):
    assert helped("collect", "-h").startswith("usage: odtrain collect [-h] --to DIR ")


def test_settings_are_listed_by_group_with_their_comments(helped):
    out = helped("benchmark", "--help")
    assert (
        "\nsettings, as key=value behind the command; --cfg prints the whole configuration:\n"
        in out
    )
    assert (
        "\nbenchmark: how files are timed\n"
        "  benchmark.runs=50                 timed runs of a file, after warm-up, one picture each\n"
        "  benchmark.threads=1               named beside every latency\n"
    ) in out
    assert "\ndata: which pictures and labels; data=panels if not given\n" in out
    assert (
        "\n  data.folds=0                      0, or k: k-fold instead of test_fraction (or of "
        "validation_fraction, if test\n                                    is given)\n"
    ) in out
    assert "train.steps" not in out


def test_a_model_that_is_typed_beside_help_shows_its_values(helped):
    assert "\n  model.input_size=300 " in helped("train", "model=ssd_mobilenet_v1_coco", "--help")


def test_the_user_s_own_configs_are_known_to_help(helped, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/mine.yaml").write_text("defaults:\n  - default\nbatch_size: 3\n")
    out = helped("train", "train=mine", "--config-dir", str(tmp_path), "model.name=x", "--help")
    assert "\n  model.name=x\n" in out


def test_help_is_given_beside_a_mistake(helped):
    assert "\n  train.seed=0  " in helped("train", "train.stepz=3", "--help")


def test_every_setting_is_explained_in_conf():
    explained = key_comments(conf())
    names = ("model.name", "model.architecture", "sweep.space")
    assert [key for key in keys() if key not in explained and key not in names] == []


def test_a_comment_of_several_lines_is_one():
    assert key_comments(conf())["source"] == (
        "what evaluate, export, benchmark, predict, webcam and serve work on: a run (its id or the first "
        "letters of it, its name, latest), runs:/RUN/export/FILE, models:/name@alias, a .pb, a SavedModel "
        "folder, a .tflite, an .onnx, an OpenVINO .xml, a TF1 checkpoint of the configured model; files and "
        "folders here or in a store (s3://..., docs/stores.md)"
    )
