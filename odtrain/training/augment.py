"""What is changed in a picture and its boxes each time they are trained on.

Every function takes a seed of its own and is stateless, so that a picture shown at a given position of
the training is changed in the same way whether or not the training was interrupted before it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import tensorflow as tf

from odtrain.config.schema import AugmentConfig

CROP_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""The seven settings of the reference's `ssd_random_crop`: how much of an object a crop must cover."""
KEEP_WHOLE_PROBABILITY = 0.15
ASPECT_RATIOS = (0.5, 2.0)
CROP_ATTEMPTS = 100
LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, as ITU-R BT.601 has it."""
HUE, GREY, BLUR, NOISE, JPEG = range(90, 95)
"""What seeds are drawn for, behind those of `_seeds`."""
BLURRED = (0.3, 2.0)
"""Pixels of the input that a blur's standard deviation may be."""
BLUR_REACH = 4
JPEG_QUALITIES = (25, 95)


def augment(
    image: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, seed: tf.Tensor, config: AugmentConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Flip and crop one picture, in the reference's order: flip first, crop at full size.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) yxyx, fractions 0-1.
        classes: (N,) ids, 1-based.
        seed: (2,) int64; the same seed gives the same change.
        config: which changes, and how strong.

    Returns:
        (h, w, 3) uint8, (M, 4) and (M,), M <= N: a crop can lose objects, even all of them.
    """
    flip, crop, *_ = _seeds(seed)
    if config.flip:
        image, boxes = _flip(image, boxes, flip)
    if config.crop:
        image, boxes, classes = _ssd_random_crop(image, boxes, classes, crop, config.crop_area)
    return image, boxes, classes


def _seeds(seed: tf.Tensor) -> list[tf.Tensor]:
    """One for each change: flip, crop, brightness, contrast, saturation."""
    return list(tf.unstack(tf.random.split(tf.cast(seed, tf.int32), 5)))


def _flip(image: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    def mirrored() -> tuple[tf.Tensor, tf.Tensor]:
        ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=1)
        return tf.reverse(image, [1]), tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=1)

    half = tf.random.stateless_uniform([], seed) < 0.5
    flipped: tuple[tf.Tensor, tf.Tensor] = tf.cond(half, mirrored, lambda: (image, boxes))
    return flipped


def _ssd_random_crop(
    image: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, seed: tf.Tensor, smallest: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The reference's `ssd_random_crop`: one of seven overlaps, or (15 %) the picture as it is.

    `smallest` is the least part of the picture's area that a crop shows; 0.1 in the reference.
    """
    pick, keep, window = tf.unstack(tf.random.split(seed, 3))
    setting = tf.random.stateless_uniform([], pick, maxval=len(CROP_OVERLAPS), dtype=tf.int32)
    overlap = tf.gather(tf.constant(CROP_OVERLAPS), setting)

    def cropped() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        begin, size, crop = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.clip_by_value(boxes, 0.0, 1.0)[None],
            window,
            min_object_covered=overlap,
            aspect_ratio_range=ASPECT_RATIOS,
            area_range=(smallest, 1.0),
            max_attempts=CROP_ATTEMPTS,
            use_image_if_no_bounding_boxes=True,
        )
        kept_boxes, kept_classes = _into_window(boxes, classes, crop[0, 0], overlap)
        return tf.slice(image, begin, size), kept_boxes, kept_classes

    whole = tf.random.stateless_uniform([], keep) < KEEP_WHOLE_PROBABILITY
    result: tuple[tf.Tensor, tf.Tensor, tf.Tensor] = tf.cond(
        whole, lambda: (image, boxes, classes), cropped
    )
    return result


