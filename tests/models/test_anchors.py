from __future__ import annotations

import numpy as np
import pytest

from odtrain.config.compose import section
from odtrain.config.schema import AnchorConfig, PyramidConfig
from odtrain.models.anchors import anchor_shapes, anchors_per_cell, pyramid_anchors, ssd_anchors

SHAPES_300 = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]


def test_a_300_pixel_network_has_1917_anchors():
    anchors = ssd_anchors(section(AnchorConfig), SHAPES_300, (300, 300))
    assert anchors.shape == (1917, 4)
    assert anchors.dtype == np.float32


def test_three_anchors_in_a_cell_of_the_finest_map_and_six_elsewhere():
    assert anchors_per_cell(section(AnchorConfig)) == [3, 6, 6, 6, 6, 6]


def test_the_finest_map_is_like_the_others_where_it_is_not_reduced():
    shapes = anchor_shapes(section(AnchorConfig, reduce_boxes_in_lowest_layer=False))
    assert shapes[0] == [
        *(pytest.approx((0.2, ratio)) for ratio in (1.0, 2.0, 0.5, 3.0, 0.3333)),
        (pytest.approx((0.2 * 0.35) ** 0.5), 1.0),
    ]


def test_the_last_extra_square_is_between_the_last_scale_and_the_whole_picture():
    assert anchor_shapes(section(AnchorConfig))[-1][-1] == (pytest.approx(0.95**0.5), 1.0)


def test_anchors_go_by_row_then_column_then_shape():
    config = section(AnchorConfig, num_layers=2, aspect_ratios=[1.0])
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
    first = ssd_anchors(section(AnchorConfig), SHAPES_300, size)[0]
    assert first[2] - first[0] == pytest.approx(height)
    assert first[3] - first[1] == pytest.approx(width)


def test_anchors_reach_beyond_the_picture():
    anchors = ssd_anchors(section(AnchorConfig), SHAPES_300, (300, 300))
    assert anchors.min() < -0.4
    assert anchors.max() > 1.4


def test_pyramid_anchors_are_four_cells_large_and_go_by_shape_then_octave():
    anchors = pyramid_anchors(
        section(PyramidConfig, min_level=6, max_level=6), [(2, 2)], (128, 128)
    )
    heights, widths = (128 * (anchors[:6, i + 2] - anchors[:6, i]) for i in range(2))
    side, root = 4 * 64, 2**0.5
    np.testing.assert_allclose(heights[:2], [side, side * root], rtol=1e-6)
    np.testing.assert_allclose(widths / heights, [1, 1, 2, 2, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("side", "first"),
    [pytest.param(128, 32, id="divided"), pytest.param(160, 0, id="not divided")],
)
def test_a_pyramid_s_first_cell_is_centred_only_where_the_stride_divides_the_side(side, first):
    config = section(
        PyramidConfig, min_level=6, max_level=6, scales_per_octave=1, aspect_ratios=[1.0]
    )
    anchors = pyramid_anchors(config, [(3, 3)], (side, 128))
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2 * [side, 128]
    np.testing.assert_allclose(centres[0], [first, 32], atol=1e-4)
    np.testing.assert_allclose(centres[4], [first + 64, 96], atol=1e-4)
