"""What pictures that look alike tell: leaks between splits, and labels that disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np

from odtrain.config.schema import DataConfig
from odtrain.dataset.near_duplicates import Group, Scenes
from odtrain.dataset.splits import SPLITS, drawn_splits
from odtrain.findings import Finding
from odtrain.labels.annotations import LabelledImage, LabelledObject
from odtrain.structures import pairwise_iou

SAME_OBJECT = 0.5
"""Boxes of one object in equal pictures overlap by at least this IoU, or were labelled differently."""
NEAR_OBJECT = 0.1
"""The same for pictures that are nearly equal, in which the object may have moved."""


class Placed(NamedTuple):
    """The pictures of the data set, and which split each is in."""

    images: Mapping[Path, LabelledImage]
    split: Mapping[Path, str]


def scene_findings(
    config: DataConfig,
    splits: Mapping[str, Sequence[LabelledImage]],
    given: Mapping[Path, str],
    scenes: Scenes,
) -> list[Finding]:
    """OD106, OD110 to OD112, OD121 and OD205 to OD207."""
    placed = Placed(
        {image.image: image for images in splits.values() for image in images},
        {image.image: split for split, images in splits.items() for image in images},
    )
    near = [group for group in scenes.near if group not in scenes.same]
    findings = [finding for group in scenes.same for finding in _about_same(placed, group)]
    findings += [finding for group in near for finding in _about_near(placed, group)]
    return [*findings, *_about_drawing(config, given, scenes.whole, placed)]


def _about_same(placed: Placed, group: Group) -> Iterator[Finding]:
    """OD106, OD111 or OD206 for each picture that equals an earlier one, pixel by pixel."""
    first, *others = sorted(group, key=lambda file: SPLITS.index(placed.split[file]))
    for file in others:
        split, earlier = placed.split[file], placed.split[first]
        if split != earlier:
            cause = f"this {split} picture equals {first.name}, a {earlier} picture."
            yield Finding.of("OD106", file, cause, picture=first)
        differ = difference(placed.images[first], placed.images[file], SAME_OBJECT)
        if differ:
            cause = f"equals {first.name}, but is labelled differently: {differ}."
            yield Finding.of("OD111", file, cause, picture=first)
        elif split == earlier:
            cause = f"equals {first.name}{_agreement(placed.images[first], placed.images[file])}."
            yield Finding.of("OD206", file, cause, picture=first)


def _about_near(placed: Placed, group: Group) -> Iterator[Finding]:
    """OD110 or OD207 for a group of nearly equal pictures, and OD112 for each that is odd in it."""
    first, *others = sorted(group, key=lambda file: SPLITS.index(placed.split[file]))
    apart = [file for file in others if placed.split[file] != placed.split[first]]
    if apart:
        cause = (
            f"this {placed.split[apart[0]]} picture looks nearly the same as {first.name}, a "
            f"{placed.split[first]} picture{_and_more(len(apart) - 1)}."
        )
        yield Finding.of("OD110", apart[0], cause, picture=first)
    else:
        named = ", ".join(file.name for file in others[:3])
        cause = f"looks nearly the same as {named}{_and_more(len(others) - 3)}."
        yield Finding.of("OD207", first, cause, picture=others[0])
    for file in others:
        differ = difference(placed.images[first], placed.images[file], NEAR_OBJECT)
        if differ:
            cause = f"looks nearly the same as {first.name}, but is labelled differently: {differ}."
            yield Finding.of("OD112", file, cause, picture=first)


def _and_more(number: int) -> str:
    return f", and {number} more" if number > 0 else ""


def difference(one: LabelledImage, other: LabelledImage, least: float = SAME_OBJECT) -> str | None:
    """In what the labels of two alike pictures differ, None if every box has a counterpart."""
    numbers, others = (Counter(item.name for item in image.objects) for image in (one, other))
    for name in sorted(numbers | others):
        if numbers[name] != others[name]:
            return f'"{name}" {_times(others[name])} here, {_times(numbers[name])} there'
    for item, overlap in _counterparts(other, one):
        if overlap < least:
            return f"{other.describe(item)} overlaps its counterpart by an IoU of {overlap:.2f}"
    return None


def _times(number: int) -> str:
    return {0: "not", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _agreement(one: LabelledImage, other: LabelledImage) -> str:
    """How well the boxes of two equal pictures agree, for a finding."""
    overlaps = [overlap for _, overlap in _counterparts(other, one)]
    if not overlaps or min(overlaps) > 1 - 1e-6:
        return " and has the same labels"
    return f"; the boxes of the two overlap by an IoU of {min(overlaps):.2f}"


def _counterparts(
    image: LabelledImage, other: LabelledImage
) -> Iterator[tuple[LabelledObject, float]]:
    """Each object of `image`, and by how much the best of its class in `other` overlaps it."""
    for item in image.objects:
        candidates = [one.yxyx for one in other.objects if one.name == item.name]
        ious = pairwise_iou(np.array([item.yxyx]), np.array(candidates).reshape(-1, 4))
        yield item, float(ious.max(initial=0))


def _about_drawing(
    config: DataConfig, given: Mapping[Path, str], scenes: Sequence[Group], placed: Placed
) -> Iterator[Finding]:
    """OD121 for scenes that had to be cut, OD205 for what a random split would have done."""
    drawn = {"train", *drawn_splits(config, given)}
    split = {
        file: part
        for file, part in placed.split.items()
        if part in drawn and given.get(file, "train") == "train"
    }
    groups = [[file for file in scene if file in split] for scene in scenes]
    groups = [group for group in groups if len(group) > 1]
    sizes = Counter(split.values())
    if len(sizes) < 2 or not groups:
        return
    for group in groups:
        parts = [part for part in SPLITS if part in {split[file] for file in group}]
        if len(parts) > 1:
            cause = (
                f"{len(group)} pictures hang together, from {group[0].name} to {group[-1].name}: too "
                f"many to be drawn whole, so they are in {' and '.join(parts)}."
            )
            yield Finding.of("OD121", group[0], cause, picture=group[-1])
    expected = sum(leak_chance(len(group), list(sizes.values())) for group in groups)
    cause = (
        f"{sum(map(len, groups))} pictures form {len(groups)} groups that look alike or follow each "
        f"other; a split at random would have torn {expected:.1f} of them on average."
    )
    yield Finding.of("OD205", config.images, cause)


def leak_chance(members: int, sizes: Sequence[int]) -> float:
    """The chance that a random split into parts of `sizes` puts a group's members into several."""
    total = sum(sizes)
    return 1 - sum(comb(size, members) for size in sizes) / comb(total, members)
