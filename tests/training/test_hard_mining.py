from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf
from support.made_up_model import made_up_model

from odtrain.config.compose import section
from odtrain.config.schema import AnchorConfig
from odtrain.models.anchors import ssd_anchors
from odtrain.models.ssd import decode_boxes
from odtrain.training.hard_mining import mine, mine_in_blocks
from odtrain.training.target_assigner import encode_boxes, match

SHAPES = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
ANCHORS = ssd_anchors(section(AnchorConfig), SHAPES, (300, 300))
BATCH = 6


def as_the_reference_mines(losses, boxes, positive, config):
    """Suppression among all anchors, one picture after the other."""
    kept = np.zeros(losses.shape, bool)
    for image in range(len(losses)):
        selected = tf.image.non_max_suppression(
            boxes[image], losses[image], config.num_hard_examples, config.mining_iou
        ).numpy()
        is_positive = positive[image][selected]
        wanted = int(config.max_negatives_per_positive * is_positive.sum())
        wanted = max(wanted, config.min_negatives_per_image)
        kept[image, selected[is_positive | (np.cumsum(~is_positive) <= wanted)]] = True
    return kept


def truth(rng):
    """(BATCH, 8, 4) boxes and (BATCH,) counts from 0 to 8."""
    centres = rng.uniform(0.1, 0.9, (BATCH, 8, 2))
    sides = np.exp(rng.uniform(np.log(0.05), np.log(0.8), (BATCH, 8, 2)))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).clip(0, 1)
    return boxes.astype(np.float32), np.arange(BATCH) * 8 // (BATCH - 1)


def untrained(rng, positive):
    """Boxes near their anchors, all losses about the same."""
    return 0.05 * rng.normal(size=(BATCH, len(ANCHORS), 4)), 1.4 + 0.1 * rng.normal(
        size=positive.shape
    )


def scattered(rng, positive):
    return rng.normal(size=(BATCH, len(ANCHORS), 4)), rng.exponential(size=positive.shape)


def trained(rng, positive):
    """Anchors near an object all give its box; positives anywhere in the ranking."""
    boxes, counts = truth(np.random.default_rng(7))
    near = match(ANCHORS, boxes, counts, 0.2).numpy()
    objects = np.take_along_axis(boxes, np.maximum(near, 0)[..., None], axis=1)
    exact = encode_boxes(tf.constant(objects), ANCHORS).numpy() + 0.02 * rng.normal(
        size=objects.shape
    )
    noise = 0.5 * rng.normal(size=objects.shape)
    middle = np.where(positive, -3, np.where(near >= 0, -4, -6))
    return np.where((near >= 0)[..., None], exact, noise), rng.lognormal(middle, 2)


def collapsed(rng, positive):
    """Every anchor gives the same box but for 1 %."""
    one = np.tile(np.float32([0.2, 0.2, 0.8, 0.8]), (BATCH, len(ANCHORS), 1))
    noise = 0.01 * rng.normal(size=one.shape)
    return encode_boxes(tf.constant(one), ANCHORS).numpy() + noise, rng.exponential(
        size=positive.shape
    )


def tied(rng, positive):
    """Many equal losses and equal boxes."""
    return np.round(rng.normal(size=(BATCH, len(ANCHORS), 4))), np.round(
        rng.exponential(size=positive.shape)
    )


def example(kind, seed=0):
    rng = np.random.default_rng(seed)
    positive = match(ANCHORS, *truth(np.random.default_rng(7)), 0.5).numpy() >= 0
    encodings, losses = kind(rng, positive)
    boxes = decode_boxes(tf.constant(encodings, tf.float32), ANCHORS)
    return losses.astype(np.float32), boxes, positive


KINDS = [untrained, scattered, trained, collapsed, tied]
CONFIGS = {
    "v1": {},
    "at least 3 negatives": {"min_negatives_per_image": 3},
    "few examples": {"num_hard_examples": 200},
    "one in two": {"max_negatives_per_positive": 0.5},
    "looser": {"mining_iou": 0.9},
}


