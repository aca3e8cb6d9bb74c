"""What makes a finished training doubtful."""

from __future__ import annotations

import pytest

from odtrain.jobs.doubts import Scores, doubts, scores
from odtrain.training.loop import Fitted


def fitted(step: int = 100, stopped: str | None = None, best_map: float = -1.0) -> Fitted:
    return Fitted(step, 0, best_map, stopped, 60.0)


@pytest.mark.parametrize(
    ("found", "ended", "said"),
    [
        pytest.param(Scores(0.6, 0.5, "validation"), fitted(), [], id="nothing"),
        pytest.param(
            Scores(0.01, 0.0, "test"),
            fitted(),
            [
                "mAP 0.000 on the test pictures is next to nothing, and on the training pictures it is 0.010. "
                "Train longer (train.steps), start from weights of COCO (experiment=small_data), and see what "
                "odtrain check says of the labels."
            ],
            id="learned nothing",
        ),
        pytest.param(
            Scores(0.9, 0.01, "test"),
            fitted(),
            [
                "mAP 0.010 on the test pictures is next to nothing.",
                "mAP 0.900 on training pictures, 0.010 on test pictures: it was learned by heart. More "
                "pictures help most; then augment=colour, train.freeze, fewer train.steps.",
            ],
            id="learned by heart",
        ),
        pytest.param(
            Scores(0.6, 0.5, "validation"),
            fitted(40, "train.max_minutes=1"),
            [
                "Training ended after step 40 of 100 (train.max_minutes=1), before the learning rate had come "
                "down (cosine). train.steps=40 makes the schedule end there; or give it more time."
            ],
            id="ended early",
        ),
        pytest.param(
            Scores(0.6, 0.5, "test"), fitted(100, "interrupted"), [], id="at the last step"
        ),
    ],
)
def test_reasons_to_doubt(found, ended, said):
    assert doubts(found, ended, 100, "cosine") == said


def test_what_was_held_out_is_validation_where_there_is_one():
    assert scores(0.9, fitted(best_map=0.4), 0.5) == Scores(0.9, 0.4, "validation")
    assert scores(0.9, fitted(), 0.5) == Scores(0.9, 0.5, "test")
