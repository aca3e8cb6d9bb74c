from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.pairing import PictureNames
from odtrain.dataset.splits import complete_split, given_split, read_list
from odtrain.errors import DataError
from odtrain.labels.annotations import LabelledImage, LabelledObject


def config(**values: object) -> DataConfig:
    values = {"validation_fraction": 0.1, **values}
    return section(DataConfig, name="x", images="data", prepared="out", **values)


def image(name: str, *classes: str) -> LabelledImage:
    box = (0.1, 0.1, 0.5, 0.5)
    objects = tuple(LabelledObject(label, box, False, False) for label in classes)
    return LabelledImage(Path(name), None, 10, 10, objects)


def images(**numbers: int) -> list[LabelledImage]:
    """So many pictures of each class; the class `none` makes background."""
    return [
        image(f"{label}{i:03d}.jpg", *([] if label == "none" else [label]))
        for label, number in numbers.items()
        for i in range(number)
    ]


def split(
    pictures: list[LabelledImage],
    given: Mapping[Path, str] | None = None,
    scenes: Sequence[Sequence[str]] = (),
    **values: object,
) -> dict[str, list[str]]:
    groups = [[Path(name) for name in scene] for scene in scenes]
    parts = complete_split(config(**values), pictures, dict(given or {}), groups)
    return {part: [member.image.name for member in members] for part, members in parts.items()}


def sizes(parts: Mapping[str, list[str]]) -> tuple[int, int, int]:
    return len(parts["train"]), len(parts["validation"]), len(parts["test"])


def test_a_drawn_split_has_the_fractions_asked_for():
    assert sizes(split(images(cat=60, dog=40))) == (72, 8, 20)


def test_a_drawn_split_has_each_class_in_proportion():
    parts = split(images(cat=60, dog=30, none=10))
    assert [sum(name.startswith(c) for name in parts["test"]) for c in ("cat", "dog", "none")] == [
        12,
        6,
        2,
    ]


def test_a_drawn_split_does_not_depend_on_the_order_of_files():
    pictures = images(cat=20, dog=10)
    assert split(pictures) == split(pictures[::-1])


def test_another_seed_draws_another_split():
    assert split(images(cat=40)) != split(images(cat=40), seed=1)


def test_a_picture_more_leaves_most_test_pictures_where_they_were():
    before = set(split(images(cat=40))["test"])
    after = set(split([*images(cat=40), image("zebra.jpg", "cat")])["test"])
    assert len(before & after) >= len(before) - 1


def pairs(pictures: list[LabelledImage]) -> list[list[str]]:
    names = [picture.image.name for picture in pictures]
    return [names[i : i + 2] for i in range(0, len(names), 2)]


def test_a_scene_is_never_drawn_apart():
    pictures = images(cat=40)
    parts = split(pictures, scenes=pairs(pictures))
    where = {name: part for part, names in parts.items() for name in names}
    assert all(where[first] == where[second] for first, second in pairs(pictures))
    assert sizes(parts) == (28, 4, 8)


def test_a_scene_is_drawn_whole_where_every_class_gives_less_than_one():
    pictures = images(a=4, b=4, c=4, d=4)
    parts = split(pictures, scenes=pairs(pictures), test_fraction=0.25, validation_fraction=0)
    assert sizes(parts) == (12, 0, 4)


def test_a_scene_of_more_pictures_than_are_drawn_stays_in_training():
    pictures = images(cat=40)
    long = [f"cat{i:03d}.jpg" for i in range(12)]
    parts = split(pictures, scenes=[long])
    assert set(long) <= set(parts["train"])
    assert sizes(parts) == (29, 3, 8)


def test_a_video_that_is_all_there_is_is_cut_into_few_runs():
    pictures = images(cat=100)
    parts = split(pictures, scenes=[[picture.image.name for picture in pictures]])
    assert sizes(parts) == (72, 8, 20)
    test = sorted(int(name[3:6]) for name in parts["test"])
    assert sum(b - a > 1 for a, b in pairwise(test)) <= 3


def test_a_data_set_of_one_picture_many_times_is_split_all_the_same():
    pictures = images(cat=10)
    parts = split(pictures, scenes=[[picture.image.name for picture in pictures]])
    assert sizes(parts) == (7, 1, 2)


def test_training_keeps_a_picture_however_the_scenes_lie():
    pictures = images(cat=4)
    parts = split(pictures, scenes=pairs(pictures), test_fraction=0.75, validation_fraction=0)
    assert sizes(parts) == (2, 0, 2)


def folds(
    pictures: list[LabelledImage], number: int, **values: object
) -> list[dict[str, list[str]]]:
    return [split(pictures, folds=number, fold=k, **values) for k in range(number)]


def test_folds_are_disjoint_and_together_are_everything():
    pictures = images(cat=31, dog=20)
    tests = [parts["test"] for parts in folds(pictures, 5)]
    assert sorted(name for test in tests for name in test) == sorted(
        picture.image.name for picture in pictures
    )
    assert [len(test) for test in tests] == [11, 10, 10, 10, 10]
    assert [sum(name.startswith("dog") for name in test) for test in tests] == [4] * 5


def test_folds_keep_scenes_whole():
    pictures = images(cat=40)
    for parts in folds(pictures, 4, scenes=pairs(pictures)):
        assert all((a in parts["test"]) == (b in parts["test"]) for a, b in pairs(pictures))
        assert len(parts["test"]) == 10


