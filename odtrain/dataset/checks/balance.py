"""How many boxes of each kind there are in each split: too few, too different, none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt

from odtrain.config.schema import DataConfig
from odtrain.dataset.splits import SPLITS
from odtrain.findings import Finding
from odtrain.labels.annotations import LabelledImage

FEW_VALIDATE = 10
"""Validation pictures below which the score that chooses the weights hangs on one or two of them."""
FEW = 10
"""Training boxes of a class below which nothing can be learned of it but these."""
SIGNIFICANT = 3.0
"""Standard deviations: a share that differs by less may differ by chance."""
TIMES = 1.5
"""A share that differs by less is no matter."""
SMALL, MEDIUM = 32**2, 96**2
"""COCO's bounds between small, medium and large boxes, in square pixels of the picture."""


def split_findings(
    config: DataConfig,
    splits: Mapping[str, Sequence[LabelledImage]],
    class_names: Sequence[str],
) -> Iterator[Finding]:
    """OD017, OD018, OD108 and OD122."""
    for split in SPLITS:
        images = splits[split]
        used = {item.name for image in images for item in image.objects}
        file = getattr(config, f"{split}_list") or config.images
        if not images and (split != "validation" or config.validation_list is not None):
            yield _about_empty(config, split, file, sum(map(len, splits.values())))
        elif images and not used:
            cause = f"none of the {len(images)} {split} pictures has a box."
            yield Finding.of("OD018", file, cause)
        elif split == "validation" and 0 < len(images) < FEW_VALIDATE:
            yield _about_few(config, file, len(images))
        elif split != "validation":
            for name in sorted(set(class_names) - used):
                yield Finding.of("OD108", file, f'no {split} picture shows "{name}".')


def _about_empty(config: DataConfig, split: str, file: str, images: int) -> Finding:
    cause = f"the {split} split is empty ({images} labelled pictures in all)."
    drawn = split == "test" and config.test_list is None and config.test_fraction == 0
    remedy = "Set data.test_fraction, such as 0.2, or give data.test_list." if drawn else None
    return Finding.of("OD017", file, cause, remedy=remedy)


def _about_few(config: DataConfig, file: str, images: int) -> Finding:
    pictures = "1 picture validates" if images == 1 else f"{images} pictures validate"
    cause = f"{pictures}: so few say little of which weights are best."
    given = config.validation_list is not None
    remedy = f"Label more pictures for {config.validation_list}." if given else None
    return Finding.of("OD122", file, cause, remedy=remedy)


def balance_findings(
    config: DataConfig,
    splits: Mapping[str, Sequence[LabelledImage]],
    class_names: Sequence[str],
) -> Iterator[Finding]:
    """OD115, OD118, OD208 and OD210."""
    boxes = {
        split: Counter(item.name for image in images for item in image.objects)
        for split, images in splits.items()
    }
    for name in class_names:
        number = boxes["train"][name]
        if 0 < number < FEW:
            shown = "1 training box" if number == 1 else f"{number} training boxes"
            yield Finding.of("OD115", config.images, f'"{name}" has {shown}.')
    for split in ("validation", "test"):
        yield from _unlike(config, split, boxes["train"], boxes[split], class_names)
    yield from _flags(config, [image for images in splits.values() for image in images])
    yield from _without_boxes_of_a_size(config, splits["test"])


def _unlike(
    config: DataConfig,
    split: str,
    training: Counter[str],
    other: Counter[str],
    class_names: Sequence[str],
) -> Iterator[Finding]:
    """OD118 for each class whose share of the boxes differs by more than chance allows.

    By the two-proportion z-test with pooled variance.
    """
    of_training, of_other = training.total(), other.total()
    for name in class_names:
        if not (training[name] and other[name]):
            continue  # OD108 tells of those
        share, there = training[name] / of_training, other[name] / of_other
        pooled = (training[name] + other[name]) / (of_training + of_other)
        deviation = sqrt(pooled * (1 - pooled) * (1 / of_training + 1 / of_other))
        unlike = max(share, there) / min(share, there) >= TIMES
        if unlike and abs(share - there) > SIGNIFICANT * deviation:
            cause = f'"{name}" is {share:.0%} of the training boxes, but {there:.0%} of the {split} boxes.'
            yield Finding.of("OD118", config.images, cause)


def _flags(config: DataConfig, images: Sequence[LabelledImage]) -> Iterator[Finding]:
    """OD208 where any flag is set."""
    items = [item for image in images for item in image.objects]
    truncated, difficult = sum(i.truncated for i in items), sum(i.difficult for i in items)
    verified = sum(image.verified for image in images)
    if truncated or difficult or verified:
        cause = (
            f"of {len(items)} boxes {truncated} are truncated and {difficult} difficult; of "
            f"{len(images)} pictures {verified} are verified."
        )
        yield Finding.of("OD208", config.images, cause)


def _without_boxes_of_a_size(
    config: DataConfig, images: Sequence[LabelledImage]
) -> Iterator[Finding]:
    """OD210 for each of COCO's sizes that no test box has: its metrics will be missing."""
    areas = [_area(image, item.yxyx) for image in images for item in image.objects]
    if not areas:
        return
    sizes = {"small" if a < SMALL else "medium" if a < MEDIUM else "large" for a in areas}
    for size in ("small", "medium", "large"):
        if size not in sizes:
            cause = f"no test box is {size} as COCO counts it, so eval/mAP_{size} will be missing."
            yield Finding.of("OD210", config.images, cause)


def _area(image: LabelledImage, yxyx: tuple[float, float, float, float]) -> float:
    ymin, xmin, ymax, xmax = yxyx
    return (ymax - ymin) * image.height * (xmax - xmin) * image.width
