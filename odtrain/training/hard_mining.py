"""Hard-example mining: which anchors a loss counts.

The reference suppresses predicted boxes that nearly coincide (IoU 0.99), highest classification
loss first, then keeps every surviving positive and the first few surviving negatives of each
picture. Suppressing among all anchors costs up to a fifth of a training step. The choice depends on
far fewer of them, so only these are looked at here, with the same result: a leading part of the
ranking that holds enough negatives, the positives behind it, and whatever nearly coincides with
those.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from odtrain.config.schema import ModelConfig

SPARE_NEGATIVES = 16
"""Negatives looked at beyond 5/4 of those that may be needed: some are suppressed."""

IOU_MARGIN = 1e-4
"""Boxes this close below the threshold count as neighbours, so that rounding loses none."""

ROUNDING = 4e-6
"""Of a box's squared length: three times the most by which float32 can miss a squared distance."""

MANY_NEIGHBOURS = 128
"""In one picture; from here on suppressing among all of its anchors is quicker."""


BLOCK = 128
"""Ranks that `mine_in_blocks` looks at together."""


class Ranking(NamedTuple):
    """A batch's anchors, highest classification loss first.

    Attributes:
        order: (B, A) int32, the anchor at each rank.
        boxes: (B, A, 4) yxyx, by rank.
        positive: (B, A) bool, by rank.
    """

    order: tf.Tensor
    boxes: tf.Tensor
    positive: tf.Tensor


def mine(
    class_losses: tf.Tensor, boxes: tf.Tensor, positive: tf.Tensor, config: ModelConfig
) -> tf.Tensor:
    """The anchors to count, (B, A) bool.

    Args:
        class_losses: (B, A), unweighted, summed over classes.
        boxes: (B, A, 4) yxyx, decoded from the network's encodings.
        positive: (B, A) bool, whether the anchor has an object.
        config: the numbers of examples and the IoU.
    """
    ranking = _ranked(class_losses, boxes, positive)
    leading = _leading(ranking, config)
    kept, enough = _choose(ranking, leading, config)
    kept = tf.cond(
        tf.reduce_all(enough),
        lambda: kept,
        lambda: _choose(ranking, leading | ~enough[:, None], config)[0],
    )
    return _scatter(ranking.order, kept)


