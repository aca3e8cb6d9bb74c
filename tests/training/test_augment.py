import numpy as np
import pytest
import tensorflow as tf

from odtrain.config.compose import section
from odtrain.config.schema import AugmentConfig
from odtrain.training.augment import augment, recolour, worsen

NOTHING = section(AugmentConfig, flip=False, crop=False)
FLIP = section(AugmentConfig, flip=True, crop=False)
CROP = section(AugmentConfig, flip=False, crop=True)


COLOURS = section(AugmentConfig, brightness=0.2, contrast=0.2, saturation=0.2)


def recoloured(config, seed, image=None, extent=1.0):
    """`image`, else one of many colours, changed."""
    if image is None:
        image = np.random.default_rng(0).uniform(0, 255, (6, 8, 3))
    return recolour(tf.constant(image, tf.float32), extent, [0, seed], config).numpy()


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
    config = section(AugmentConfig)
    for first, second in zip(changed(config, 7), changed(config, 7), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(recoloured(COLOURS, 7), recoloured(COLOURS, 7))
    assert (recoloured(COLOURS, 7) != recoloured(COLOURS, 8)).any()


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
    image = np.full((8, 8, 3), 128)
    config = section(AugmentConfig, brightness=0.1)
    means = [recoloured(config, seed, image).mean() for seed in range(50)]
    assert min(means) >= 128 - 25.5
    assert max(means) <= 128 + 25.5
    assert max(means) - min(means) > 30


@pytest.mark.parametrize("name", ["contrast", "saturation"])
def test_contrast_and_saturation_leave_a_grey_picture_as_it_is(name):
    grey = np.full((4, 4, 3), 100.0)
    config = section(AugmentConfig, brightness=0.0, **{name: 0.5})
    np.testing.assert_allclose(recoloured(config, 3, grey), grey)
    assert (recoloured(config, 3) != recoloured(config, 4)).any()


def test_padding_keeps_its_colour_and_does_not_count_to_the_picture():
    picture = np.random.default_rng(0).uniform(50, 200, (4, 8, 3))
    padded = np.concatenate([picture, np.full((2, 8, 3), 127.0)])
    part = np.array([4 / 6, 1, 4 / 6, 1], np.float32)
    for seed in range(5):
        found = recoloured(COLOURS, seed, padded, part)
        np.testing.assert_allclose(found[:4], recoloured(COLOURS, seed, picture), rtol=1e-5)
        np.testing.assert_array_equal(found[4:], padded[4:])


def test_colours_stay_colours():
    wild = section(AugmentConfig, brightness=1.0, contrast=1.0, saturation=1.0)
    for seed in range(20):
        found = recoloured(wild, seed)
        assert found.min() >= 0
        assert found.max() <= 255


def test_a_turn_of_the_colour_circle_keeps_greys_and_brightness():
    config = section(AugmentConfig, hue=0.5)
    image = np.random.default_rng(0).uniform(80, 170, (6, 8, 3))
    found = recoloured(config, 3, image)
    np.testing.assert_allclose(found.mean(2), image.mean(2), rtol=1e-4)
    np.testing.assert_allclose(np.std(found, axis=2), np.std(image, axis=2), rtol=1e-3)
    assert np.abs(found - image).max() > 5
    np.testing.assert_allclose(recoloured(config, 3, np.full((4, 4, 3), 100.0)), 100.0, rtol=1e-5)


def test_some_pictures_lose_their_colours():
    config = section(AugmentConfig, grey=0.4)
    image = np.random.default_rng(0).uniform(0, 255, (4, 4, 3)).astype(np.float32)
    luma = image @ np.float32([0.299, 0.587, 0.114])
    without = 0
    for seed in range(100):
        found = recoloured(config, seed, image)
        if np.ptp(found, axis=2).max() < 1e-2:
            np.testing.assert_allclose(found[..., 0], luma, rtol=1e-4)
            without += 1
        else:
            np.testing.assert_allclose(found, image, rtol=1e-4)
    assert 25 <= without <= 55


def worsened(seed, on=True, **values):
    image = np.random.default_rng(0).uniform(20, 230, (24, 32, 3)).astype(np.float32)
    config = section(AugmentConfig, **values)
    return image, worsen(tf.constant(image), [0, seed], config, on).numpy()


def test_blur_keeps_the_mean_and_takes_detail():
    image, found = worsened(1, blur=1)
    assert found.mean() == pytest.approx(image.mean(), rel=0.02)
    assert np.std(found) < 0.8 * np.std(image)


def test_noise_is_as_strong_as_asked_at_most():
    apart = [np.std(np.subtract(*worsened(seed, noise=0.04))) for seed in range(20)]
    assert max(apart) <= 0.041 * 255
    assert max(apart) > 4 * min(apart)


def test_a_compressed_picture_is_that_of_a_jpeg_file():
    image, found = worsened(0, jpeg=1)
    assert found.shape == image.shape
    assert (found == found.round()).all()
    assert 1 < np.abs(found - image).mean() < 60


@pytest.mark.parametrize("values", [{"blur": 1}, {"noise": 0.1}, {"jpeg": 1}], ids=str)
def test_what_worsens_a_picture_is_left_out_of_the_last_part(values):
    image, found = worsened(0, on=False, **values)
    np.testing.assert_array_equal(found, image)
    assert (worsened(0, **values)[1] != image).any()
    np.testing.assert_array_equal(worsened(3, **values)[1], worsened(3, **values)[1])
