"""Completion, by the shells themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from odtrain.cli.completion import candidates

MOBILENETS = [
    "ssd_mobilenet_v1_0.25_depth_192",
    "ssd_mobilenet_v1_0.75_depth_coco",
    "ssd_mobilenet_v1_0.75_depth_quantized_coco",
    "ssd_mobilenet_v1_coco",
    "ssd_mobilenet_v1_fpn_coco",
    "ssd_mobilenet_v1_ppn_coco",
    "ssd_mobilenet_v1_quantized_coco",
]
OPTIMIZERS = ["rmsprop", "momentum", "adam"]
LINES = [
    ("tr", "", ["train", "track"]),
    ("train mod", "", ["model=", "model."]),
    ("train model=ssd_mobilenet_v1", "model=", MOBILENETS),
    ("train train.optimizer=", "train.optimizer=", OPTIMIZERS),
    ("models pro", "", ["promote"]),
    ("sweep pick --m", "", ["--max-latency-ms", "--min-map", "--max-size-mb"]),
]
"""A line behind `odtrain`, what of its last word is before the `=`, and what it may become behind that."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train model.an", ["model.anchors."]),
        ("train export.n", ["export.nms="]),
        ("train augment.flip=", ["augment.flip=true", "augment.flip=false"]),
        ("train registry.format=p", ["registry.format=pb"]),
        ("train export.formats=[pb,sa", ["export.formats=[pb,saved_model"]),
        ("sweep sweep/space=q", ["sweep/space=quick"]),
        ("train expe", ["experiment="]),
        ("evaluate model.anchors.num", ["model.anchors.num_layers="]),
        ("predict train.s", []),
        ("collect --p", ["--private"]),
        ("models list --to", []),
        ("models download --to", ["--to"]),
        ("models download --to ", []),
        ("train --train.steps ", []),
        ("train data.images=", []),
        ("nix ", []),
    ],
)
def test_what_a_word_may_become(line, expected):
    assert candidates(line.split(" ")) == expected


def test_the_user_s_own_choices_are_offered(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.yaml").touch()
    assert candidates(["train", "--config-dir", str(tmp_path), "model=mi"]) == ["model=mine"]


@pytest.fixture
def shell(tmp_path):
    """Runs a script in a shell, where `odtrain` is this one, and gives the lines it printed."""
    program = tmp_path / "bin/odtrain"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m odtrain "$@"\n')
    program.chmod(0o755)
    there = tmp_path / "there"
    there.mkdir()
    (there / "pictures").mkdir()

    def run(name, script, *options):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        done = subprocess.run(
            [name, *options, "-c", script],
            cwd=there,
            env={
                **os.environ,
                "PATH": f"{program.parent}:{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize(("line", "before", "expected"), LINES)
def test_bash_completes(shell, line, before, expected):
    script = f"""
    eval "$(odtrain completion bash)"
    COMP_LINE='odtrain {line}' COMP_POINT={len(f"odtrain {line}")}
    _odtrain
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert shell("bash", script, "--norc") == expected


def test_bash_leaves_files_to_itself(shell):
    script = """
    eval "$(odtrain completion bash)"
    COMP_LINE='odtrain predict input=pic' COMP_POINT=25
    _odtrain
    echo ${#COMPREPLY[@]}
    complete -p odtrain
    """
    assert shell("bash", script, "--norc") == ["0", "complete -o default -F _odtrain odtrain"]


@pytest.mark.parametrize(("line", "before", "expected"), LINES)
def test_zsh_completes(shell, line, before, expected):
    words = " ".join(f"'{word}'" for word in ["odtrain", *line.split()])
    script = f"""
    compdef() {{ }}
    compadd() {{ while [[ $1 != -- ]]; do shift; done; shift; (( $# )) && print -l -- "$@"; true }}
    eval "$(odtrain completion zsh)"
    words=({words}) CURRENT=$#words PREFIX=$words[-1]
    _odtrain
    """
    whole = [f"{before}{each}" for each in expected]
    assert sorted(shell("zsh", script, "-f")) == sorted(whole)


@pytest.mark.parametrize(("line", "before", "expected"), LINES)
def test_fish_completes(shell, line, before, expected):
    script = f"""
    odtrain completion fish | source
    complete -C 'odtrain {line}'
    """
    whole = [f"{before}{each}" for each in expected]
    assert sorted(shell("fish", script, "--no-config")) == sorted(whole)


def test_fish_completes_files_behind_a_key(shell):
    script = """
    odtrain completion fish | source
    complete -C 'odtrain predict input=pic'
    """
    assert [line.split("\t")[0] for line in shell("fish", script, "--no-config")] == [
        "input=pictures/"
    ]
