"""What training and evaluation read: batches whose contents depend on the position alone, and pictures.

Position p of a training (step x batch size + place in the batch) always shows the same picture with the
same augmentation: the order of an epoch is drawn from (seed, epoch), the augmentation from (seed, p).
A training that goes on at step k therefore sees just what it would have seen without the interruption,
and nothing of the pipeline needs saving.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np
import tensorflow as tf

from odtrain.config.schema import AugmentConfig, ModelConfig
from odtrain.dataset.read import parse_example
from odtrain.io.tfrecord import Index, index_records
from odtrain.structures import IntArray, UInt8Image
from odtrain.training.augment import augment, fold_in, recolour, worsen
from odtrain.training.mixing import Stage, composed, is_mixed
from odtrain.training.team import ALONE, Team

Batch = dict[str, tf.Tensor]
"""images (B, h, w, 3) float32 0-255; boxes (B, N, 4) yxyx, fractions of those, padded with 0; classes
(B, N) 1-based, 0 = padding; counts (B,) boxes in each picture; source_ids (B,). Where a network is trained at
several sizes also sizes (B,): the number of the one that was drawn, the same in the whole batch."""
SIZE = 95
"""What a seed is drawn for, behind those of `augment`."""


Example = dict[str, tf.Tensor]
"""What `parse_example` gives."""


class DecodedPictures:
    """Decoded pictures by their number in the records, as many as fit into a bound.

    The first that come stay: an epoch shows each picture once, so that whichever stay are found as
    often, and one that made room for another would be gone just when its turn comes.
    """

    def __init__(self, megabytes: float) -> None:
        self._left = int(megabytes * 1e6)
        self._pictures: dict[int, UInt8Image] = {}

    def get(self, number: int) -> UInt8Image:
        """The picture (H, W, 3); (0, 0, 3) if it is not kept."""
        return self._pictures.get(number, NO_PICTURE)

    def keep(self, number: IntArray, image: UInt8Image) -> UInt8Image:
        """Keep `image` if there is room; return it."""
        if image.nbytes <= self._left and int(number) not in self._pictures:
            self._left -= image.nbytes
            self._pictures[int(number)] = image.copy()
        return image


NO_PICTURE = np.empty((0, 0, 3), np.uint8)


class Examples:
    """Training records as pictures and what is labelled in them, by their number."""

    def __init__(self, index: Index, cache_mb: float) -> None:
        self._index = index
        self._decoded = DecodedPictures(cache_mb)

    def read(self, number: tf.Tensor) -> tuple[tf.Tensor, Example]:
        """The picture (H, W, 3) uint8 with this number, a scalar, and what its record says."""
        serialized, kept = tf.numpy_function(self._of, [number], [tf.string, tf.uint8])
        example = parse_example(tf.ensure_shape(serialized, []))

        def decode() -> tf.Tensor:
            image = tf.io.decode_image(example["encoded"], channels=3, expand_animations=False)
            return tf.numpy_function(self._decoded.keep, [number, image], tf.uint8)

        image = tf.cond(tf.size(kept) > 0, lambda: kept, decode)
        image.set_shape([None, None, 3])
        return image, example

    def companion(self, seed: tf.Tensor, which: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Another picture that (2,) `seed` draws, its boxes and classes; each of several has a number."""
        draw = fold_in(seed, which)
        pictures = len(self._index)
        image, example = self.read(
            tf.random.stateless_uniform([], draw, maxval=pictures, dtype=tf.int64)
        )
        return image, example["boxes"], example["classes"]

    def _of(self, number: IntArray) -> tuple[bytes, UInt8Image]:
        return self._index.read(int(number)), self._decoded.get(int(number))


