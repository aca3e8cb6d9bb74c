"""Two versions of a prepared data set compared."""

import json
import shutil
from pathlib import Path

import pytest
from support.pictures import draw_picture, label_picture

from odtrain.cli.main import main
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.diff import Box, Change, as_json, as_table, box_changes, compare
from odtrain.dataset.prepare import prepare
from odtrain.errors import DataError

CAT = Box("cat", (10, 10, 50, 40))
MOVED = Box("cat", (14, 10, 54, 40))
DOG = Box("dog", (10, 10, 50, 40))
FAR = Box("cat", (100, 100, 140, 140))


def changes(before, after):
    return list(box_changes(before, after))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([CAT, FAR], [FAR, CAT], []),
        ([CAT], [], [Change("removed", CAT, None)]),
        ([], [CAT], [Change("added", None, CAT)]),
        ([CAT], [MOVED], [Change("moved", CAT, MOVED, 0.8182)]),
        ([CAT], [DOG], [Change("renamed", CAT, DOG, 1.0)]),
        ([DOG], [MOVED], [Change("both", DOG, MOVED, 0.8182)]),
        ([CAT], [FAR], [Change("removed", CAT, None), Change("added", None, FAR)]),
        ([CAT, DOG], [DOG, CAT], []),
        ([CAT, DOG], [CAT], [Change("removed", DOG, None)]),
    ],
)
def test_what_became_of_each_box(before, after, expected):
    assert changes(before, after) == expected


@pytest.fixture
def versions(tmp_path):
    """A prepared data set, and what it became when its labels and pictures were edited."""
    pictures = tmp_path / "pictures"
    for i in range(6):
        label_picture(pictures / f"p{i}.jpg", (200, 160), [("cat", 20, 20, 80, 90)], seed=i)
    lists = {"train_list": tmp_path / "train.txt", "test_list": tmp_path / "test.txt"}

    def prepared(name, train, test):
        lists["train_list"].write_text("\n".join(train))
        lists["test_list"].write_text("\n".join(test))
        given = {key: str(file) for key, file in lists.items()}
        settings = {"name": "pets", "images": str(pictures), "validation_fraction": 0, **given}
        return prepare(section(DataConfig, prepared=str(tmp_path / name), **settings)).folder

    first = prepared("first", ["p0", "p1", "p2", "p3"], ["p4", "p5"])
    label_picture(pictures / "p0.jpg", (200, 160), [("cat", 30, 20, 90, 90)], seed=0)
    label_picture(pictures / "p1.jpg", (200, 160), [("dog", 20, 20, 80, 90)], seed=1)
    (pictures / "p2.jpg").rename(pictures / "renamed.jpg")
    (pictures / "p2.xml").rename(pictures / "renamed.xml")
    draw_picture(pictures / "p5.jpg", (200, 160), [], seed=99)
    label_picture(pictures / "new.jpg", (200, 160), [], seed=50)
    (pictures / "p3.jpg").unlink()
    (pictures / "p3.xml").unlink()
    second = prepared("second", ["p0", "p1", "renamed", "p4"], ["p5", "new"])
    return first, second


def test_every_kind_of_change_is_told(versions):
    text = as_table(compare(*versions))
    digests = [
        json.loads((folder / "dataset.json").read_text())["digest"][:16] for folder in versions
    ]
    first, second = versions
    assert text.splitlines() == [
        f"{first} -> {second}",
        f"  digests: {digests[0]}, {digests[1]}",
        "  pictures: 1 added, 1 removed, 5 changed",
        "  1 moved from test to train",
        "  boxes in pictures of both: 0 added, 0 removed, 1 moved, 1 of another class",
        "    1 cat -> dog",
        "    cat        6 -> 4        -2",
        "    dog        0 -> 1        +1",
        "  + new.jpg",
        "  - p3.jpg",
        "  ~ p0.jpg: other pixels; moved cat 20,20,80,90 -> cat 30,20,90,90 (IoU 0.71)",
        "  ~ p1.jpg: renamed cat 20,20,80,90 -> dog 20,20,80,90 (IoU 1.00)",
        "  ~ p4.jpg: test -> train",
        "  ~ p5.jpg: other pixels",
        "  ~ renamed.jpg: was p2.jpg",
    ]


def test_json_has_all_of_it(versions):
    told = json.loads(as_json(compare(*versions)))
    assert told["pictures_added"] == ["new.jpg"]
    assert told["pictures_removed"] == ["p3.jpg"]
    assert told["boxes"] == {"cat": [6, 4], "dog": [0, 1]}
    assert told["box_changes"] == {"moved": 1, "renamed": 1}
    (renamed,) = [each for each in told["changed"] if each["name"] == "renamed.jpg"]
    assert renamed == {
        "name": "renamed.jpg",
        "was": "p2.jpg",
        "splits": ["train", "train"],
        "replaced": False,
        "changes": [],
    }


def test_the_artifacts_of_a_run_are_enough(versions, tmp_path):
    folders = []
    for folder in versions:
        copied = tmp_path / f"{folder.name} data"
        copied.mkdir()
        for file in [*folder.glob("*.csv"), folder / "dataset.json"]:
            shutil.copy(file, copied)
        folders.append(copied)
    diff = compare(*folders)
    assert diff.pictures_added == ["new.jpg", "renamed.jpg"]
    assert diff.kinds == {"moved": 1, "renamed": 1}


def test_equal_versions_are_said_to_be_equal(versions, capsys):
    first, _ = versions
    assert main(["diff", str(first), str(first)]) == 0
    digest = json.loads((first / "dataset.json").read_text())["digest"]
    assert capsys.readouterr().out.splitlines() == [
        f"{first} -> {first}",
        f"  the same pixels, boxes, classes and splits: digest {digest[:16]}",
        "  pictures: 0 added, 0 removed, 0 changed",
        "  boxes in pictures of both: 0 added, 0 removed, 0 moved, 0 of another class",
        "    cat        6 -> 6",
    ]


def test_the_command_writes_json(versions, tmp_path, capsys):
    file = tmp_path / "diff.json"
    assert main(["diff", *map(str, versions), "--json", str(file)]) == 0
    assert capsys.readouterr().out
    assert json.loads(file.read_text())["pictures_added"] == ["new.jpg"]


def test_a_folder_without_data_is_told(tmp_path):
    with pytest.raises(DataError) as raised:
        compare(tmp_path, Path(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path}: holds no *_labels.csv.\n"
        "  Give folders that odtrain prepare wrote, such as datasets/NAME, or data/ of a run."
    )
