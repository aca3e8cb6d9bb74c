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

from odtrain.config.schema import AugmentConfig
from odtrain.dataset.read import parse_example
from odtrain.io.tfrecord import Index, index_records
from odtrain.structures import IntArray, UInt8Image
from odtrain.training.augment import augment

Batch = dict[str, tf.Tensor]
"""images (B, h, w, 3) float32 0-255; boxes (B, N, 4) yxyx, fractions of those, padded with 0; classes
(B, N) 1-based, 0 = padding; counts (B,) boxes in each picture; source_ids (B,)."""


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


def training_batches(
    index: Index,
    resize: Callable[[tf.Tensor], tf.Tensor],
    augment_config: AugmentConfig,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    cache_mb: float = 0,
    extent: Callable[[tf.Tensor], tf.Tensor | float] = lambda picture: 1.0,
    trace: Path | None = None,
) -> tf.data.Dataset:
    """Endless batches from step `first_step` (0-based) on.

    Args:
        index: the training records.
        resize: (H, W, 3) uint8 to (h, w, 3) float32 0-255, the network's own.
        augment_config: what is changed in a picture.
        batch_size: pictures a step.
        seed: of order and augmentation.
        first_step: steps already trained.
        cache_mb: memory for decoded pictures, in 10^6 bytes; the batches are the same without.
        extent: the network's own: what boxes are multiplied by to be fractions of its input.
        trace: a CSV to which `step,hash,source ids` of every batch is appended.
    """

    @lru_cache(maxsize=2)
    def order(epoch: int) -> IntArray:
        return np.random.default_rng([seed, epoch]).permutation(len(index))

    decoded = DecodedPictures(cache_mb)

    def read(position: IntArray) -> tuple[IntArray, bytes, UInt8Image]:
        epoch, place = divmod(int(position), len(index))
        number = order(epoch)[place]
        return number, index.read(int(number)), decoded.get(int(number))

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def load(position: tf.Tensor) -> Batch:
        number, serialized, kept = tf.numpy_function(
            read, [position], [tf.int64, tf.string, tf.uint8]
        )
        example = parse_example(tf.ensure_shape(serialized, []))

        def decode() -> tf.Tensor:
            image = tf.io.decode_image(example["encoded"], channels=3, expand_animations=False)
            return tf.numpy_function(decoded.keep, [number, image], tf.uint8)

        image = tf.cond(tf.size(kept) > 0, lambda: kept, decode)
        image.set_shape([None, None, 3])
        changed, boxes, classes = augment(
            image,
            example["boxes"],
            example["classes"],
            tf.stack([tf.cast(seed, tf.int64), position]),
            augment_config,
        )
        changed.set_shape([None, None, 3])
        return {
            "images": resize(changed),
            "boxes": boxes * extent(changed),
            "classes": classes,
            "counts": tf.shape(boxes)[0],
            "source_ids": example["source_id"],
        }

    # Between steps one batch is trained on while the next is read: two batches in memory, not more.
    batches = (
        tf.data.Dataset.range(first_step * batch_size, np.iinfo(np.int64).max)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .padded_batch(batch_size, drop_remainder=True)
    )
    if trace is not None:
        batches = _traced(batches, trace, first_step)
    return batches.prefetch(1)


def _traced(batches: tf.data.Dataset, trace: Path, first_step: int) -> tf.data.Dataset:
    def append(step: IntArray, *values: np.ndarray) -> np.int64:
        images, boxes, classes, source_ids = values
        crc = 0
        for value in (images, boxes, classes, source_ids):
            crc = zlib.crc32(np.ascontiguousarray(value).tobytes(), crc)
        with trace.open("a") as file:
            file.write(f"{int(step)},{crc:08x},{' '.join(map(str, source_ids))}\n")
        return np.int64(step)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def note(step: tf.Tensor, batch: Batch) -> Batch:
        values = [batch[key] for key in ("images", "boxes", "classes", "source_ids")]
        written = tf.numpy_function(append, [step, *values], tf.int64)
        with tf.control_dependencies([written]):
            return {key: tf.identity(value) for key, value in batch.items()}

    return batches.enumerate(first_step + 1).map(note)


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
