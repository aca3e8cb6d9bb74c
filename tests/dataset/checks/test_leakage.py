"""What the check says of pictures that look alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.photographs import pan, photograph
from support.pictures import Labelled, write_xml

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check
from odtrain.dataset.checks.leakage import leak_chance
from odtrain.errors import ConfigError

CAT: list[Labelled] = [("cat", 40, 60, 120, 200)]
MOVED: list[Labelled] = [("cat", 50, 60, 130, 200)]
ELSEWHERE: list[Labelled] = [("cat", 150, 10, 220, 50)]
DOG: list[Labelled] = [("dog", 40, 60, 120, 200)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten different labelled pictures, p0.png to p9.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(10):
        add(folder, f"p{i}x.png", i, CAT)
    return folder


def add(folder: Path, name: str, seed: int, objects: list[Labelled], scale: float = 1) -> None:
    image = photograph(seed)
    side = round(240 * scale)
    image.resize((side, side)).save(folder / name)
    boxes = [(label, *(round(scale * v) for v in box)) for label, *box in objects]
    write_xml(folder / f"{Path(name).stem}.xml", name, (side, side), boxes)


def told(folder: Path, *codes: str, **values: object) -> list[tuple[str, str, str]]:
    prepared = str(folder.parent / "prepared")
    config = section(DataConfig, name="x", images=str(folder), prepared=prepared, **values)
    return [
        (finding.code, Path(finding.file).name, finding.cause)
        for finding in check(config).findings
        if finding.code in codes
    ]


def test_a_near_copy_in_the_other_given_split_is_told(folder, tmp_path):
    add(folder, "copy.png", 3, CAT, scale=0.5)
    (tmp_path / "test.txt").write_text("p0x\np3x\n")
    assert told(
        folder, "OD110", "OD207", test_list=str(tmp_path / "test.txt"), validation_fraction=0
    ) == [
        (
            "OD110",
            "p3x.png",
            "this test picture looks nearly the same as copy.png, a train picture.",
        )
    ]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param(
            CAT, ("OD206", "twin.png", "equals p3x.png and has the same labels."), id="alike"
        ),
        pytest.param(
            MOVED,
            (
                "OD206",
                "twin.png",
                "equals p3x.png; the boxes of the two overlap by an IoU of 0.78.",
            ),
            id="nearly",
        ),
        pytest.param(
            ELSEWHERE,
            (
                "OD111",
                "twin.png",
                "equals p3x.png, but is labelled differently: cat 150,10,220,50 overlaps its "
                "counterpart by an IoU of 0.00.",
            ),
            id="another place",
        ),
        pytest.param(
            DOG,
            (
                "OD111",
                "twin.png",
                'equals p3x.png, but is labelled differently: "cat" not here, once there.',
            ),
            id="another class",
        ),
    ],
)
def test_a_second_copy_of_a_picture_is_told_with_what_its_labels_say(folder, objects, expected):
    add(folder, "twin.png", 3, objects)
    assert told(folder, "OD111", "OD206", "OD207") == [expected]


def test_a_near_copy_may_have_its_box_moved_but_not_left_out(folder):
    add(folder, "near.png", 3, MOVED, scale=0.5)
    assert told(folder, "OD112", "OD207") == [
        ("OD207", "near.png", "looks nearly the same as p3x.png.")
    ]
    add(folder, "near.png", 3, [], scale=0.5)
    assert told(folder, "OD112") == [
        (
            "OD112",
            "p3x.png",
            'looks nearly the same as near.png, but is labelled differently: "cat" once here, not there.',
        )
    ]


def test_a_drawn_split_says_what_a_random_one_would_have_torn(folder):
    add(folder, "twin.png", 3, CAT)
    sizes = [7, 2, 2]
    expected = f"{leak_chance(2, sizes):.1f}"
    assert told(folder, "OD205", validation_fraction=0.2) == [
        (
            "OD205",
            "pictures",
            "2 pictures form 1 groups that look alike or follow each other; a split at random would "
            f"have torn {expected} of them on average.",
        )
    ]


def test_the_chance_of_tearing_a_pair_is_that_of_two_draws():
    assert leak_chance(2, [8, 2]) == pytest.approx(1 - (8 * 7 + 2 * 1) / (10 * 9))


def test_a_video_that_must_be_cut_is_told(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, view in enumerate(pan(4, 20, 10)):
        view.save(folder / f"frame{i}.png")
        write_xml(folder / f"frame{i}.xml", f"frame{i}.png", (240, 240), CAT)
    assert told(folder, "OD121", validation_fraction=0) == [
        (
            "OD121",
            "frame0.png",
            "20 pictures hang together, from frame0.png to frame19.png: too many to be drawn whole, so "
            "they are in train and test.",
        )
    ]


def test_the_raccoon_photographs_quirks_are_all_found(shared, tmp_path):
    shutil.copytree(shared / "data/raccoon/images", tmp_path / "raccoon")
    labels = str(shared / "data/raccoon/annotations")
    found = told(tmp_path / "raccoon", "OD111", "OD112", "OD206", "OD207", annotations=labels)
    assert [(name, cause) for code, name, cause in found if code == "OD206"] == [
        (
            f"raccoon-{copy}.jpg",
            f"equals raccoon-{first}.jpg; the boxes of the two overlap by an IoU of {iou}.",
        )
        for copy, first, iou in [
            (116, 11, "0.94"),
            (74, 52, "0.82"),
            (98, 65, "0.80"),
            (120, 83, "0.82"),
        ]
    ]
    assert [(name, cause) for code, name, cause in found if code == "OD207"] == [
        ("raccoon-21.jpg", "looks nearly the same as raccoon-45.jpg."),
        ("raccoon-50.jpg", "looks nearly the same as raccoon-52.jpg, raccoon-74.jpg."),
        ("raccoon-51.jpg", "looks nearly the same as raccoon-85.jpg."),
    ]
    assert len(found) == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"folds": 1}, "data.folds: 1 fold leaves nothing to train on.\n  Give 0, or 2 or more."),
        (
            {"folds": 3, "fold": 3},
            "data.fold=3: is not one of 3 folds.\n  The first fold is 0; data.folds says how many there "
            "are.",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(folder, values, message):
    with pytest.raises(ConfigError) as error:
        told(folder, **values)
    assert str(error.value) == message


def test_folds_of_a_split_that_is_given_whole_are_refused(folder, tmp_path):
    lists = {}
    for i, part in enumerate(("train", "validation", "test")):
        (tmp_path / f"{part}.txt").write_text(f"p{i}x\np{i + 3}x\n")
        lists[f"{part}_list"] = str(tmp_path / f"{part}.txt")
    with pytest.raises(ConfigError) as error:
        told(folder, folds=2, **lists)
    assert str(error.value) == (
        "data.folds: test and validation are both given.\n  Leave out one of the two, or data.folds."
    )
