"""Too few boxes, too different shares, none of a size, and the flags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.checks.balance import balance_findings, split_findings
from odtrain.labels.annotations import LabelledImage, LabelledObject

CONFIG = section(DataConfig, name="x", images="pictures", prepared="out")


def picture(**boxes: int) -> LabelledImage:
    """A picture of 1000 x 1000 with boxes of 200 x 200."""
    box = (0.1, 0.1, 0.3, 0.3)
    objects = [
        LabelledObject(name, box, False, False) for name, n in boxes.items() for _ in range(n)
    ]
    return LabelledImage(Path("a.jpg"), None, 1000, 1000, tuple(objects))


def told(*codes: str, **splits: LabelledImage) -> list[str]:
    parts = {part: [splits[part]] for part in splits}
    of_all = {"train": [], "validation": [], "test": [], **parts}
    findings = balance_findings(CONFIG, of_all, ("cat", "dog"))
    return [finding.cause for finding in findings if finding.code in codes]


def about_validation(number: int, **values: str) -> list[tuple[str, str, str]]:
    parts = {"train": [picture(cat=1)], "validation": [picture(cat=1)] * number, "test": []}
    findings = split_findings(replace(CONFIG, **values), parts, ("cat",))
    return [(each.file, each.cause, each.remedy) for each in findings if each.code == "OD122"]


def test_few_validation_pictures_are_told():
    remedy = "Raise data.validation_fraction, such as 0.2, or label more pictures."
    told_of_three = "3 pictures validate: so few say little of which weights are best."
    assert about_validation(3) == [(CONFIG.images, told_of_three, remedy)]
    told_of_one = "1 picture validates: so few say little of which weights are best."
    assert about_validation(1, validation_list="val.txt") == [
        ("val.txt", told_of_one, "Label more pictures for val.txt.")
    ]
    assert about_validation(10) == about_validation(0) == []


def test_a_class_with_fewer_than_ten_training_boxes_is_told():
    assert told("OD115", train=picture(cat=10, dog=9)) == ['"dog" has 9 training boxes.']
    assert told("OD115", train=picture(cat=10, dog=1)) == ['"dog" has 1 training box.']


def test_a_share_that_differs_beyond_chance_is_told():
    parts = {"train": picture(cat=300, dog=100), "test": picture(cat=20, dog=40)}
    assert told("OD118", **parts) == [
        '"cat" is 75% of the training boxes, but 33% of the test boxes.',
        '"dog" is 25% of the training boxes, but 67% of the test boxes.',
    ]


def test_a_share_that_may_differ_by_chance_is_not_told():
    assert told("OD118", train=picture(cat=300, dog=100), test=picture(cat=5, dog=5)) == []
    assert told("OD118", train=picture(cat=5100, dog=4900), test=picture(cat=400, dog=600)) == []


def test_flags_are_counted():
    one = picture(cat=3)
    first, second, third = one.objects
    flagged = (replace(first, difficult=True), replace(second, truncated=True), third)
    parts = {"train": replace(one, objects=flagged, verified=True), "test": picture(dog=1)}
    assert told("OD208", **parts) == [
        "of 4 boxes 1 are truncated and 1 difficult; of 2 pictures 1 are verified."
    ]
    assert told("OD208", train=picture(cat=1)) == []


def test_sizes_that_no_test_box_has_are_told():
    small = replace(picture(cat=1), height=100, width=100)
    assert told("OD210", test=small) == [
        "no test box is medium as COCO counts it, so eval/mAP_medium will be missing.",
        "no test box is large as COCO counts it, so eval/mAP_large will be missing.",
    ]