def test_validation_is_drawn_from_what_a_fold_leaves():
    for parts in folds(images(cat=40), 4):
        assert sizes(parts) == (27, 3, 10)


def test_with_a_given_test_split_the_folds_are_of_validation():
    pictures = images(cat=20)
    given = {p.image: "test" if p.image.name < "cat004" else "train" for p in pictures}
    drawn = [split(pictures, given, folds=4, fold=k)["validation"] for k in range(4)]
    assert sorted(name for names in drawn for name in names) == sorted(
        path.name for path, part in given.items() if part == "train"
    )


def test_a_test_split_of_one_picture_is_not_background():
    assert split(images(cat=2, none=8), test_fraction=0.1)["test"][0].startswith("cat")


@pytest.mark.parametrize(
    ("pictures", "fraction", "expected"),
    [
        pytest.param(3, 0.1, (2, 1, 0), id="one of three"),
        pytest.param(2, 0.1, (2, 0, 0), id="two are too few"),
        pytest.param(9, 0.0, (9, 0, 0), id="none wanted"),
        pytest.param(9, 0.99, (2, 7, 0), id="two stay"),
    ],
)
def test_validation_pictures_come_from_the_training_pictures(pictures, fraction, expected):
    parts = split(images(cat=pictures), test_fraction=0, validation_fraction=fraction)
    assert sizes(parts) == expected


def test_a_given_test_split_is_kept_and_validation_is_carved_from_train():
    pictures = images(cat=10)
    given = {p.image: "test" if p.image.name > "cat006" else "train" for p in pictures}
    parts = split(pictures, given)
    assert parts["test"] == ["cat006.jpg", "cat007.jpg", "cat008.jpg", "cat009.jpg"]
    assert sizes(parts) == (5, 1, 4)


def test_folders_called_train_and_test_give_the_split():
    paths = [Path("data") / name for name in ("train/a.jpg", "test/b.jpg", "val/c.jpg", "d.jpg")]
    given, (finding,) = given_split(config(), Path("data"), paths)
    assert given == dict(zip(paths[:3], ("train", "test", "validation"), strict=True))
    assert finding.code == "OD201"
    assert finding.cause == "1 picture is outside the folders of the splits."


def test_a_lone_train_folder_gives_no_split():
    paths = [Path("data/train/a.jpg"), Path("data/train/b.jpg")]
    assert given_split(config(), Path("data"), paths) == ({}, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("t.txt", "a.jpg\n\nb c\n", id="with and without suffix"),
        pytest.param("t.txt", "\ufeffimages\\a.jpg\r\n/x/b c.png\r\n", id="paths"),
        pytest.param(
            "t.csv",
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,1,1,x,0,0,1,1\n"
            "a.jpg,1,1,x,0,0,1,1\nb c.jpg,1,1,,,,,\n",
            id="the tutorial's CSV",
        ),
    ],
)
def test_lists_name_pictures(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    paths = [Path("data/a.jpg"), Path("data/b c.jpg"), Path("data/d.jpg")]
    given, findings = given_split(config(test_list=str(file)), Path("data"), paths)
    assert findings == []
    assert given == dict(zip(paths, ("test", "test", "train"), strict=True))


def test_pictures_in_none_of_two_lists_are_left_out(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "test.txt").write_text("b\n")
    lists = {f"{part}_list": str(tmp_path / f"{part}.txt") for part in ("train", "test")}
    paths = [Path(f"data/{name}.jpg") for name in "abcd"]
    given, (finding,) = given_split(config(**lists), Path("data"), paths)
    assert given == {paths[0]: "train", paths[1]: "test"}
    assert finding.cause == "2 pictures are in none of the lists."


def test_a_listed_picture_that_is_missing_or_in_two_lists_is_an_error(tmp_path):
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "test.txt").write_text("a.jpg\nracoon-1.jpg\n")
    lists = {f"{part}_list": str(tmp_path / f"{part}.txt") for part in ("train", "test")}
    _, findings = given_split(config(**lists), Path("data"), [Path("data/a.jpg")])
    assert [(finding.code, finding.severity, finding.cause) for finding in findings] == [
        ("OD016", "error", '"a.jpg" is in the train list too.'),
        ("OD015", "error", 'no picture is called "racoon-1.jpg".'),
    ]


def test_a_csv_without_file_names_is_told(tmp_path):
    file = tmp_path / "test.csv"
    file.write_text("name,width\na.jpg,3\n")
    expected = (
        f'{file}: has no column "filename".\n'
        "  Its first line is to be: filename,width,height,class,xmin,ymin,xmax,ymax"
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        read_list(file)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("cat.jpg", ["cat.jpg"], id="whole name"),
        pytest.param("cat", ["cat.jpg"], id="no suffix"),
        pytest.param("cat.png", ["cat.jpg"], id="another suffix"),
        pytest.param("my.photo", ["my.photo.jpg"], id="a dot in the name"),
        pytest.param("cat.v2", [], id="a dot that is no suffix"),
        pytest.param("two\tspaces", ["two  spaces.jpg"], id="labelImg's tab"),
        pytest.param("Ko\u0308ter", ["K\u00f6ter.jpg"], id="macOS's accent"),
    ],
)
def test_a_picture_is_found_by_what_it_is_called(name, expected):
    names = ("cat.jpg", "my.photo.jpg", "two  spaces.jpg", "K\u00f6ter.jpg")
    found = PictureNames(map(Path, names)).find(name)
    assert [path.name for path in found] == expected
