import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_up_model import made_up_model

from odtrain.config.compose import section
from odtrain.config.schema import AugmentConfig
from odtrain.training.mixing import Stage, composed
from odtrain.training.placing import LEAST_VISIBLE, Move, cut, moved_boxes, place

MODEL = made_up_model(input_size=[96, 120])
PADDED = made_up_model(input_size=[96, 120], resize="pad_grey")
COLOURS = np.uint8(
    [[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]]
)


def pictures(companion):
    """A black picture of a size of its own, and one box in a colour of its own, of the class of its number."""
    height, width = 60 + 10 * companion, 90 - 5 * companion
    image = np.zeros((height, width, 3), np.uint8)
    image[20:40, 15:50] = COLOURS[companion]
    box = np.float32([[20 / height, 15 / width, 40 / height, 50 / width]])
    return tf.constant(image), tf.constant(box), tf.constant([companion + 1])


def shown(seed, model=MODEL, on=True, read=pictures, **values):
    config = section(AugmentConfig, **({"flip": True, "crop": False} | values))
    stage = Stage(config, model, tf.constant([0, seed], tf.int32), tf.constant(on))
    (image, boxes, classes), part = composed(read, stage)
    return image.numpy(), boxes.numpy(), classes.numpy(), part.numpy()


def seen(image, companion):
    """Edges (y, x, y, x) in pixels of what has the colour of a companion's box, or None."""
    alike = np.abs(image - COLOURS[companion].astype(np.float32)).max(2) < 60
    rows, columns = np.nonzero(alike.any(1))[0], np.nonzero(alike.any(0))[0]
    if not len(rows):
        return None
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def in_pixels(box):
    return box * [96, 120, 96, 120]


# ---- boxes, against loops


def slow_boxes(boxes, shape, matrix, offset):
    """Each box around its four corners, corner by corner, and whether enough of it is in (96, 120) pixels."""
    placed, kept = [], []
    for ymin, xmin, ymax, xmax in boxes:
        points = []
        for y in (ymin, ymax):
            for x in (xmin, xmax):
                source = (y * shape[0], x * shape[1])
                points.append(
                    [sum(matrix[i][j] * source[j] for j in (0, 1)) + offset[i] for i in (0, 1)]
                )
        low, high = ([f(p[i] for p in points) for i in (0, 1)] for f in (min, max))
        inside = [max(low[0], 0), max(low[1], 0), min(high[0], 96), min(high[1], 120)]
        sides = [max(inside[2] - inside[0], 0), max(inside[3] - inside[1], 0)]
        whole = (high[0] - low[0]) * (high[1] - low[1])
        placed.append(inside)
        kept.append(sides[0] * sides[1] > 0 and sides[0] * sides[1] >= LEAST_VISIBLE * whole)
    return placed, kept


corner = st.floats(0, 1, width=32)
number = st.floats(-2, 2, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(corner, corner, corner, corner), max_size=4),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.lists(number, min_size=4, max_size=4),
    st.tuples(st.floats(-100, 200, width=32), st.floats(-100, 200, width=32)),
)
def test_boxes_follow_any_map_as_their_corners_do(corners, shape, matrix, offset):
    boxes = np.sort(np.float32(corners).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    matrix = np.float32(matrix).reshape(2, 2)
    move = Move(tf.constant(matrix), tf.constant(offset, tf.float32))
    there = moved_boxes(tf.constant(boxes), tf.constant([*shape, 3]), move)
    found, kept = cut(there, tf.constant([0.0, 0.0, 96.0, 120.0]))
    expected, expected_kept = slow_boxes(
        boxes.astype(float), shape, matrix.astype(float), np.float32(offset).astype(float)
    )
    np.testing.assert_allclose(found, np.reshape(expected, (-1, 4)), atol=2e-3)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in there.numpy()]
    for one, other, box, area in zip(
        kept.numpy(), expected_kept, found.numpy(), areas, strict=True
    ):
        share = max(box[2] - box[0], 0) * max(box[3] - box[1], 0) - LEAST_VISIBLE * area
        assert one == other or abs(share) < 1e-2 * max(area, 1)  # rounding at the threshold


def test_a_picture_is_sampled_where_its_map_says():
    """Twice the size, shifted by 3 and 5 pixels: each pixel of the picture is a block of four."""
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    move = Move(tf.constant([[2.0, 0.0], [0.0, 2.0]]), tf.constant([3.0, 5.0]))
    found, _, _ = place(tf.constant(image), tf.zeros((0, 4)), tf.zeros(0, tf.int64), move, MODEL)
    blocks = found.numpy()[3:83, 5:105].reshape(40, 2, 50, 2, 3).mean((1, 3))
    np.testing.assert_allclose(blocks[1:-1, 1:-1], smoothed(image)[1:-1, 1:-1], atol=1e-2)
    assert (found.numpy()[:2] == 127).all()


