"""First weights of a training that come from another run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from odtrain.config.compose import compose_config
from odtrain.model_source import load_first_weights, rebuild, run_config
from odtrain.models.build import build_detector

pytestmark = pytest.mark.slow

BIASES = "BoxPredictor_0/ClassPredictor/biases"


@pytest.mark.parametrize(
    ("names", "columns", "said"),
    [
        pytest.param(["circle", "square"], [0, 1, 2], "", id="the same"),
        pytest.param(
            ["square", "circle"],
            [0, 2, 1],
            "; 2 of 2 classes are known there (square, circle) and go on from it",
            id="another order",
        ),
        pytest.param(
            ["square", "star", "moon"],
            [0, 2, None, None],
            "; 1 of 3 classes are known there (square) and go on from it",
            id="one of them",
        ),
        pytest.param(
            ["cat", "dog"],
            [0, None, None],
            "; none of the classes is known there: they begin anew",
            id="others",
        ),
    ],
)
def test_a_class_goes_on_from_the_weights_of_the_class_of_its_name(
    trained, monkeypatch, names, columns, said
):
    monkeypatch.chdir(trained.folder)
    runs = compose_config([]).runs
    config = run_config(trained.run.name, runs)
    there = rebuild(trained.run.name, runs)[0].variables_by_name()[BIASES].numpy().reshape(-1, 3)
    detector = build_detector(config.model, len(names))
    first = detector.variables_by_name()[BIASES].numpy().reshape(-1, 1 + len(names))
    train = replace(config.train, checkpoint=trained.run.name, restore="all")
    total = len(detector.variables_by_name())
    assert load_first_weights(detector, names, train, [], runs) == (
        f"weights from {trained.run.name}: restored {total} of {total} variables{said}"
    )
    biases = detector.variables_by_name()[BIASES].numpy().reshape(-1, 1 + len(names))
    for here, column in enumerate(columns):
        expected = first[:, here] if column is None else there[:, column]
        assert biases[:, here].tolist() == expected.tolist()
