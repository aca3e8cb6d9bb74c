"""What users of other programs type, told in our words."""

from __future__ import annotations

import re

import pytest

from odtrain.cli.commands import COMMANDS
from odtrain.config.compose import compose_config
from odtrain.config.foreign_words import CHOICES, WORDS
from odtrain.config.schema import keys
from odtrain.errors import ConfigError


def refused(*overrides):
    with pytest.raises(ConfigError) as caught:
        compose_config(list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("batch=8", "Here that is train.batch_size=8."),
        ("train.batch=8", "Here that is train.batch_size=8."),
        ("lr=0.1", "Here that is train.learning_rate=0.1."),
        ("lr0=0.01", "Here that is train.learning_rate=0.01."),
        ("imgsz=320", "Here that is model.input_size=320, or [HEIGHT,WIDTH]."),
        ("num_train_steps=500", "Here that is train.steps=500."),
        (
            "fine_tune_checkpoint=m.ckpt",
            "Here that is train.checkpoint=m.ckpt, a path, a URL, zoo or "
            "runs:/RUN_ID; null starts from random weights.",
        ),
        ("validation_split=0.2", "Here that is data.validation_fraction=0.2."),
        (
            "foo=1",
            "Keys begin with: augment, benchmark, cluster, data, evaluate, export, input, labels, model, "
            "output, outputs, predict, registry, serve, source, sweep, tracking, train, trust_source, "
            "webcam, zoo. odtrain train --help lists them.",
        ),
    ],
)
def test_a_key_of_another_program_is_told_in_our_words(override, told):
    assert refused(override) == f"{override}: no such key.\n  {told}"


def test_epochs_are_told_as_steps_with_the_batch_that_was_given():
    formula = "Here that is train.steps=N, N = 50 x training pictures / train.batch_size"
    ask = "odtrain prepare says how many training pictures there are."
    assert refused("epochs=50") == (
        f"epochs=50: no such key.\n  {formula}: train.steps=2084 for 1,000 pictures in batches of 24. {ask}"
    )
    assert refused("epochs=50", "train.batch_size=8") == (
        f"epochs=50: no such key.\n  {formula}: train.steps=6250 for 1,000 pictures in batches of 8. {ask}"
    )
    assert refused("epochs=many") == (
        "epochs=many: no such key.\n  Here that is train.steps=N, N = many x training pictures / "
        "train.batch_size."
    )


def test_another_network_is_told_what_odtrain_builds():
    assert refused("model=yolov8").startswith(
        "model=yolov8: no such choice.\n  odtrain builds SSDs, RetinaNets and EfficientDet-Lite alone; "
        "docs/zoo.md says which for what. Choose one of: efficientdet_lite0_coco, "
    )


def test_a_file_of_another_program_for_data_is_told_what_to_give():
    assert refused("data=coco.yaml") == (
        "data=coco.yaml: no such choice.\n  Your own pictures: data.images=DIR data.annotations=DIR "
        "data.name=NAME. Choose one of: panels."
    )


@pytest.mark.parametrize("word", [*WORDS, "foo", "train.foo", "sweep.x", "a" * 500])
def test_what_is_told_takes_a_few_lines(word):
    said = refused(f"{word}={'9' * 500}" if word not in keys() else f"{word}x=1")
    assert sum(1 + len(line) // 100 for line in said.splitlines()) <= 15


def test_our_words_exist():
    told = " ".join([*WORDS.values(), *(said for _, said in CHOICES.values())])
    assert set(re.findall(r"\b([a-z]+\.[a-z_0-9]+)\b(?==|,| )", told)) - {
        "predictions.csv",
        "zoo.md",
    } <= {*keys()}
    assert set(re.findall(r"odtrain ([a-z]+)", told)) - {"builds"} <= {*COMMANDS}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("[train.steps=4]", ["train.steps=4"]),
        ("[train.steps=4,model.input_size=[96,96]]", ["train.steps=4", "model.input_size=[96,96]"]),
        ("[ 'train.steps=4' , data.name=a b]", ["train.steps=4", "data.name=a b"]),
        ("[]", []),
    ],
)
def test_texts_with_an_equals_sign_are_taken_in_a_list(given, taken):
    assert compose_config([f"sweep.overrides={given}"]).sweep.overrides == taken


def test_one_value_where_a_list_belongs_is_told_as_that():
    assert refused("sweep.overrides=train.steps=4") == (
        "sweep.overrides=train.steps=4: is one value where a list belongs.\n"
        "  Give sweep.overrides=[train.steps=4]"
    )