def smoothed(image):
    """Means of the four samples a quarter of a pixel from each centre, by linear interpolation."""
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), "edge")
    weights = np.array([0.125, 0.75, 0.125])
    return sum(
        weights[i] * weights[j] * padded[i : i + 40, j : j + 50] for i in range(3) for j in range(3)
    )


# ---- boxes, against pixels


@pytest.mark.parametrize("model", [MODEL, PADDED], ids=["stretch", "pad"])
@pytest.mark.parametrize(
    "values", [{"scale": 0.5}, {"translate": 0.3}, {"scale": 0.3, "translate": 0.2}], ids=str
)
def test_boxes_follow_scale_and_shift(values, model):
    places = set()
    for seed in range(10):
        image, boxes, _, part = shown(seed, model, **values)
        if len(boxes):
            np.testing.assert_allclose(in_pixels(boxes[0]), seen(image, 0), atol=1.5)
            places.add(tuple(boxes[0].round(2)))
        assert part.tolist() == [1, 1, 1, 1]
    assert len(places) > 5


def test_boxes_hold_what_is_turned():
    for seed in range(10):
        image, boxes, _, _ = shown(seed, rotate=40)
        if len(boxes):
            np.testing.assert_allclose(in_pixels(boxes[0]), seen(image, 0), atol=3)


def test_a_mosaic_has_the_objects_of_four_pictures_each_where_it_is_seen():
    counts = []
    for seed in range(8):
        image, boxes, classes, _ = shown(seed, mosaic=1)
        assert image.shape == (96, 120, 3)
        assert set(classes) <= {1, 2, 3, 4}
        for box, number in zip(boxes, classes, strict=True):
            np.testing.assert_allclose(in_pixels(box), seen(image, number - 1), atol=1.5)
        counts.append(len(boxes))
    assert np.mean(counts) > 2.5


def test_a_mixture_has_both_pictures_and_their_objects():
    for seed in range(5):
        image, boxes, classes, _ = shown(seed, mixup=1)
        alone = [shown(seed)[0], None]
        assert classes.tolist() == [1, 5]
        assert len(boxes) == 2
        assert np.abs(image - alone[0] / 2).max() <= 128  # half of the other


def test_pasted_objects_hide_what_is_under_them():
    results = [shown(seed, copy_paste=1) for seed in range(20)]
    pasted = [one for one in results if 6 in one[2]]
    assert 3 < len(pasted) < 17  # half of the objects
    for image, boxes, classes, _ in pasted:
        box = boxes[classes.tolist().index(6)]
        np.testing.assert_allclose(in_pixels(box), seen(image, 5), atol=1.5)


def test_what_is_erased_is_filled_and_objects_under_it_are_dropped():
    lost = 0
    for seed in range(30):
        image, boxes, _, _ = shown(seed, erase=1)
        grey = (image == 127).all(2).mean()
        assert 0.015 < grey <= 0.21
        lost += not len(boxes)
    assert 0 < lost < 15


@pytest.mark.parametrize("model", [MODEL, PADDED], ids=["stretch", "pad"])
def test_the_last_part_of_the_schedule_has_pictures_as_they_are(model):
    everything = {"scale": 0.5, "rotate": 30, "mosaic": 1, "mixup": 1, "copy_paste": 1, "erase": 1}
    plain = shown(3, model)
    for found, expected in zip(shown(3, model, on=False, **everything), plain, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_same_place_gives_the_same_picture():
    everything = {"scale": 0.5, "rotate": 30, "mosaic": 0.5, "mixup": 0.5, "copy_paste": 0.5}
    for first, second in zip(shown(5, **everything), shown(5, **everything), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (shown(5, **everything)[0] != shown(6, **everything)[0]).any()


def test_pictures_without_objects_can_be_put_together_too():
    def empty(companion):
        image, _, _ = pictures(companion)
        return image, tf.zeros((0, 4)), tf.zeros(0, tf.int32)

    everything = {"scale": 0.5, "mosaic": 0.5, "mixup": 1, "copy_paste": 1, "erase": 1}
    for seed in range(5):
        _, boxes, classes, _ = shown(seed, read=empty, **everything)
        assert boxes.shape == (0, 4)
        assert classes.shape == (0,)
