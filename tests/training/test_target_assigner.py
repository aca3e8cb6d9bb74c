from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from support.made_up_model import made_up_model

from odtrain.config.compose import section
from odtrain.config.schema import AnchorConfig
from odtrain.models.anchors import ssd_anchors
from odtrain.models.ssd import decode_boxes
from odtrain.structures import pairwise_iou as numpy_iou
from odtrain.training.target_assigner import assign, encode_boxes, match, pairwise_iou

ANCHORS = np.array(
    [
        [0.0, 0.0, 0.5, 0.5],
        [0.0, 0.5, 0.5, 1.0],
        [0.5, 0.0, 1.0, 0.5],
        [0.5, 0.5, 1.0, 1.0],
        [0.0, 0.0, 1.0, 1.0],
    ],
    np.float32,
)
JUNK = [0.0, 0.0, 0.5, 0.5]


def matched(*boxes: list[float], padding: int = 0) -> list[int]:
    padded = np.array([[*boxes, *[JUNK] * padding]], np.float32).reshape(1, -1, 4)
    return match(ANCHORS, padded, np.array([len(boxes)]), 0.5).numpy()[0].tolist()


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        pytest.param([], [-1, -1, -1, -1, -1], id="no objects"),
        pytest.param([[0.0, 0.0, 0.5, 0.5]], [0, -1, -1, -1, -1], id="exactly one anchor"),
        pytest.param([[0.0, 0.0, 0.5, 0.25]], [0, -1, -1, -1, -1], id="half of an anchor"),
        pytest.param([[0.1, 0.1, 0.11, 0.11]], [0, -1, -1, -1, -1], id="tiny, forced"),
        pytest.param(
            [[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.4]], [0, -1, -1, -1, -1], id="one anchor"
        ),
        pytest.param(
            [[0.0, 0.0, 0.5, 0.4], [0.0, 0.0, 0.5, 0.5]], [0, -1, -1, -1, -1], id="lower row wins"
        ),
        pytest.param(
            [[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0]], [-1, -1, -1, 1, 0], id="two objects"
        ),
        pytest.param([[0.0, 0.0, 0.5, 1.0]], [0, 0, -1, -1, 0], id="three anchors at 0.5"),
    ],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_anchors_take_objects(boxes, expected, padding):
    assert matched(*boxes, padding=padding) == expected


def targets(encode_background_as_zeros: bool):
    config = made_up_model(encode_background_as_zeros=encode_background_as_zeros)
    boxes = np.array([[[0.5, 0.5, 1.0, 1.0], JUNK], [JUNK, JUNK]], np.float32)
    classes = np.array([[2, 1], [1, 1]])
    return assign(ANCHORS, boxes, classes, np.array([1, 0]), 2, config)


def test_the_background_is_a_class_of_its_own():
    found = targets(encode_background_as_zeros=False).class_targets.numpy()
    expected = np.tile(np.float32([1, 0, 0]), (2, 5, 1))
    expected[0, 3] = [0, 0, 1]
    np.testing.assert_array_equal(found, expected)


def test_the_background_is_nothing_where_it_is_encoded_as_zeros():
    found = targets(encode_background_as_zeros=True).class_targets.numpy()
    expected = np.zeros((2, 5, 3), np.float32)
    expected[0, 3] = [0, 0, 1]
    np.testing.assert_array_equal(found, expected)


def test_only_anchors_with_an_object_have_box_targets():
    found = targets(encode_background_as_zeros=False)
    assert found.positive.numpy().sum() == 1
    assert found.box_targets.numpy()[~found.positive.numpy()].any() == np.False_
    np.testing.assert_allclose(found.box_targets[0, 3], np.zeros(4), atol=1e-6)


def test_a_batch_padded_with_nothing_has_no_objects():
    found = assign(
        ANCHORS, np.zeros((2, 0, 4), np.float32), np.zeros((2, 0)), [0, 0], 3, made_up_model()
    )
    assert found.matches.numpy().tolist() == [[-1] * 5] * 2
    assert found.class_targets.numpy()[:, :, 0].all()


def test_batches_of_any_size_share_one_graph():
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 4), tf.float32),
            tf.TensorSpec((None, None), tf.int64),
            tf.TensorSpec((None,), tf.int32),
        ],
        autograph=False,
    )
    def graph(boxes, classes, counts):
        traces.append(1)
        return assign(ANCHORS, boxes, classes, counts, 2, made_up_model()).matches

    for batch, objects in ((1, 1), (2, 3), (3, 0)):
        boxes = np.tile(np.float32(JUNK), (batch, objects, 1))
        counts = np.full(batch, objects, np.int32)
        found = graph(boxes, np.ones((batch, objects), np.int64), counts)
        assert found.numpy()[:, 0].tolist() == [0 if objects else -1] * batch
    assert len(traces) == 1


def test_encodings_are_the_reference_s_numbers():
    anchor = np.float32([[0.2, 0.3, 0.6, 0.8]])
    box = np.float32([[0.25, 0.2, 0.75, 0.6]])
    height, width = 0.5 / 0.4, 0.4 / 0.5
    expected = [10 * 0.1 / 0.4, 10 * -0.15 / 0.5, 5 * np.log(height), 5 * np.log(width)]
    np.testing.assert_allclose(encode_boxes(tf.constant(box), anchor)[0], expected, rtol=1e-5)


def test_decoding_undoes_encoding():
    anchors = ssd_anchors(section(AnchorConfig), [(3, 3)] * 6, (90, 120))
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 1, (2, len(anchors), 2, 2)), axis=2).reshape(2, -1, 4)
    boxes = corners.astype(np.float32)
    encodings = encode_boxes(tf.constant(boxes), anchors)
    np.testing.assert_allclose(decode_boxes(encodings, anchors), boxes, atol=2e-6)


def test_a_box_without_area_has_finite_encodings():
    anchor = np.float32([[0.2, 0.3, 0.6, 0.8]])
    assert np.isfinite(encode_boxes(tf.constant([[0.4, 0.4, 0.4, 0.4]]), anchor)).all()


def test_overlaps_are_those_of_the_evaluation():
    corners = np.sort(np.random.default_rng(1).uniform(0, 1, (2, 8, 2, 2)), axis=2)
    boxes = corners.reshape(2, 8, 4).astype(np.float32)
    found = pairwise_iou(boxes, ANCHORS).numpy()
    expected = [numpy_iou(picture, ANCHORS) for picture in boxes]
    np.testing.assert_allclose(found, expected, atol=1e-6)
