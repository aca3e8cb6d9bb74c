"""What the curve of a finished training says of a longer one."""

import pytest

from odtrain.jobs.more_steps import more_steps
from odtrain.training.loop import Fitted


def fitted(scores=(), losses=(), last_map=None):
    curve = tuple((10 * (i + 1), score) for i, score in enumerate(scores))
    best = max(scores, default=-1.0)
    return Fitted(10 * len(scores), 0, best, None, 60.0, curve, tuple(losses), last_map)


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        pytest.param(
            fitted([0.1, 0.2, 0.3, 0.35, 0.4, 0.45]),
            "More steps would probably help: validation mAP was at most 0.350 in the first two thirds of the "
            "steps, 0.450 behind them.",
            id="rising",
        ),
        pytest.param(
            fitted([0.1, 0.3, 0.5, 0.5, 0.505, 0.495]),
            "More steps would hardly help: validation mAP was at most 0.500 in the first two thirds of the "
            "steps, 0.505 behind them.",
            id="level",
        ),
        pytest.param(
            fitted([0.1, 0.3, 0.4, 0.35, 0.42, 0.36]),
            "Whether more steps would help cannot be told: validation mAP was at most 0.400 in the first two "
            "thirds of the steps, 0.420 behind them, and evaluations scatter by about 0.051.",
            id="noisy",
        ),
        pytest.param(
            fitted([0.1, 0.5, 0.4, 0.3, 0.3, 0.3]),
            "More steps would not help, fewer do: validation mAP was at most 0.500 in the first two thirds of "
            "the steps, 0.300 behind them.",
            id="falling",
        ),
        pytest.param(
            fitted([0.1, 0.3, 0.5, 0.5], last_map=0.4),
            "More steps would probably help: validation mAP was at most 0.300 in the first two thirds of the "
            "steps, 0.500 behind them. At the last step averaged weights scored 0.500, the last ones 0.400; "
            "averaged ones are taken.",
            id="averaged",
        ),
        pytest.param(
            fitted(losses=[4.0, 3.0, 2.0, 1.5]),
            "The training loss fell by 25% from the third quarter of the steps to the last: more steps may "
            "help. With no validations nobody knows.",
            id="loss falls",
        ),
        pytest.param(
            fitted(losses=[4.0, 2.0, 1.0, 0.98]),
            "The training loss fell by 2% from the third quarter of the steps to the last: more steps would "
            "hardly help. With no validations nobody knows.",
            id="loss is level",
        ),
        pytest.param(
            fitted([0.1, 0.2], losses=[4.0, 2.0, 1.0, 0.5]),
            "The training loss fell by 50% from the third quarter of the steps to the last: more steps may "
            "help. With few validations nobody knows.",
            id="few validations",
        ),
        pytest.param(fitted([0.1, 0.2]), None, id="too short"),
    ],
)
def test_more_steps(ended, said):
    assert more_steps(ended) == said
