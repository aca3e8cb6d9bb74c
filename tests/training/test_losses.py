from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from support.made_up_model import made_up_model

from odtrain.errors import ConfigError
from odtrain.training.losses import detection_loss, focal_cross_entropy
from odtrain.training.target_assigner import Targets

ANCHORS = 6
FAR_APART = np.stack([np.float32([i, 0, i + 1, 1]) for i in range(ANCHORS)])[None]


def targets(positive: list[int], classes: int = 1) -> Targets:
    mask = np.isin(np.arange(ANCHORS), positive)[None]
    one_hot = np.zeros((1, ANCHORS, classes + 1), np.float32)
    one_hot[0, :, 0] = ~mask[0]
    one_hot[0, :, 1] = mask[0]
    return Targets(
        tf.constant(one_hot),
        tf.zeros((1, ANCHORS, 4)),
        tf.constant(mask),
        tf.constant(np.where(mask, 0, -1)),
    )


def loss(asked: Targets, encodings=0.0, logits=0.0, kind="hard_mining", **config):
    return detection_loss(
        asked,
        tf.fill((1, ANCHORS, 4), float(encodings)),
        tf.zeros((1, ANCHORS, 2)) + logits,
        tf.constant(FAR_APART),
        made_up_model(**config),
        kind,
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(0.5, 4 * 0.125, id="parabola"),
        pytest.param(1.0, 4 * 0.5, id="where they meet"),
        pytest.param(-3.0, 4 * 2.5, id="line"),
    ],
)
def test_localization_is_smooth_l1_summed_over_the_codes(error, expected):
    assert float(loss(targets([2]), encodings=error).localization) == pytest.approx(expected)


def test_only_anchors_with_an_object_are_localized():
    one, two = loss(targets([2]), encodings=1), loss(targets([2, 4]), encodings=1)
    assert float(one.localization) == float(two.localization) == pytest.approx(2.0)


def test_both_losses_are_divided_by_the_anchors_with_objects_and_weighted():
    found = loss(
        targets([0, 1, 2, 3]), encodings=1, localization_weight=1.5, classification_weight=2.0
    )
    assert float(found.localization) == pytest.approx(1.5 * 2.0)
    assert float(found.classification) == pytest.approx(2.0 * 6 * 2 * np.log(2) / 4)


def test_pictures_without_objects_are_divided_by_one():
    found = loss(targets([]), min_negatives_per_image=2)
    assert float(found.localization) == 0
    assert float(found.classification) == pytest.approx(2 * 2 * np.log(2))


def test_the_background_column_is_counted():
    logits = np.zeros((1, ANCHORS, 2), np.float32)
    logits[..., 0] = 5.0
    found = loss(targets([0]), logits=logits, max_negatives_per_positive=0)
    assert float(found.classification) == pytest.approx(np.log1p(np.exp(5.0)) + np.log(2), 1e-5)


def test_mining_decides_which_anchors_count():
    logits = np.zeros((1, ANCHORS, 2), np.float32)
    logits[0, :, 1] = [0, 3, -3, 1, 2, -1]
    found = loss(targets([2]), logits=logits, max_negatives_per_positive=2)
    assert np.flatnonzero(found.kept[0]).tolist() == [1, 2, 4]


def test_the_focal_loss_counts_every_anchor():
    found = loss(targets([2]), kind="focal", focal_alpha=0.25, focal_gamma=2.0)
    per_class = 0.5**2 * np.log(2)
    expected = ANCHORS * (0.25 + 0.75) * per_class
    assert float(found.classification) == pytest.approx(expected)
    assert found.kept.numpy().all()


@pytest.mark.parametrize(
    ("target", "logit", "expected"),
    [
        pytest.param(1.0, 0.0, 0.25 * 0.25 * np.log(2), id="there, unsure"),
        pytest.param(0.0, 0.0, 0.75 * 0.25 * np.log(2), id="not there, unsure"),
        pytest.param(1.0, 20.0, 0.0, id="there and seen"),
        pytest.param(1.0, -20.0, 0.25 * 20.0, id="there and missed"),
    ],
)
def test_focal_cross_entropy(target, logit, expected):
    found = focal_cross_entropy(tf.constant([target]), tf.constant([logit]), 0.25, 2.0)
    assert float(found[0]) == pytest.approx(expected, abs=1e-6)


def test_an_unknown_loss_is_refused_with_the_choices():
    with pytest.raises(ConfigError) as error:
        loss(targets([0]), kind="hinge")
    assert str(error.value) == (
        'train.loss: unknown "hinge".\n  Choose one of: focal, hard_mining.'
    )
