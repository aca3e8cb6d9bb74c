from __future__ import annotations

import numpy as np
import pytest

from odtrain.anchors import anchor_shapes, anchors_per_cell, ssd_anchors
from odtrain.config import AnchorConfig

SHAPES_300 = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]


def test_a_300_pixel_network_has_1917_anchors():
    anchors = ssd_anchors(AnchorConfig(), SHAPES_300, (300, 300))
    assert anchors.shape == (1917, 4)
    assert anchors.dtype == np.float32


def test_three_anchors_in_a_cell_of_the_finest_map_and_six_elsewhere():
    assert anchors_per_cell(AnchorConfig()) == [3, 6, 6, 6, 6, 6]


def test_the_finest_map_is_like_the_others_where_it_is_not_reduced():
    shapes = anchor_shapes(AnchorConfig(reduce_boxes_in_lowest_layer=False))
    assert shapes[0] == [
        (0.2, 1.0),
        (0.2, 2.0),
        (0.2, 0.5),
        (0.2, 3.0),
        (0.2, 0.3333),
        (pytest.approx((0.2 * 0.35) ** 0.5), 1.0),
    ]


def test_the_last_extra_square_is_between_the_last_scale_and_the_whole_picture():
    assert anchor_shapes(AnchorConfig())[-1][-1] == (pytest.approx(0.95**0.5), 1.0)


def test_anchors_go_by_row_then_column_then_shape():
    config = AnchorConfig(num_layers=2, aspect_ratios=[1.0])
    anchors = ssd_anchors(config, [(1, 2), (2, 1)], (100, 100))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    finest = [[0.5, 0.25]] * 3 + [[0.5, 0.75]] * 3
    coarse = [[0.25, 0.5]] * 2 + [[0.75, 0.5]] * 2
    np.testing.assert_allclose(centres, finest + coarse, atol=1e-7)


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [
        pytest.param((300, 300), 0.1, 0.1, id="square"),
        pytest.param((200, 400), 0.1, 0.05, id="wide"),
        pytest.param((480, 240), 0.05, 0.1, id="high"),
    ],
)
def test_a_square_anchor_is_square_in_pixels(size, height, width):
    first = ssd_anchors(AnchorConfig(), SHAPES_300, size)[0]
    assert first[2] - first[0] == pytest.approx(height)
    assert first[3] - first[1] == pytest.approx(width)


def test_anchors_reach_beyond_the_picture():
    anchors = ssd_anchors(AnchorConfig(), SHAPES_300, (300, 300))
    assert anchors.min() < -0.4
    assert anchors.max() > 1.4
