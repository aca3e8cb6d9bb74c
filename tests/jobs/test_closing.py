"""What is said of a result in words, and what comes next."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from odtrain.evaluation.evaluate import Counts, evaluate
from odtrain.jobs.closing import after_training, in_words, served_in_words
from odtrain.structures import Detections, GroundTruth

WHERE = "in the 7 test pictures, at scores from 0.5"
LEFT, RIGHT = [0.1, 0.1, 0.5, 0.4], [0.1, 0.6, 0.5, 0.9]


@pytest.mark.parametrize(
    ("counts", "names", "said"),
    [
        (
            Counts(found=9, labelled=10, wrong=3),
            ["button"],
            f"model.tflite finds 9 of 10 buttons {WHERE}; 3 of 12 boxes that it shows are wrong.",
        ),
        (
            Counts(found=9, labelled=10, wrong=1),
            ["button", "lamp"],
            f"model.tflite finds 9 of 10 objects {WHERE}; 1 of 10 boxes that it shows is wrong.",
        ),
        (
            Counts(found=1, labelled=1, wrong=0),
            ["bus"],
            f"model.tflite finds 1 of 1 bus {WHERE}; none of 1 box that it shows is wrong.",
        ),
        (
            Counts(found=2, labelled=2, wrong=0),
            ["box"],
            f"model.tflite finds 2 of 2 boxes {WHERE}; none of 2 boxes that it shows is wrong.",
        ),
        (
            Counts(found=2, labelled=3, wrong=2),
            ["berry"],
            f"model.tflite finds 2 of 3 berries {WHERE}; 2 of 4 boxes that it shows are wrong.",
        ),
        (
            Counts(found=0, labelled=5, wrong=0),
            ["버튼"],
            f"model.tflite finds none of 5 objects {WHERE}, and shows nothing else.",
        ),
    ],
)
def test_how_good_it_is_in_a_sentence(counts, names, said):
    assert in_words("model.tflite", counts, names, WHERE) == said


def detections(*rows):
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in rows], np.float32)
    return Detections(boxes, scores, np.ones(len(rows), np.int64))


def evaluated(*rows):
    """One test picture with two boxes of `lamp`, and what the checkpoint found in it."""
    truth = GroundTruth("a.jpg", 80, 96, np.array([LEFT, RIGHT], np.float32), np.array([1, 1]))
    dataset = SimpleNamespace(class_names=("lamp",))
    split = SimpleNamespace(name="test", truths=[truth], dataset=dataset)
    evaluation = evaluate([truth], [detections(*rows)], ("lamp",), bootstrap=0, seed=0)
    return SimpleNamespace(evaluation=evaluation, split=split)


def proof(format, *rows, failed=None):
    measured = SimpleNamespace(detections=[detections(*rows)])
    return SimpleNamespace(
        format=format, file=SimpleNamespace(name=f"{format}.file"), failed=failed, measured=measured
    )


def test_the_sentence_is_of_the_file_that_is_served_not_of_the_checkpoint():
    found = evaluated((LEFT, 0.9), (RIGHT, 0.8))
    proofs = [
        proof("pb", (LEFT, 0.9), (RIGHT, 0.8)),
        proof("tflite_int8", (LEFT, 0.9), (RIGHT, 0.4)),
    ]
    assert served_in_words(found, proofs, "tflite_int8") == (
        "tflite_int8.file finds 1 of 2 lamps in the 1 test picture, at scores from 0.5; none of 1 box "
        "that it shows is wrong."
    )


def test_where_no_file_may_be_served_it_is_of_the_checkpoint():
    found = evaluated((LEFT, 0.9), ([0.6, 0.1, 0.9, 0.3], 0.8), (RIGHT, 0.49))
    proofs = [proof("pb", (LEFT, 0.9), (RIGHT, 0.8), failed="differs")]
    assert served_in_words(found, proofs, None) == (
        "The checkpoint finds 1 of 2 lamps in the 1 test picture, at scores from 0.5; 1 of 2 boxes "
        "that it shows is wrong."
    )


def closing(overrides, version=("panels", "1")):
    result = SimpleNamespace(
        store="sqlite:////x/mlflow.db",
        outcome="models:/panels/1 is @champion." if version else None,
        in_words="model.tflite finds 9 of 10 buttons.",
        evaluation=evaluated((LEFT, 0.9)).evaluation,
        proofs=[],
        doubts=[],
        more_steps="More steps would hardly help.",
        run_id="0123",
        pages=None,
        model="models:/panels@champion" if version else "/x/export/model.tflite",
        version=version,
        folder=Path("/x"),
        seconds={"train": 61.0, "export": 9.0},
    )
    return after_training(result, overrides).splitlines()


def test_it_says_whether_more_steps_would_help():
    assert "More steps would hardly help." in closing([])


def test_it_begins_with_what_was_made_and_how_good_it_is():
    assert closing([])[:3] == [
        "Registered models:/panels/1 is @champion.",
        "model.tflite finds 9 of 10 buttons.",
        "",
    ]


def test_after_the_demo_pictures_come_own_ones():
    assert closing(["train.steps=9"])[-4:] == [
        "What next:",
        "  try it                 odtrain predict source=models:/panels@champion input=PICTURES "
        "output=drawn",
        "  take the files         odtrain models download models:/panels@champion --to DIR",
        "  your own pictures      odtrain train data.images=DIR data.annotations=DIR data.name=NAME",
    ]


def test_after_own_pictures_comes_the_best_of_many():
    assert closing(["data.images=pictures", "data.name=mine"])[-1] == (
        "  the best of many       odtrain sweep data.images=pictures data.name=mine"
    )


def test_while_the_server_is_away_the_files_are_where_they_were_written():
    said = closing([], version=None)
    assert said[0] == "Made /x/export/model.tflite"
    assert said[-2] == "  take the files         /x/export"


def test_it_says_where_the_time_went():
    assert "It took 70 s: train 61 s, export 9 s." in closing([])