def mine_in_blocks(
    class_losses: tf.Tensor, boxes: tf.Tensor, positive: tf.Tensor, config: ModelConfig
) -> tf.Tensor:
    """The same as `mine` of the same, of operators and shapes that XLA compiles.

    The ranking is gone through block by block, each compared with the survivors above it, until all pictures
    have what they need. On a processor it takes longer than `mine`.
    """
    ranking = _ranked(class_losses, boxes, positive)
    batch, anchors = tf.shape(ranking.order)[0], int(ranking.order.shape[1])
    blocks = -(-anchors // BLOCK)
    behind = [[0, 0], [0, blocks * BLOCK - anchors]]
    padded = tf.pad(ranking.boxes, [*behind, [0, 0]])
    last = tf.reduce_max(tf.where(ranking.positive, tf.range(anchors), -1), axis=1)

    def kept_of(survivors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        every = tf.ones_like(ranking.positive)
        return _kept(survivors[:, :anchors], ranking.positive, every, config)

    def lacks(number: tf.Tensor, survivors: tf.Tensor) -> tf.Tensor:
        found, wanted = kept_of(survivors)
        enough = _count(found & ~ranking.positive) >= wanted
        done = (last < number * BLOCK) & enough
        full = _count(survivors) >= config.num_hard_examples
        return (number < blocks) & ~tf.reduce_all(done | full)

    def add(number: tf.Tensor, survivors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first = number * BLOCK
        block = tf.slice(padded, [0, first, 0], [batch, BLOCK, 4])
        below = first + tf.range(BLOCK) < anchors
        beaten = _overlaps(block, padded, config.mining_iou) & survivors[:, None]
        alive = below & ~tf.reduce_any(beaten, axis=2)
        among = _overlaps(block, block, config.mining_iou)
        among &= tf.range(BLOCK)[None] < tf.range(BLOCK)[:, None]
        fresh = _greedy(alive, among)
        places = first + tf.range(BLOCK)
        spread = tf.one_hot(places, blocks * BLOCK, on_value=True, off_value=False, dtype=tf.bool)
        return number + 1, survivors | tf.reduce_any(spread & fresh[..., None], axis=1)

    none = tf.zeros((batch, blocks * BLOCK), tf.bool)
    _, survivors = tf.while_loop(lacks, add, (tf.constant(0), none))
    kept, _ = kept_of(survivors)
    return tf.gather(kept, tf.argsort(ranking.order, axis=1), batch_dims=1)


def _greedy(alive: tf.Tensor, among: tf.Tensor) -> tf.Tensor:
    """(B, W) bool: those `alive` that no such one above overlaps; `among` (B, W, W): whom each is beaten by.

    What is asked again and again comes to rest at the greedy choice: the first is settled at once, and each
    that is settled settles those below.
    """

    def again(kept: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = alive & ~tf.reduce_any(among & kept[:, None], axis=2)
        return found, tf.reduce_any(found != kept)

    return tf.while_loop(lambda _, changed: changed, again, (alive, tf.constant(True)))[0]


def _overlaps(some: tf.Tensor, others: tf.Tensor, iou: float) -> tf.Tensor:
    """(B, M, N) bool: whether (B, M, 4) and (B, N, 4) boxes overlap by more, as TensorFlow's kernel says."""
    low = [tf.minimum(each[..., :2], each[..., 2:]) for each in (some, others)]
    high = [tf.maximum(each[..., :2], each[..., 2:]) for each in (some, others)]
    areas = [tf.reduce_prod(b - a, axis=-1) for a, b in zip(low, high, strict=True)]
    top = tf.minimum(high[0][:, :, None], high[1][:, None])
    sides = tf.maximum(top - tf.maximum(low[0][:, :, None], low[1][:, None]), 0.0)
    shared = tf.reduce_prod(sides, axis=-1)
    return shared / (areas[0][:, :, None] + areas[1][:, None] - shared) > iou


def _ranked(class_losses: tf.Tensor, boxes: tf.Tensor, positive: tf.Tensor) -> Ranking:
    anchors = tf.shape(class_losses)[1]
    order = tf.math.top_k(tf.stop_gradient(class_losses), anchors).indices
    return Ranking(
        order,
        tf.gather(tf.stop_gradient(boxes), order, batch_dims=1),
        tf.gather(positive, order, batch_dims=1),
    )


def _leading(ranking: Ranking, config: ModelConfig) -> tf.Tensor:
    """(B, A) bool: the leading ranks, down to where enough negatives should have survived."""
    wanted = _negatives_wanted(_count(ranking.positive), config)
    leading = _running_count(~ranking.positive) <= (wanted + wanted // 4 + SPARE_NEGATIVES)[:, None]
    ranks = tf.range(tf.shape(leading)[1])
    # A positive below num_hard_examples is kept only if enough anchors above it are suppressed.
    last = tf.reduce_max(tf.where(ranking.positive, ranks, -1), axis=1, keepdims=True)
    return leading | ((last >= config.num_hard_examples) & (ranks <= last))


def _choose(
    ranking: Ranking, leading: tf.Tensor, config: ModelConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """The kept, (B, A) bool by rank, and (B,) bool whether `leading` held enough negatives."""
    members = _with_neighbours(ranking, leading, config.mining_iou - IOU_MARGIN)
    survivors = _suppress(ranking.boxes, members, config.mining_iou)
    kept, wanted = _kept(survivors, ranking.positive, leading, config)
    negatives = _count(kept & ~ranking.positive)
    return kept, (negatives >= wanted) | tf.reduce_all(leading, axis=1)


def _kept(
    survivors: tf.Tensor, positive: tf.Tensor, looked_at: tf.Tensor, config: ModelConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which (B, A) bool survivors count, by rank, and (B,) int32 how many negatives shall.

    Of negatives only those `looked_at`.
    """
    survivors &= _running_count(survivors) <= config.num_hard_examples
    positives, negatives = survivors & positive, survivors & ~positive & looked_at
    wanted = _negatives_wanted(_count(positives), config)
    return positives | (negatives & (_running_count(negatives) <= wanted[:, None])), wanted


def _negatives_wanted(positives: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """(B,) int32 negatives to keep beside (B,) `positives`, rounded down."""
    share = config.max_negatives_per_positive * tf.cast(positives, tf.float32)
    return tf.maximum(tf.cast(share, tf.int32), config.min_negatives_per_image)


def _with_neighbours(ranking: Ranking, leading: tf.Tensor, iou: float) -> tf.Tensor:
    """(B, A) bool: `leading`, the positives behind it, and all that these may depend on.

    Where that would be many, a picture's whole ranking.
    """

    def grow(members: tf.Tensor, fresh: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        many = _count(fresh)[:, None] > MANY_NEIGHBOURS
        near = _near(ranking.boxes, fresh & ~many, iou)
        return members | near | many, near & ~members & ~many

    behind = ranking.positive & ~leading
    members, _ = tf.while_loop(
        lambda _, fresh: tf.reduce_any(fresh), grow, (leading | behind, behind)
    )
    return members


def _near(boxes: tf.Tensor, chosen: tf.Tensor, iou: float) -> tf.Tensor:
    """(B, A) bool: all boxes that overlap a chosen one by more than `iou`, and some others.

    Two boxes with that overlap differ by less than (1 - iou) / iou of a height in their y
    coordinates together, and of a width in x; so the distance of their four coordinates is less
    than that share of a diagonal. The squared distances of all pairs are one matrix product.
    """
    columns, present = _compact(chosen)
    some = tf.gather(boxes, columns, batch_dims=1)  # (B, W, 4)
    diagonals = tf.reduce_sum(tf.square(some[..., 2:] - some[..., :2]), axis=-1, keepdims=True)
    lengths = tf.reduce_sum(tf.square(some), axis=-1, keepdims=True)
    reach = ((1 - iou) / iou) ** 2 * diagonals + ROUNDING * lengths
    reach = tf.where(present[..., None], reach - lengths, -np.inf)
    left = tf.concat([2 * some, -tf.ones_like(reach), reach], axis=-1)
    squares = tf.reduce_sum(tf.square(boxes), axis=-1, keepdims=True)
    right = tf.concat([boxes, squares, tf.ones_like(squares)], axis=-1)
    # Each product is reach - |some|^2 + 2 some.box - |box|^2, that is reach - distance^2.
    return tf.reduce_max(tf.matmul(left, right, transpose_b=True), axis=1) >= 0


def _suppress(boxes: tf.Tensor, members: tf.Tensor, iou: float) -> tf.Tensor:
    """(B, A) bool: the members that no surviving member above overlaps by more than `iou`."""
    ranks, present = _compact(members)
    anchors, width = tf.shape(members)[1], tf.shape(ranks)[1]
    priority = tf.where(present, tf.cast(anchors - ranks, tf.float32), 0.0)  # exact integers
    _, survived, _, _ = tf.image.combined_non_max_suppression(
        tf.gather(boxes, ranks, batch_dims=1)[:, :, None],
        priority[..., None],
        max_output_size_per_class=width,
        max_total_size=width,
        iou_threshold=iou,
        score_threshold=0.5,
        clip_boxes=False,
    )
    padded = tf.concat([tf.zeros_like(members), tf.zeros_like(members[:, :1])], axis=1)
    ranks = tf.where(survived > 0, anchors - tf.cast(survived, tf.int32), anchors)
    return _mark(padded, ranks)[:, :-1]


def _compact(mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where (B, A) `mask` is true: (B, W) columns, ascending, and (B, W) which are not padding."""
    columns = tf.shape(mask)[1]
    width = tf.reduce_max(_count(mask))
    found = tf.math.top_k(tf.where(mask, columns - tf.range(columns), 0), width).values
    return tf.minimum(columns - found, columns - 1), found > 0


def _scatter(order: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """(B, A) bool by anchor, of `kept` by rank."""
    rows = tf.where(kept)
    anchors = tf.gather_nd(order, rows)
    indices = tf.stack([tf.cast(rows[:, 0], tf.int32), anchors], axis=1)
    return tf.tensor_scatter_nd_update(tf.zeros_like(kept), indices, tf.ones_like(anchors, tf.bool))


def _mark(mask: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """(B, A) `mask`, made true in (B, W) `columns` of each row."""
    batch = tf.broadcast_to(tf.range(tf.shape(columns)[0])[:, None], tf.shape(columns))
    indices = tf.stack([batch, columns], axis=-1)
    return tf.tensor_scatter_nd_update(mask, indices, tf.ones_like(columns, tf.bool))


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)


def _running_count(mask: tf.Tensor) -> tf.Tensor:
    return tf.cumsum(tf.cast(mask, tf.int32), axis=1)