def _into_window(
    boxes: tf.Tensor, classes: tf.Tensor, window: tf.Tensor, overlap: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Keep the boxes of which at least `overlap` lies in the window (4,) yxyx; clip them to it."""
    top_left = tf.maximum(boxes[:, :2], window[:2])
    bottom_right = tf.minimum(boxes[:, 2:], window[2:])
    visible = tf.reduce_prod(tf.maximum(bottom_right - top_left, 0.0), axis=1)
    area = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    keep = (visible > 0) & (visible >= overlap * area)
    origin = tf.tile(window[:2], [2])
    side = tf.tile(window[2:] - window[:2], [2])
    inside = (tf.concat([top_left, bottom_right], axis=1) - origin) / side
    return tf.boolean_mask(inside, keep), tf.boolean_mask(classes, keep)


def recolour(
    image: tf.Tensor,
    extent: tf.Tensor | float,
    seed: tf.Tensor,
    config: AugmentConfig,
    on: tf.Tensor | bool = True,
) -> tf.Tensor:
    """Change the colours of a picture at the network's size, where there are fewer pixels to change.

    Brightness by up to ± its fraction of the range; contrast about the picture's mean, and saturation about
    each pixel's, by up to ± theirs; then a turn of the colour circle, and none are left with the probability
    of `grey`.

    Args:
        image: (h, w, 3) float32, 0-255.
        extent: (4,) yxyx, the fraction of it that is the picture; the rest is padding, and stays.
        seed: (2,) int64, as `augment` takes it.
        config: which changes, and how strong.
        on: whether it comes before `augment.off_last`: hue and grey are left out behind that.

    Returns:
        (h, w, 3) float32, 0-255, not rounded.
    """
    if not any((config.brightness, config.contrast, config.saturation, config.hue, config.grey)):
        return image
    *_, brightness, contrast, saturation = _seeds(seed)
    shift = 255.0 * _within(config.brightness, brightness)
    factor = 1.0 + _within(config.contrast, contrast)
    colourful = 1.0 + _within(config.saturation, saturation)
    # All three are one affine map of a pixel's three colours: one product of matrices, not a dozen passes.
    pixels, inside = tf.reshape(image, [-1, 3]), _inside(image, extent)
    mean = tf.matmul(inside, pixels, transpose_a=True) / tf.reduce_sum(inside) + shift
    mix = colourful * tf.eye(3) + (1.0 - colourful) / 3.0
    if config.hue:
        mix @= _turned(config.hue * tf.cast(on, tf.float32), fold_in(seed, HUE))
    if config.grey:
        mix @= _greyed(on, config.grey, fold_in(seed, GREY))
    constant = tf.matmul(factor * shift + (1.0 - factor) * mean, mix)
    changed = tf.clip_by_value(tf.matmul(pixels, factor * mix) + constant, 0.0, 255.0)
    return tf.reshape(tf.where(inside > 0, changed, pixels), tf.shape(image))


def worsen(
    image: tf.Tensor, seed: tf.Tensor, config: AugmentConfig, on: tf.Tensor | bool = True
) -> tf.Tensor:
    """Blur a picture at the network's size, add noise to it and compress it, each where it is its turn.

    Arguments and result as `recolour` has them; behind `augment.off_last` it is left as it is.
    """
    changes: list[tuple[int, float, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]] = [
        (BLUR, config.blur, _blurred),
        (NOISE, float(config.noise > 0), lambda one, own: _noisy(one, config.noise, own)),
        (JPEG, config.jpeg, _compressed),
    ]
    for what, probability, change in changes:
        if probability:
            image = _perhaps(image, fold_in(seed, what), probability, on, change)
    return image


def _perhaps(
    image: tf.Tensor,
    seed: tf.Tensor,
    probability: float,
    on: tf.Tensor | bool,
    change: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    turn, own = tf.unstack(tf.random.split(seed, 2))
    happens = on & (tf.random.stateless_uniform([], turn) < probability)
    return tf.cond(happens, lambda: change(image, own), lambda: image)


def _blurred(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """By a Gaussian of a random width, the picture mirrored at its edges."""
    deviation = tf.random.stateless_uniform([], seed, *BLURRED)
    weights = tf.exp(-0.5 * tf.square(tf.range(-BLUR_REACH, BLUR_REACH + 1.0) / deviation))
    weights /= tf.reduce_sum(weights)
    reach = [BLUR_REACH, BLUR_REACH]
    padded = tf.pad(image, [reach, reach, [0, 0]], "REFLECT")[None]
    kernel = tf.tile(weights[:, None, None, None], [1, 1, 3, 1])
    down = tf.nn.depthwise_conv2d(padded, kernel, [1, 1, 1, 1], "VALID")
    across = tf.transpose(kernel, [1, 0, 2, 3])
    return tf.nn.depthwise_conv2d(down, across, [1, 1, 1, 1], "VALID")[0]


def _noisy(image: tf.Tensor, most: float, seed: tf.Tensor) -> tf.Tensor:
    """With normal noise of a standard deviation of up to `most` of the range, of each colour by itself."""
    strength, own = tf.unstack(tf.random.split(seed, 2))
    deviation = 255.0 * tf.random.stateless_uniform([], strength, 0.0, most)
    noise = tf.random.stateless_normal(tf.shape(image), own, stddev=deviation)
    return tf.clip_by_value(image + noise, 0.0, 255.0)


def _compressed(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """As it comes out of a JPEG file of a random quality."""
    low, high = JPEG_QUALITIES
    quality = tf.random.stateless_uniform([], seed, low, high + 1, tf.int32)
    whole = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
    encoded = tf.raw_ops.EncodeJpegVariableQuality(images=whole, quality=quality)
    decoded = tf.ensure_shape(tf.io.decode_jpeg(encoded, channels=3), image.shape)
    return tf.cast(decoded, tf.float32)


def fold_in(seed: tf.Tensor, what: int) -> tf.Tensor:
    """(2,) int32, a seed for one more thing that depends on (2,) `seed`."""
    return tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), what)


def _turned(most: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """(3, 3) that turns a pixel's colour about the axis of greys, by up to ± a fraction of the circle."""
    angle = 2 * pi * tf.random.stateless_uniform([], seed, -1.0, 1.0) * most
    cosine, sine = tf.cos(angle), tf.sin(angle) / 3**0.5
    around = tf.constant([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    return cosine * tf.eye(3) + (1 - cosine) / 3 + sine * around


def _greyed(on: tf.Tensor | bool, probability: float, seed: tf.Tensor) -> tf.Tensor:
    """(3, 3) that gives all three colours the pixel's luma, or the identity."""
    happens = on & (tf.random.stateless_uniform([], seed) < probability)
    return tf.where(happens, tf.tile(tf.constant(LUMA)[:, None], [1, 3]), tf.eye(3))


def _within(most: float, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, -most, most)


def _inside(image: tf.Tensor, extent: tf.Tensor | float) -> tf.Tensor:
    """(h w, 1), 1 where the picture is."""
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    height, width = tf.unstack(tf.round(sides * tf.broadcast_to(extent, [4])[:2]))
    rows = tf.range(sides[0]) < height
    columns = tf.range(sides[1]) < width
    return tf.reshape(tf.cast(rows[:, None] & columns[None, :], tf.float32), [-1, 1])
