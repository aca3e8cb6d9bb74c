"""Pictures brought to the network's input by one map each: scaled, moved and turned, and sampled once."""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import tensorflow as tf

from odtrain.config.schema import AugmentConfig, ModelConfig
from odtrain.models.ssd import extent
from odtrain_runtime import resizing

LEAST_VISIBLE = 0.3
"""Of an object's box, moved or cut: with less of it in the input, it is not asked for."""

Shown = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""A picture at the network's input (h, w, 3) float32 0-255, its (N, 4) boxes yxyx as fractions of the input,
and its (N,) classes."""


class Move(NamedTuple):
    """From pixels of a picture to those of the input: y, x become `matrix` times them, plus `offset`.

    Attributes:
        matrix: (2, 2).
        offset: (2,).
    """

    matrix: tf.Tensor
    offset: tf.Tensor


def as_resized(image: tf.Tensor, model: ModelConfig) -> Move:
    """Where the network's own resizing brings (H, W, 3) `image`."""
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    size = tf.constant(model.size, tf.float32)
    return Move(tf.linalg.diag(size * extent(image, model)[:2] / sides), tf.zeros(2))


def moved(
    move: Move, part: tf.Tensor, model: ModelConfig, seed: tf.Tensor, config: AugmentConfig
) -> Move:
    """`move`, and behind it a turn and a change of size about the picture's middle, and a shift.

    Args:
        move: of the picture as it is resized.
        part: (2,) of the input that it covers then.
        model: of the input.
        seed: (2,) int32.
        config: by how much at most: `scale` of 0.5 is 0.5 to 1.5 times the size, `translate` is a share of the
            picture's sides, `rotate` are degrees.
    """
    size, turn, y, x = tf.unstack(tf.random.split(seed, 4))
    factor = 1.0 + tf.random.stateless_uniform([], size, -config.scale, config.scale)
    angle = tf.random.stateless_uniform([], turn, -config.rotate, config.rotate) * (pi / 180)
    sides = tf.constant(model.size, tf.float32) * part
    shift = [
        tf.random.stateless_uniform([], way, -config.translate, config.translate) for way in (y, x)
    ]
    middle = sides / 2
    cosine, sine = tf.cos(angle), tf.sin(angle)
    turned = factor * tf.stack([tf.stack([cosine, -sine]), tf.stack([sine, cosine])])
    offset = tf.linalg.matvec(turned, move.offset - middle) + middle + tf.stack(shift) * sides
    return Move(turned @ move.matrix, offset)


def place(
    image: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, move: Move, model: ModelConfig
) -> Shown:
    """Sample (H, W, 3) `image` at the input's pixels, bilinearly; what it does not cover is filled.

    Boxes are those around the four moved corners, cut off at the input's edge; of which too little is left are
    dropped.
    """
    back = tf.linalg.inv(move.matrix)
    # TensorFlow maps the index of a pixel, x first: centres lie half a pixel behind indices.
    start = tf.linalg.matvec(back, 0.5 - move.offset) - 0.5
    row_y, row_x = tf.unstack(back)
    coefficients = [row_x[1], row_x[0], start[1], row_y[1], row_y[0], start[0], 0.0, 0.0]
    fill = fill_of(model)
    (sampled,) = tf.unstack(
        tf.raw_ops.ImageProjectiveTransformV3(
            images=(tf.cast(image, tf.float32) - fill)[None],
            transforms=tf.stack(coefficients)[None],
            output_shape=model.size,
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        ),
        num=1,
    )
    whole = tf.constant([0.0, 0.0, *model.size])
    placed, kept = cut(moved_boxes(boxes, tf.shape(image), move), whole)
    placed = tf.boolean_mask(placed, kept) / tf.constant([*model.size] * 2, tf.float32)
    return sampled + fill, placed, tf.boolean_mask(classes, kept)


def moved_boxes(boxes: tf.Tensor, shape: tf.Tensor, move: Move) -> tf.Tensor:
    """(N, 4) boxes yxyx in pixels of the input, around the corners of fractions of a picture of `shape`."""
    sides = tf.cast(shape[:2], tf.float32)
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=1)
    corners = tf.stack([ymin, xmin, ymin, xmax, ymax, xmin, ymax, xmax], axis=1)
    points = tf.reshape(corners, [-1, 4, 2]) * sides
    there = tf.einsum("ij,nkj->nki", move.matrix, points) + move.offset
    return tf.concat([tf.reduce_min(there, 1), tf.reduce_max(there, 1)], axis=1)


def cut(boxes: tf.Tensor, window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(N, 4) boxes cut off at the (4,) yxyx `window`, and (N,) whether enough of each is left."""
    inside = tf.concat(
        [tf.maximum(boxes[:, :2], window[:2]), tf.minimum(boxes[:, 2:], window[2:])], axis=1
    )
    return inside, (areas(inside) > 0) & (areas(inside) >= LEAST_VISIBLE * areas(boxes))


def areas(boxes: tf.Tensor) -> tf.Tensor:
    """(N,) of (N, 4) boxes, 0 where a side is negative."""
    return tf.reduce_prod(tf.nn.relu(boxes[:, 2:] - boxes[:, :2]), axis=1)


def fill_of(model: ModelConfig) -> tf.Tensor:
    """(3,) RGB of what no picture covers: what the network pads with, else grey."""
    return tf.constant(resizing.FILLS.get(model.resize, resizing.FILLS[resizing.PAD_GREY]))
