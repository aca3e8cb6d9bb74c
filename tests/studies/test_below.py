"""Trainings that answer a question about the data: folds, and parts of the pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import TINY_RUN

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.dataset.check import check
from odtrain.errors import ConfigError
from odtrain.evaluation.saved_detections import read_kept
from odtrain.studies import below
from odtrain.studies.curve import read_parts
from odtrain.tracking.runs import config_digest

QUICK = (*TINY_RUN, "train.steps=2", "evaluate.every=0")


@pytest.fixture
def command(new, shapes, capsys):
    """Runs a command on the shapes, in an empty folder: its exit status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, f"data.images={shapes}", *QUICK])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def killed_in_the_second(monkeypatch) -> None:
    """The second training is stopped as by Ctrl-C, the first time it is reached."""
    trained, calls = below.train_detector, []

    def train(context):
        calls.append(context)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return trained(context)

    monkeypatch.setattr(below, "train_detector", train)


def runs_of(client) -> list[tuple[str, str, str]]:
    """Stage, name and status of every run, in their order."""
    found = client.search_runs(["0"], order_by=["attributes.start_time ASC"])
    return [(run.data.tags["odtrain.stage"], run.info.run_name, run.info.status) for run in found]


@pytest.mark.slow
def test_folds_that_were_stopped_go_on_and_look_at_every_picture_once(
    new, command, killed_in_the_second
):
    assert command("check", "--with", "folds", "data.folds=2")[0] == 130
    status, out, err = command("check", "--with", "folds", "data.folds=2")
    assert status == 0, err
    assert runs_of(new) == [
        ("check", "labels of shapes that folds doubt", "FINISHED"),
        ("train", "shapes fold 1 of 2", "FINISHED"),
        ("train", "shapes fold 2 of 2", "FINISHED"),
    ]
    assert "in 20 pictures" in out or "of 20 pictures" in out
    kept = sorted(Path("outputs/below").glob("*.npz"))
    shown = [name for file in kept for name in read_kept(file).facts["pictures"]]
    assert len(kept) == 2
    assert len(shown) == len(set(shown)) == 20


def test_a_training_on_other_labels_is_another_one(new, shapes):
    config = compose_config([f"data.images={shapes}", *QUICK])
    checked = check(config.data)
    first, *rest = checked.splits["test"]
    other = checked._replace(splits={**checked.splits, "test": [replace(first, objects=()), *rest]})
    digests = {
        config_digest(below.with_split(config, each, each.splits, "folds"))
        for each in (checked, other, checked)
    }
    assert len(digests) == 2


@pytest.mark.long
def test_a_curve_has_the_same_test_pictures_for_every_part(new, command):
    status, out, err = command("curve", "--parts", "50,100")
    assert status == 0, err
    assert [name for _, name, _ in runs_of(new)] == [
        "curve of shapes", "shapes on 8 pictures", "shapes on 15 pictures",
    ]  # fmt: skip
    tests = {
        tuple(read_kept(file).facts["pictures"]) for file in Path("outputs/below").glob("*.npz")
    }
    assert len(tests) == 1
    assert out.splitlines()[0] == "| | 8 | 15 | 30, expected |"
    (run,) = (run for run in Path("outputs/Default").iterdir() if (run / "curve").is_dir())
    curves = json.loads((run / "curve/curve.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in curves][:1] == ["mAP"]
    assert (run / "curve/curve.png").read_bytes().startswith(b"\x89PNG")


def test_fewer_pictures_than_folds_are_told(new, command, shapes):
    status, _, err = command("check", "--with", "folds", "data.folds=30")
    assert (status, err.splitlines()[-2:]) == (
        1,
        [
            f"{shapes}: has 20 labelled pictures, fewer than 30 folds.",
            "  Label more, or give data.folds=2.",
        ],
    )


def test_too_few_pictures_for_a_curve_are_told_before_anything_is_trained(new, command, shapes):
    status, _, err = command("curve", "--parts", "10,100")
    assert (status, err.splitlines()[-2:]) == (
        1,
        [
            f"{shapes}: has 15 training pictures; 10 % of them, 2, are too few to learn from.",
            "  Label more, take a larger part (--parts 50,100), or a smaller train.batch_size than 2.",
        ],
    )
    assert runs_of(new) == []


@pytest.mark.parametrize("text", ["", "50", "0,100", "25,50", "a,100", "50,101"])
def test_parts_that_say_nothing_are_refused(text):
    with pytest.raises(ConfigError) as told:
        read_parts(text)
    assert str(told.value) == (
        f"--parts {text}: is not two or more whole numbers from 1 to 100, the largest 100.\n"
        "  Give per cents of the training pictures: --parts 25,50,100"
    )


def test_parts_are_taken_in_order_and_once():
    assert read_parts("100,25,25,50") == (25, 50, 100)
