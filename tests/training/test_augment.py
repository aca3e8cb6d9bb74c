import numpy as np
import pytest
import tensorflow as tf

from odtrain.config.compose import section
from odtrain.config.schema import AugmentConfig
from odtrain.training.augment import augment

NOTHING = section(AugmentConfig, flip=False, crop=False)
FLIP = section(AugmentConfig, flip=True, crop=False)
CROP = section(AugmentConfig, flip=False, crop=True)


def marked(height=60, width=90):
    """A black picture with one white box, and that box."""
    image = np.zeros((height, width, 3), np.uint8)
    image[12:30, 18:45] = 255
    return image, np.array([[12 / height, 18 / width, 30 / height, 45 / width]], np.float32)


def changed(config, seed, image=None, boxes=None):
    if image is None:
        image, boxes = marked()
    classes = np.arange(1, len(boxes) + 1)
    result = augment(
        tf.constant(image), tf.constant(boxes), tf.constant(classes), [0, seed], config
    )
    return [part.numpy() for part in result]


def white_box(image):
    rows, columns = np.nonzero(image[:, :, 0].max(axis=1))[0], np.nonzero(image[:, :, 0].max(0))[0]
    height, width = image.shape[:2]
    return [
        rows[0] / height,
        columns[0] / width,
        (rows[-1] + 1) / height,
        (columns[-1] + 1) / width,
    ]


def test_nothing_asked_nothing_changed():
    image, boxes = marked()
    got_image, got_boxes, got_classes = changed(NOTHING, 0)
    np.testing.assert_array_equal(got_image, image)
    np.testing.assert_array_equal(got_boxes, boxes)
    np.testing.assert_array_equal(got_classes, [1])


def test_the_same_seed_gives_the_same_change():
    config = section(AugmentConfig, brightness=0.2, contrast=0.2, saturation=0.2)
    for first, second in zip(changed(config, 7), changed(config, 7), strict=True):
        np.testing.assert_array_equal(first, second)


def test_half_of_the_pictures_are_flipped_and_their_boxes_follow():
    flipped = 0
    for seed in range(200):
        image, boxes, _ = changed(FLIP, seed)
        np.testing.assert_allclose(boxes[0], white_box(image), atol=1e-6)
        flipped += boxes[0, 1] > 0.4
    assert 75 <= flipped <= 125


def test_boxes_follow_the_crop():
    """Within a pixel: a window's corner lies between pixels, the picture's does not."""
    seen = 0
    for seed in range(100):
        image, boxes, _ = changed(CROP, seed)
        if len(boxes):
            pixel = 1.01 / min(image.shape[:2])
            np.testing.assert_allclose(boxes[0], white_box(image), atol=pixel)
            seen += image.shape != (60, 90, 3)
    assert seen > 30


def test_about_one_in_seven_pictures_stays_whole():
    """15 % by choice; what sampling gives up on adds to it."""
    whole = sum(changed(CROP, seed)[0].shape == (60, 90, 3) for seed in range(300))
    assert 30 <= whole <= 90


def test_a_crop_keeps_classes_with_their_boxes():
    image, _ = marked()
    boxes = np.array([[0.0, 0.0, 0.2, 0.2], [0.2, 0.2, 0.5, 0.5], [0.7, 0.7, 1.0, 1.0]], np.float32)
    lost = 0
    for seed in range(100):
        _, kept, classes = changed(CROP, seed, image, boxes)
        assert len(kept) == len(classes)
        assert (kept >= 0).all()
        assert (kept <= 1 + 1e-6).all()
        lost += len(kept) < 3
    assert lost > 20


@pytest.mark.parametrize("config", [FLIP, CROP], ids=["flip", "crop"])
def test_a_picture_without_objects_is_changed_too(config):
    image, _ = marked()
    for seed in range(10):
        _, boxes, classes = changed(config, seed, image, np.zeros((0, 4), np.float32))
        assert boxes.shape == (0, 4)
        assert classes.shape == (0,)


def test_light_stays_within_its_bounds():
    image = np.full((8, 8, 3), 128, np.uint8)
    boxes = np.zeros((0, 4), np.float32)
    config = section(AugmentConfig, flip=False, crop=False, brightness=0.1)
    means = [changed(config, seed, image, boxes)[0].mean() for seed in range(50)]
    assert min(means) >= 128 - 26
    assert max(means) <= 128 + 26
    assert max(means) - min(means) > 30
