"""Several pictures made one: four side by side, two through one another, objects of one on another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import NamedTuple

import tensorflow as tf

from odtrain.config.schema import AugmentConfig, ModelConfig
from odtrain.models.ssd import extent, resize
from odtrain.training.augment import augment, fold_in
from odtrain.training.placing import (
    Move,
    Shown,
    areas,
    as_resized,
    cut,
    fill_of,
    moved,
    moved_boxes,
    place,
)

CENTRES = (0.3, 0.7)
"""Where the four pictures of a mosaic meet, as fractions of the input."""
MOSAIC_SIZES = (0.5, 1.0)
"""Of a picture in a mosaic, as a multiple of its size at the network's input."""
MOST_HIDDEN = 0.5
"""Of an object, by what is pasted or erased: with more, it is not asked for."""
PASTED = 0.5
"""Probability that an object of the other picture is pasted, where any is."""
ERASED_AREA, ERASED_SHAPE = (0.02, 0.2), (0.3, 3.3)
"""Of the input, and height to width: Zhong et al., "Random Erasing" (2020), with half of its largest area."""
MOSAIC, MIXUP, PASTE, ERASE, PLACE, COMPANIONS = range(100, 106)
"""What seeds are drawn for, behind those of `augment`."""

Read = Callable[[int], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""The picture itself (0) or its companions (1 to 5): (H, W, 3) uint8, (N, 4) yxyx fractions, (N,) classes."""


class Stage(NamedTuple):
    """What pictures are put together with.

    Attributes:
        config: which changes, and how strong.
        model: of the input.
        seed: (2,) int32 of the picture's place in the training.
        on: whether it comes before `augment.off_last`, a scalar bool.
    """

    config: AugmentConfig
    model: ModelConfig
    seed: tf.Tensor
    on: tf.Tensor

    def seed_of(self, what: int) -> tf.Tensor:
        """(2,) int32, another for each of the constants above, and for each companion."""
        return fold_in(self.seed, what)

    def happens(self, what: int, probability: float) -> tf.Tensor:
        """Whether it is this picture's turn, a scalar bool."""
        return self.on & (tf.random.stateless_uniform([], self.seed_of(what)) < probability)


def is_mixed(config: AugmentConfig) -> bool:
    """Whether `composed` does anything beyond flipping, cropping and resizing one picture."""
    return any(
        (
            config.mosaic,
            config.mixup,
            config.copy_paste,
            config.scale,
            config.translate,
            config.rotate,
            config.erase,
        )
    )


def composed(read: Read, stage: Stage) -> tuple[Shown, tf.Tensor]:
    """A picture as the network gets it, but for its colours, and the (4,) part of the input that it covers."""
    config = stage.config
    found = _single(read, stage, 0) if not config.mosaic else _mosaic_or_single(read, stage)
    for what, probability, change, companion in (
        (MIXUP, config.mixup, _blend, 4),
        (PASTE, config.copy_paste, _paste, 5),
    ):
        if probability:
            found = _with_companion(read, stage, found, what, probability, change, companion)
    if config.erase:
        shown, part = found
        happens = stage.happens(ERASE, config.erase)
        found = tf.cond(happens, lambda: _erase(shown, stage), lambda: shown), part
    return found


def _mosaic_or_single(read: Read, stage: Stage) -> tuple[Shown, tf.Tensor]:
    found: tuple[Shown, tf.Tensor] = tf.cond(
        stage.happens(MOSAIC, stage.config.mosaic),
        lambda: (_mosaic(read, stage), tf.ones(4)),
        lambda: _single(read, stage, 0),
    )
    return found


def _with_companion(
    read: Read,
    stage: Stage,
    found: tuple[Shown, tf.Tensor],
    what: int,
    probability: float,
    change: Callable[[Shown, Shown, Stage], Shown],
    companion: int,
) -> tuple[Shown, tf.Tensor]:
    changed: tuple[Shown, tf.Tensor] = tf.cond(
        stage.happens(what, probability),
        lambda: (change(found[0], _single(read, stage, companion)[0], stage), tf.ones(4)),
        lambda: found,
    )
    return changed


def _single(read: Read, stage: Stage, companion: int) -> tuple[Shown, tf.Tensor]:
    """One picture, flipped and cropped, and resized or moved into the input."""
    config, model = stage.config, stage.model
    own = stage.seed_of(COMPANIONS + companion) if companion else stage.seed
    image, boxes, classes = augment(*read(companion), own, config)
    image.set_shape([None, None, 3])
    part = extent(image, model)

    def resized() -> tuple[Shown, tf.Tensor]:
        return (resize(image, model), boxes * part, classes), tf.broadcast_to(part, [4])

    def elsewhere() -> tuple[Shown, tf.Tensor]:
        seed = fold_in(own, PLACE)
        move = moved(as_resized(image, model), part[:2], model, seed, config)
        return place(image, boxes, classes, move, model), tf.ones(4)

    if not (config.scale or config.translate or config.rotate):
        return resized()
    shown: tuple[Shown, tf.Tensor] = tf.cond(stage.on, elsewhere, resized)
    return shown


def _mosaic(read: Read, stage: Stage) -> Shown:
    """Four pictures that meet in a point, each smaller than by itself and cut off at the others' edges.

    Bochkovskiy et al., "YOLOv4" (2020), section 3.3; they are flipped, not cropped: the others' edges do that.
    """
    model = stage.model
    size = tf.constant(model.size, tf.float32)
    seed = stage.seed_of(MOSAIC)
    low, high = CENTRES
    centre = tf.round(size * tf.random.stateless_uniform([2], _next(seed), low, high))
    found: list[tuple[tf.Tensor, tf.Tensor]] = []
    fill = fill_of(model)
    canvas = tf.broadcast_to(fill, [*model.size, 3])
    for quarter in range(4):
        below, right = divmod(quarter, 2)
        corner = tf.constant([below, right], tf.float32)
        window = tf.concat([corner * centre, (1 - corner) * centre + corner * size], 0)
        own = stage.seed_of(COMPANIONS + quarter)
        image, boxes, classes = augment(*read(quarter), own, replace(stage.config, crop=False))
        image.set_shape([None, None, 3])
        factor = tf.random.stateless_uniform([], _next(own), *MOSAIC_SIZES)
        matrix = factor * as_resized(image, model).matrix
        sides = tf.linalg.matvec(matrix, tf.cast(tf.shape(image)[:2], tf.float32))
        move = Move(matrix, centre - (1 - corner) * sides)
        drawn, _, _ = place(image, boxes, classes, move, model)
        canvas = tf.where(_within(window, model.size), drawn, canvas)
        there, kept = cut(moved_boxes(boxes, tf.shape(image), move), window)
        there = tf.boolean_mask(there, kept) / tf.tile(size, [2])
        found.append((there, tf.boolean_mask(classes, kept)))
    boxes, classes = (tf.concat(each, 0) for each in zip(*found, strict=True))
    return canvas, boxes, classes


def _blend(own: Shown, other: Shown, stage: Stage) -> Shown:
    """The mean of two pictures, with the objects of both.

    Zhang et al., "Bag of Freebies for Training Object Detection Neural Networks" (2019), section 3.1, with the
    equal shares of YOLOX (2021).
    """
    image = (own[0] + other[0]) / 2
    return image, tf.concat([own[1], other[1]], 0), tf.concat([own[2], other[2]], 0)


def _paste(own: Shown, other: Shown, stage: Stage) -> Shown:
    """Some objects of another picture, each with what is in its box, over this one.

    Ghiasi et al., "Simple Copy-Paste" (2021), section 3, with boxes in place of masks.
    """
    size = tf.constant([*stage.model.size] * 2, tf.float32)
    draws = tf.random.stateless_uniform(tf.shape(other[2]), _next(stage.seed_of(PASTE)))
    pasted = tf.boolean_mask(other[1], draws < PASTED)
    over = tf.reduce_any(_within(pasted * size, stage.model.size), 0)
    left = ~_hidden(own[1], pasted)
    return (
        tf.where(over, other[0], own[0]),
        tf.concat([tf.boolean_mask(own[1], left), pasted], 0),
        tf.concat([tf.boolean_mask(own[2], left), tf.boolean_mask(other[2], draws < PASTED)], 0),
    )


def _erase(own: Shown, stage: Stage) -> Shown:
    """One rectangle filled with the padding's colour."""
    area, shape, y, x = tf.unstack(tf.random.split(_next(stage.seed_of(ERASE)), 4))
    share = tf.random.stateless_uniform([], area, *ERASED_AREA)
    ratio = tf.exp(tf.random.stateless_uniform([], shape, *map(log, ERASED_SHAPE)))
    sides = tf.minimum(tf.stack([tf.sqrt(share * ratio), tf.sqrt(share / ratio)]), 1.0)
    places = tf.stack([tf.random.stateless_uniform([], seed) for seed in (y, x)])
    start = places * (1.0 - sides)
    gone = tf.concat([start, start + sides], 0)
    size = tf.constant([*stage.model.size] * 2, tf.float32)
    over = _within(gone * size, stage.model.size)
    left = ~_hidden(own[1], gone[None])
    image = tf.where(over, fill_of(stage.model), own[0])
    return image, tf.boolean_mask(own[1], left), tf.boolean_mask(own[2], left)


def _hidden(boxes: tf.Tensor, covers: tf.Tensor) -> tf.Tensor:
    """(N,) whether any one of (M, 4) `covers` hides too much of (N, 4) boxes."""
    sides = tf.minimum(boxes[:, None, 2:], covers[None, :, 2:]) - tf.maximum(
        boxes[:, None, :2], covers[None, :, :2]
    )
    both = tf.reduce_prod(tf.nn.relu(sides), axis=2)
    return tf.reduce_any(both > MOST_HIDDEN * areas(boxes)[:, None], axis=1)


def _within(window: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """(..., h, w, 1) whether a pixel's centre lies in (..., 4) windows yxyx, in pixels."""
    y, x = (tf.range(side, dtype=tf.float32) + 0.5 for side in size)
    top, left, bottom, right = (edge[..., None] for edge in tf.unstack(window, axis=-1))
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (rows[..., :, None] & columns[..., None, :])[..., None]


def _next(seed: tf.Tensor) -> tf.Tensor:
    return fold_in(seed, 1)
