"""Flags, words and overrides of a command line, and what is said of one that cannot be."""

import pytest

from odtrain.cli.commands import COMMANDS, load
from odtrain.cli.main import main
from odtrain.cli.parse import parse
from odtrain.config.schema import keys, sections
from odtrain.config.shipped import conf, groups


def titles():
    return [(name, word) for name in COMMANDS for word in load(name).actions]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["trian"],
            "odtrain trian: no such command.\n  Did you mean: train\n",
        ),
        (
            ["xyzzy"],
            f"odtrain xyzzy: no such command.\n  Choose one of: {', '.join(COMMANDS)}.\n",
        ),
        (
            ["serve", "--auth-token", "TOKEN-IN-SIGHT"],
            "--auth-token: is not taken: everybody on this machine can read the words of a command.\n"
            "  Give --auth-token-file FILE, or ODTRAIN_AUTH_TOKEN.\n",
        ),
        (
            ["models", "promot", "panels", "3"],
            "models promot: no such action.\n  Did you mean: promote\n",
        ),
        (
            ["sweep", "fast"],
            "sweep fast: no such action.\n  Choose one of: pick, verify.\n",
        ),
        (
            ["track"],
            "track: needs an action.\n  Choose one of: sync.\n",
        ),
        (
            ["models", "promote", "panels"],
            "models promote: needs NAME VERSION.\n  For example: odtrain models promote panels 3\n",
        ),
        (
            ["train", "--train.steps"],
            "--train.steps: has no value.\n  Give --key value, or key=value.\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_told(capsys, arguments, message):
    assert main(arguments) == 1
    assert capsys.readouterr() == ("", message)


def test_a_word_that_is_no_setting_is_told(capsys):
    assert main(["train", "fast"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("odtrain train: unrecognized arguments: fast\n  usage: odtrain train ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["sweep", "--max-latency-ms", "3", "--cfg"],
            "odtrain sweep: --max-latency-ms is a flag of sweep pick.\n"
            "  odtrain sweep --help lists its flags.\n",
        ),
        (
            ["sweep", "verify", "--register"],
            "odtrain sweep verify: --register is a flag of sweep pick.\n"
            "  odtrain sweep verify --help lists its flags.\n",
        ),
        (
            ["models", "list", "--to", "x", "--again"],
            "odtrain models list: --to is a flag of models download.\n"
            "  odtrain models list --help lists its flags.\n",
        ),
        (
            ["train", "--to", "x", "--cfg"],
            "odtrain train: --to is a flag of collect, demo pictures, convert, zoo adopt, import, "
            "models download, deploy, report.\n"
            "  odtrain train --help lists its flags.\n",
        ),
        (
            ["train", "--again"],
            "odtrain train: --again is a flag of models compare.\n"
            "  odtrain train --help lists its flags.\n",
        ),
        (
            ["diff", "a", "b", "--cfg"],
            "--cfg: diff has no settings.\n  odtrain diff --help lists its flags.\n",
        ),
        (
            ["collect", "a", "--to", "b", "train.steps=3"],
            "train.steps=3: collect has no settings.\n  odtrain collect --help lists its flags.\n",
        ),
        (
            ["zoo", "fetch", "ssd_mobilenet_v2_coco", "--sort=map"],
            "odtrain zoo fetch: --sort is a flag of zoo list.\n"
            "  odtrain zoo fetch --help lists its flags.\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_that_an_action_does_not_have_is_refused(capsys, arguments, message):
    assert main(arguments) == 1
    assert capsys.readouterr() == ("", message)


def test_an_unknown_flag_is_an_override_whose_key_is_checked(capsys):
    assert main(["train", "--stepz", "5", "--cfg"]) == 1
    assert capsys.readouterr().err == ("stepz=5: no such key.\n  Did you mean: train.steps\n")


@pytest.mark.parametrize(
    ("arguments", "word", "words", "flags"),
    [
        (["models", "--to", "x", "download", "u"], "download", ["u"], [("--to", "x")]),
        (["models", "compare", "a", "--format", "pb", "b"], "compare", ["a", "b"], [("--format", "pb")]),
        (["sweep", "--min-map=0.3", "pick"], "pick", [], [("--min-map=0.3",)]),
        (["zoo", "--sort", "macs"], "list", [], [("--sort", "macs")]),
        (["check", "--fix", "data.name=x"], "", [], [("--fix",)]),
        (["check", "--fix", "there"], "", [], [("--fix", "there")]),
        (["collect", "http://host/?a=b", "--to", "d"], "", ["http://host/?a=b"], [("--to", "d")]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and value[0] in COMMANDS else "",
)  # fmt: skip
def test_flags_and_words_may_stand_in_any_order(arguments, word, words, flags):
    asked = parse(arguments)
    assert (asked.word, asked.typed.words, asked.typed.flags) == (word, words, flags)


def test_no_flag_has_the_name_of_a_setting():
    settings = {*keys(), *dict(sections()), *groups([conf()])}
    names = {each.name for name, word in titles() for each in load(name).actions[word].all_flags}
    assert {
        name for name in names if name.lstrip("-") in settings and name.startswith("-")
    } == set()


@pytest.mark.parametrize(("name", "word"), titles())
def test_an_action_reads_settings_that_exist(name, word):
    known = {*keys(), *dict(sections())}
    assert set(load(name).actions[word].settings) <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_its_default_action(name):
    command = load(name)
    assert command.default is None or command.default in command.actions
    assert all(action.help for action in command.named.values())
