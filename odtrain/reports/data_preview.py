"""Pictures of a prepared data set: charts of its boxes, and what the network will really see.

The sheet of pictures comes out of the training's own pipeline: it shows the first ones that a training
of this configuration is given, changed as they will be changed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from odtrain.config.schema import AugmentConfig, ModelConfig
from odtrain.dataset.read import Dataset, read_truths, truth_of
from odtrain.dataset.splits import SPLITS
from odtrain.dataset.tiles import TILE, TILE_OF
from odtrain.io.tfrecord import decode_example, index_records
from odtrain.media.draw import draw_truth, fit, printable_label, side_by_side
from odtrain.models.ssd import extent, resize
from odtrain.reports import data_charts
from odtrain.structures import GroundTruth, UInt8Image
from odtrain.training.input_pipeline import training_batches

SHEET_PICTURES = 12
PAIRS_ACROSS = 3
THUMBNAIL = (300, 300)
"""Pixels that the shorter side gets at least, and the longer at most, as `drawing.fit` takes them."""
SHEET_TILED = 4
TILE_THUMBNAIL = (160, 160)
"""The same of a tile."""
PAPER = 255
LEFT_OUT = 190
GAP = 8
JPEG_QUALITY = 88


def write_pictures(
    dataset: Dataset, folder: Path, augment: AugmentConfig, model: ModelConfig, seed: int
) -> list[Path]:
    """Write the charts and the sheet of `dataset` to `folder`.

    Args:
        dataset: with pictures in its training split.
        folder: made if it is not there.
        augment: what training changes in a picture.
        model: for the size of the network's input, and how pictures are brought to it.
        seed: of the training.

    Returns:
        The files.

    Raises:
        DataError: a record file is missing or damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truths = {split: read_truths(dataset, split) for split in SPLITS}
    present = {split: part for split, part in truths.items() if part}
    names = dataset.class_names
    labels = [printable_label(names, number) for number in range(1, len(names) + 1)]
    files = [folder / name for name in FILES]
    classes, sizes, centres, sheet = files
    data_charts.class_chart(classes, present, labels)
    data_charts.size_chart(sizes, present, model)
    data_charts.centre_chart(centres, present)
    image = contact_sheet(dataset, augment, model, seed)
    Image.fromarray(image).save(sheet, quality=JPEG_QUALITY)
    tiled = tile_sheet(dataset)
    if tiled is not None:
        files.append(folder / TILES_FILE)
        Image.fromarray(tiled).save(files[-1], quality=JPEG_QUALITY)
    return files


FILES = ("classes.png", "box_sizes.png", "box_centres.png", "what_the_network_sees.jpg")
"""Boxes of each class; their sizes at the network's input; where they lie; before and after."""


TILES_FILE = "tiles.jpg"
"""Besides, where training pictures are cut."""


def tile_sheet(dataset: Dataset) -> UInt8Image | None:
    """The first pictures that are cut, each as its tiles with what is labelled in them, side by side.

    Returns:
        (H, W, 3) RGB, grey where a tile without an object was left out; None where no picture is cut.
    """
    index = index_records(dataset.records("train"))
    cut: dict[object, dict[tuple[int, int], UInt8Image]] = {}
    for i in range(len(index)):
        record = index.read(i)
        example: dict[str, Any] = decode_example(record)
        if TILE not in example:
            continue
        name = example[TILE_OF][0]
        if name not in cut and len(cut) == SHEET_TILED:
            break
        top, left, *_ = example[TILE]
        drawn = _as_labelled(record, truth_of(example), dataset.class_names, TILE_THUMBNAIL)
        cut.setdefault(name, {})[top, left] = drawn
    return _grid([_tiles_in_place(tiles) for tiles in cut.values()]) if cut else None


def _tiles_in_place(tiles: Mapping[tuple[int, int], UInt8Image]) -> UInt8Image:
    """One picture's tiles as they lie in it, with gaps between them."""
    tops, lefts = (sorted({place[side] for place in tiles}) for side in (0, 1))
    height, width = next(iter(tiles.values())).shape[:2]
    sheet = np.full((len(tops) * (height + GAP), len(lefts) * (width + GAP), 3), PAPER, np.uint8)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            y, x = row * (height + GAP), column * (width + GAP)
            shown = tiles.get((top, left))
            sheet[y : y + height, x : x + width] = LEFT_OUT if shown is None else shown
    return sheet


def contact_sheet(
    dataset: Dataset, augment: AugmentConfig, model: ModelConfig, seed: int
) -> UInt8Image:
    """The first pictures of a training with their boxes, each as it is and as the network gets it.

    Returns:
        (H, W, 3) RGB.
    """
    index = index_records(dataset.records("train"))
    count = min(SHEET_PICTURES, len(index))
    batches = training_batches(
        index,
        lambda image: resize(image, model),
        augment,
        extent=lambda image: extent(image, model),
        batch_size=count,
        seed=seed,
        first_step=0,
        model=model,
    )
    batch = next(iter(batches.as_numpy_iterator()))
    truths = read_truths(dataset, "train")
    place = {int(decode_example(index.read(i))["image/source_id"][0]): i for i in range(len(index))}
    height, width = model.size
    pairs = []
    for number in range(count):
        i = place[int(batch["source_ids"][number])]
        before = _as_labelled(index.read(i), truths[i], dataset.class_names)
        after = _as_seen(batch, number, dataset.class_names)
        pairs.append(side_by_side(before, after, (truths[i].name, f"at {width} x {height}")))
    return _grid(pairs)


def _as_labelled(
    record: bytes,
    truth: GroundTruth,
    names: Sequence[str],
    size: tuple[int, int] = THUMBNAIL,
) -> UInt8Image:
    encoded = decode_example(record)["image/encoded"][0]
    assert isinstance(encoded, bytes)
    with Image.open(io.BytesIO(encoded)) as picture:
        image = np.asarray(picture.convert("RGB"))
    return draw_truth(fit(image, *size), truth, names)


def _as_seen(batch: dict[str, np.ndarray], number: int, names: Sequence[str]) -> UInt8Image:
    boxes = int(batch["counts"][number])
    image = np.clip(np.rint(batch["images"][number]), 0, 255).astype(np.uint8)
    height, width = image.shape[:2]
    truth = GroundTruth(
        "", height, width, batch["boxes"][number][:boxes], batch["classes"][number][:boxes]
    )
    return draw_truth(fit(image, *THUMBNAIL), truth, names)


def _grid(sheets: Sequence[UInt8Image]) -> UInt8Image:
    """Pictures side by side, `PAIRS_ACROSS` in a row, on paper."""
    rows = [sheets[start : start + PAIRS_ACROSS] for start in range(0, len(sheets), PAIRS_ACROSS)]
    width = max(sum(sheet.shape[1] + GAP for sheet in row) for row in rows)
    height = sum(max(sheet.shape[0] for sheet in row) + GAP for row in rows)
    paper = np.full((height, width, 3), PAPER, np.uint8)
    top = 0
    for row in rows:
        left = 0
        for sheet in row:
            paper[top : top + sheet.shape[0], left : left + sheet.shape[1]] = sheet
            left += sheet.shape[1] + GAP
        top += max(sheet.shape[0] for sheet in row) + GAP
    return paper
