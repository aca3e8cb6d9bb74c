"""Checked pictures -> the CSVs and TFRecord files of a prepared data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from odtrain.dataset.check import Examined
from odtrain.dataset.shards import Shard, write_shard
from odtrain.dataset.splits import SPLITS
from odtrain.labels.annotations import LabelledImage, normalised
from odtrain.system.workers import Workers

SHARD_BYTES = 150_000_000
"""Of pictures in a record file: 100 to 200 MB are what TensorFlow's guide on input pipelines advises."""


def write_lists(folder: Path, examined: Examined) -> None:
    """The pictures of each split that has any, one a line: what `data.train_list` and the others take.

    Names alone, or with their folders where two pictures share a name.
    """
    pictures = [image.image for image in examined.images]
    clash = len({normalised(picture.name) for picture in pictures}) < len(pictures)
    root = Path(os.path.commonpath([p.parent for p in pictures])).parent if clash else None
    for split, images in examined.splits.items():
        names = [i.image.name if root is None else i.image.relative_to(root) for i in images]
        if names:
            file = folder / f"{split}_list.txt"
            text = "".join(f"{Path(name).as_posix()}\n" for name in names)
            file.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_records(
    folder: Path, examined: Examined, shards: Mapping[str, int], workers: Workers
) -> None:
    """Every split in as many files as `shards` says, of nearly equal numbers of pictures, by name.

    Files that are there already are kept: they are those of a call that was killed.

    Raises:
        DataError: a picture changed since it was checked.
    """
    class_ids = {name: number for number, name in enumerate(examined.class_names, start=1)}
    images = [image for split in SPLITS for image in examined.splits[split]]
    by_name = sorted(images, key=lambda image: normalised(image.image.name))
    source_ids = {image.image: number for number, image in enumerate(by_name, start=1)}

    def shard(file: Path, part: list[LabelledImage]) -> Shard:
        pictures = [examined.pictures[image.image] for image in part]
        return Shard(file, part, pictures, [source_ids[image.image] for image in part], class_ids)

    tasks = []
    for split in SPLITS:
        rest = iter(examined.splits[split])
        lengths = _shard_lengths(len(examined.splits[split]), shards[split])
        for number, length in enumerate(lengths):
            file = folder / f"{split}.record-{number:05d}-of-{len(lengths):05d}"
            tasks.append(shard(file, list(islice(rest, length))))
    for _ in workers.map(write_shard, tasks, "writing records", chunk=1, pictures=len(images)):
        pass


def shard_counts(examined: Examined, asked: int | None) -> dict[str, int]:
    """For each split how many files: `asked`, or so many that each has about `SHARD_BYTES`."""
    counts = {}
    for split, images in examined.splits.items():
        size = sum(examined.memories[str(image.image)].stat[0] for image in images)
        counts[split] = asked or max(1, round(size / SHARD_BYTES))
    return counts


def _shard_lengths(pictures: int, shards: int) -> list[int]:
    """How many pictures each shard gets; no shard is empty."""
    shards = min(shards, pictures)
    return [pictures // shards + (number < pictures % shards) for number in range(shards)]