def training_batches(
    index: Index,
    resize: Callable[[tf.Tensor], tf.Tensor],
    augment_config: AugmentConfig,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    steps: int | None = None,
    model: ModelConfig | None = None,
    cache_mb: float = 0,
    extent: Callable[[tf.Tensor], tf.Tensor | float] = lambda picture: 1.0,
    sizes: int = 1,
    trace: Path | None = None,
    team: Team = ALONE,
) -> tf.data.Dataset:
    """Endless batches from step `first_step` (0-based) on: of each the shares of this process's replicas.

    Args:
        index: the training records.
        resize: (H, W, 3) uint8 to (h, w, 3) float32 0-255, the network's own.
        augment_config: what is changed in a picture.
        batch_size: pictures a step, of all replicas.
        seed: of order and augmentation.
        first_step: steps already trained.
        steps: of the whole training, whose last part `augment.off_last` leaves without its changes; None where
            it has no end.
        model: whose input `resize` fills; needed where pictures are moved or put together.
        cache_mb: memory for decoded pictures, in 10^6 bytes; the batches are the same without.
        extent: the network's own: what boxes are multiplied by to be fractions of its input.
        sizes: of how many the network's input is drawn in each step; the first is that which `resize` fills.
        trace: a CSV to which `step,hash,source ids` of every batch is appended, of this process's shares of
            it; the hash is the sum of those of its pictures, so that shares add up to the batch.
        team: who trains.

    Raises:
        ConfigError: the batch cannot be shared out evenly.
    """
    order = _order(len(index), seed)
    examples = Examples(index, cache_mb)
    each = team.pictures(batch_size)
    here = each * team.here
    off = float("inf") if steps is None else steps * (1 - augment_config.off_last)

    def shown(
        image: tf.Tensor, example: Example, place: tf.Tensor, on: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """The picture at the network's input, its boxes and classes, and the part of it that it covers."""
        labelled = (image, example["boxes"], example["classes"])
        if model is not None and is_mixed(augment_config):
            stage = Stage(augment_config, model, tf.cast(place, tf.int32), on)
            (image, boxes, classes), part = composed(
                lambda which: examples.companion(stage.seed, which) if which else labelled, stage
            )
            return image, boxes, classes, part
        changed, boxes, classes = augment(*labelled, place, augment_config)
        changed.set_shape([None, None, 3])
        part = extent(changed)
        return resize(changed), boxes * part, classes, part

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load(own: tf.Tensor) -> Batch:
        """The picture of this number among this process's, which stand side by side in every batch."""
        position = own // here * batch_size + each * team.first + own % here
        number = tf.numpy_function(lambda at: np.int64(order(int(at))), [position], tf.int64)
        image, example = examples.read(tf.ensure_shape(number, []))
        place = tf.stack([tf.cast(seed, tf.int64), position])
        on = tf.cast(position // batch_size, tf.float64) < off
        image, boxes, classes, part = shown(image, example, place, on)
        coloured = recolour(image, part, place, augment_config, on)
        drawn = {"sizes": _drawn_size(seed, position // batch_size, sizes, on)} if sizes > 1 else {}
        return drawn | {
            "images": worsen(coloured, place, augment_config, on),
            "boxes": boxes,
            "classes": classes,
            "counts": tf.shape(boxes)[0],
            "source_ids": example["source_id"],
        }

    # Between steps one batch is trained on while the next is read: two batches in memory, not more.
    batches = (
        tf.data.Dataset.range(first_step * here, np.iinfo(np.int64).max)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .padded_batch(each, drop_remainder=True)
    )
    if trace is not None:
        batches = _traced(batches, trace, first_step, team.here)
    return batches.prefetch(team.here)


def _drawn_size(seed: int, step: tf.Tensor, sizes: int, on: tf.Tensor) -> tf.Tensor:
    """The number of the size of a step, int32: the first where it is not `on`."""
    draw = fold_in(tf.stack([tf.cast(seed, tf.int64), step]), SIZE)
    number = tf.random.stateless_uniform([], draw, maxval=sizes, dtype=tf.int32)
    return tf.where(on, number, 0)


def _order(pictures: int, seed: int) -> Callable[[int], int]:
    """The number of the picture at a position: each epoch shows all of them in an order of its own."""

    @lru_cache(maxsize=2)
    def of_epoch(epoch: int) -> IntArray:
        return np.random.default_rng([seed, epoch]).permutation(pictures)

    def at(position: int) -> int:
        epoch, place = divmod(position, pictures)
        return int(of_epoch(epoch)[place])

    return at


def pictures_of_step(index: Index, batch_size: int, seed: int, step: int) -> list[int]:
    """Source ids of the batch of `step` (1-based), as `training_batches` gives it."""
    order = _order(len(index), seed)
    positions = range((step - 1) * batch_size, step * batch_size)
    read = (parse_example(index.read(order(position))) for position in positions)
    return [int(example["source_id"]) for example in read]


def _traced(batches: tf.data.Dataset, trace: Path, first_step: int, shares: int) -> tf.data.Dataset:
    def append(number: IntArray, *values: np.ndarray) -> np.int64:
        *_, source_ids = values
        hashed = sum(map(_hash, zip(*values, strict=True))) % 2**32
        step = first_step + int(number) // shares + 1
        with trace.open("a") as file:
            file.write(f"{step},{hashed:08x},{' '.join(map(str, source_ids))}\n")
        return np.int64(step)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def note(number: tf.Tensor, batch: Batch) -> Batch:
        keys = ("counts", "images", "boxes", "classes", "sizes", "source_ids")
        values = [batch[key] for key in keys if key in batch]
        written = tf.numpy_function(append, [number, *values], tf.int64)
        with tf.control_dependencies([written]):
            return {key: tf.identity(value) for key, value in batch.items()}

    return batches.enumerate().map(note)


def _hash(picture: tuple[np.ndarray, ...]) -> int:
    """Of one picture and what is labelled in it, whatever it is padded with."""
    count, image, boxes, classes, *numbers = picture
    crc = 0
    for value in (image, boxes[:count], classes[:count], *numbers):
        crc = zlib.crc32(np.ascontiguousarray(value).tobytes(), crc)
    return crc


class Pictures(Sequence[UInt8Image]):
    """The pictures of a split, decoded when they are asked for: any number of them costs no memory."""

    def __init__(self, records: Sequence[Path]) -> None:
        self._index = index_records(records)

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, i: int) -> UInt8Image: ...

    @overload
    def __getitem__(self, i: slice) -> list[UInt8Image]: ...

    def __getitem__(self, i: int | slice) -> UInt8Image | list[UInt8Image]:
        """Picture `i`, (H, W, 3) RGB, as training sees it before augmentation."""
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not 0 <= i < len(self):
            raise IndexError(i)
        encoded = parse_example(self._index.read(i))["encoded"]
        image: UInt8Image = tf.io.decode_image(encoded, channels=3, expand_animations=False).numpy()
        return image

    def spread(self, most: int) -> Iterator[UInt8Image]:
        """At most `most` pictures, evenly chosen from first to last."""
        return (self[i] for i in self.spread_rows(most))

    def spread_rows(self, most: int) -> list[int]:
        """Which pictures `spread` gives."""
        count = min(most, len(self))
        return [i * len(self) // count for i in range(count)]