@pytest.mark.parametrize(
    "way",
    [mine, pytest.param(mine_in_blocks, marks=pytest.mark.long)],
    ids=lambda way: way.__name__,
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_same_anchors_as_suppression_among_all(kind, options, way):
    config = made_up_model(**options)
    losses, boxes, positive = example(kind)
    expected = as_the_reference_mines(losses, boxes, positive, config)
    found = way(tf.constant(losses), boxes, tf.constant(positive), config).numpy()
    np.testing.assert_array_equal(found, expected)


def test_mining_in_blocks_compiles_and_chooses_the_same():
    config = made_up_model()
    compiled = tf.function(lambda *given: mine_in_blocks(*given, config), jit_compile=True)
    for kind in KINDS:
        losses, boxes, positive = example(kind)
        found = compiled(tf.constant(losses), boxes, tf.constant(positive)).numpy()
        expected = as_the_reference_mines(losses, boxes, positive, config)
        np.testing.assert_array_equal(found, expected, err_msg=kind.__name__)


def test_suppression_changes_the_choice_in_these_examples():
    losses, boxes, positive = example(trained)
    strict = mine(tf.constant(losses), boxes, tf.constant(positive), made_up_model())
    never = mine(tf.constant(losses), boxes, tf.constant(positive), made_up_model(mining_iou=1.0))
    assert (strict.numpy() != never.numpy()).sum() > 20


@pytest.mark.parametrize(
    ("overlap", "kept"),
    [pytest.param(0.991, [0, 2], id="suppressed"), pytest.param(0.989, [0, 1], id="kept")],
)
def test_boxes_suppress_each_other_above_an_overlap_of_0_99(overlap, kept):
    boxes = np.float32([[0, 0, 1, 1], [0, 0, 1, overlap], [5, 5, 6, 6]])[None]
    config = made_up_model(max_negatives_per_positive=1)
    positive = tf.constant([[True, False, False]])
    found = mine(tf.constant([[3.0, 2.0, 1.0]]), tf.constant(boxes), positive, config)
    assert np.flatnonzero(found).tolist() == kept


@pytest.mark.parametrize(
    ("rank", "kept"),
    [pytest.param(2999, True, id="the last"), pytest.param(3000, False, id="one too many")],
)
def test_a_positive_counts_only_among_the_first_3000(rank, kept):
    boxes = np.stack([np.float32([i, 0, i + 1, 1]) for i in range(3100)])[None]
    positive = tf.constant(np.arange(3100) == rank)[None]
    losses = tf.constant(np.arange(3100, 0, -1), tf.float32)[None]
    found = mine(losses, tf.constant(boxes), positive, made_up_model())
    assert bool(found[0, rank]) == kept
    assert int(tf.reduce_sum(tf.cast(found, tf.int32))) == 4 * kept


def test_a_positive_moves_up_for_each_anchor_suppressed_above_it():
    boxes = np.stack([np.float32([max(i, 1), 0, max(i, 1) + 1, 1]) for i in range(3100)])[None]
    positive = tf.constant(np.arange(3100) == 3000)[None]
    losses = tf.constant(np.arange(3100, 0, -1), tf.float32)[None]
    found = mine(losses, tf.constant(boxes), positive, made_up_model())
    assert np.flatnonzero(found).tolist() == [0, 2, 3, 3000]


def test_a_picture_without_objects_keeps_nothing_unless_asked():
    losses, boxes, positive = example(scattered)
    assert not positive[0].any()
    kept = mine(tf.constant(losses), boxes, tf.constant(positive), made_up_model()).numpy()
    assert kept[0].sum() == 0
    assert kept[1:].sum(axis=1).tolist() == (4 * positive[1:].sum(axis=1)).tolist()


def test_mining_is_several_times_faster_than_suppression_among_all():
    losses, boxes, positive = example(scattered)
    config = made_up_model()
    graph = tf.function(lambda *inputs: mine(*inputs, config))
    inputs = (tf.constant(losses), boxes, tf.constant(positive))
    graph(*inputs)
    assert best_of_three(lambda: graph(*inputs)) < 0.5 * best_of_three(
        lambda: as_the_reference_mines(losses, boxes, positive, config)
    )


def best_of_three(action):
    times = []
    for _ in range(3):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)
