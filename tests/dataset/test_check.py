from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import Labelled, draw_picture, label_picture, write_xml

from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check as check_data
from odtrain.dataset.prepare import prepare
from odtrain.dataset.read import describe, read_dataset
from odtrain.errors import ConfigError, DataError
from odtrain.findings import Finding, findings_json, findings_table
from odtrain.labels.annotations import LabelledImage

CAT: list[Labelled] = [("cat", 4, 6, 30, 40)]
SIZE = (64, 48)


def config(folder: Path, **values: object) -> DataConfig:
    prepared = str(folder.parent / "prepared")
    return section(DataConfig, name="tiny", images=str(folder), prepared=prepared, **values)


OF_SMALL_SETS = {"OD115", "OD122", "OD210"}
"""Every data set of a few pictures has them; tests/test_balance.py is about them."""


def check(config: DataConfig) -> tuple[dict[str, list[LabelledImage]], tuple[Finding, ...]]:
    checked = check_data(config)
    findings = (each for each in checked.findings if each.code not in OF_SMALL_SETS)
    return checked.splits, tuple(findings)


def errors(folder: Path, **values: object) -> list[tuple[str, str, str | None, str]]:
    _, findings = check(config(folder, **values))
    return [
        (finding.code, Path(finding.file).name, finding.box, finding.cause)
        for finding in findings
        if finding.severity == "error"
    ]


def codes(folder: Path, **values: object) -> list[str]:
    return [finding.code for finding in check(config(folder, **values))[1]]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Five labelled pictures of cats."""
    folder = tmp_path / "pets"
    for i in range(5):
        label_picture(folder / f"p{i}.jpg", SIZE, CAT, seed=i)
    return folder


def test_a_good_data_set_gives_every_picture_and_no_finding(pets):
    splits, findings = check(config(pets))
    assert findings == ()
    assert {part: len(images) for part, images in splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }
    assert not (pets.parent / "prepared").exists()


def test_labels_in_the_folder_one_is_in_are_taken_without_those_beside_the_pictures(
    pets, tmp_path, monkeypatch
):
    (tmp_path / "labels").mkdir()
    monkeypatch.chdir(tmp_path / "labels")
    for i in range(5):
        dog = [("dog", *CAT[0][1:])]
        write_xml(tmp_path / f"labels/p{i}.xml", f"p{i}.jpg", SIZE, dog)
    splits, findings = check(config(pets, annotations="."))
    assert findings == ()
    objects = [one for part in splits.values() for image in part for one in image.objects]
    assert {one.name for one in objects} == {"dog"}


def test_the_tiny_data_set_keeps_its_background_picture(tiny_voc):
    splits, findings = check(config(tiny_voc, test_fraction=0.5))
    kept = {image.image.name: len(image.objects) for part in splits.values() for image in part}
    assert kept == {"img1.jpg": 1, "img2.png": 2, "img3.jpg": 0, "img4.jpg": 1}
    assert [finding for finding in findings if finding.severity == "error"] == []


@pytest.mark.parametrize("layout", ["two folders", "two folders below one"])
def test_labels_may_lie_in_a_folder_of_their_own(tmp_path, layout):
    for i in range(4):
        label_picture(tmp_path / f"d/images/p{i}.png", SIZE, CAT, tmp_path / "d/annotations", i)
    if layout == "two folders":
        chosen = config(tmp_path / "d/images", annotations=str(tmp_path / "d/annotations"))
    else:
        chosen = config(tmp_path / "d")
    splits, findings = check(chosen)
    assert sum(map(len, splits.values())) == 4
    assert findings == ()


def test_the_tutorials_train_and_test_folders_give_the_split(tmp_path):
    for i, part in enumerate(["train"] * 3 + ["test"]):
        label_picture(tmp_path / f"images/{part}/p{i}.jpg", SIZE, CAT, seed=i)
        shutil.copytree(tmp_path / "images" / part, tmp_path / "images", dirs_exist_ok=True)
    splits, findings = check(config(tmp_path / "images", validation_fraction=0))
    assert [image.image.name for image in splits["test"]] == ["p3.jpg"]
    assert [image.image.parent.name for image in splits["train"]] == ["train"] * 3
    assert [finding.code for finding in findings] == ["OD201"]


def test_a_label_file_is_matched_by_its_own_name_before_the_one_it_gives(tmp_path):
    folder = tmp_path / "pets"
    for i, name in enumerate(["a", "b", "c"]):
        draw_picture(folder / f"{name}.jpg", SIZE, [], seed=i)
    write_xml(folder / "a.xml", "b.jpg", SIZE, [("first", 1, 1, 9, 9)])
    write_xml(folder / "b.xml", "a.jpg", SIZE, [("second", 1, 1, 9, 9)])
    write_xml(folder / "00017.xml", "c", SIZE, [("third", 1, 1, 9, 9)])
    splits, _ = check(config(folder))
    named = {i.image.name: i.objects[0].name for part in splits.values() for i in part}
    assert named == {"a.jpg": "first", "b.jpg": "second", "c.jpg": "third"}


def test_names_with_blanks_and_from_all_the_world_work(tmp_path):
    folder = tmp_path / "my pictures"
    names = ["Waschbär  eins.jpg", "라쿤.png", "浣熊 2.JPG", "енот.jpeg"]
    for i, name in enumerate(names):
        label_picture(folder / name, SIZE, [("Waschbär", 1, 1, 9, 9)], seed=i)
    splits, findings = check(config(folder))
    assert {i.image.name for part in splits.values() for i in part} == set(names)
    assert findings == ()


def test_hidden_files_are_passed_over(pets):
    (pets / "._p0.jpg").write_bytes(b"\0\5\26\7")
    (pets / "__MACOSX").mkdir()
    (pets / "__MACOSX/p0.jpg").write_bytes(b"")
    assert codes(pets) == []


def test_no_folder_is_told(tmp_path):
    remedy = "Set data.images to the folder that holds the files."
    expected = f"{tmp_path / 'gone'}: is not a folder.\n  {remedy}"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        check(config(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            {"test_fraction": 1.5},
            "data.test_fraction=1.5: not a fraction.\n  Give 0 or more, and less than 1.",
            id="fraction",
        ),
        pytest.param(
            {"format": "vok"},
            "data.format=vok: no such choice.\n  Choose one of: auto, voc, yolo, coco, createml, "
            "labelme, label_studio, cvat, csv, tfrecord.",
            id="format",
        ),
        pytest.param({"shards": 0}, "data.shards=0: too small.\n  Give at least 1.", id="shards"),
    ],
)
def test_a_value_that_cannot_be_is_told(pets, values, expected):
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        check(config(pets, **values))


def test_no_pictures_is_an_error(tmp_path):
    (tmp_path / "pets").mkdir()
    assert errors(tmp_path / "pets")[0] == ("OD001", "pets", None, "holds no pictures.")


def test_no_labels_is_an_error_that_names_where_they_may_be(tmp_path):
    label_picture(tmp_path / "images/a.jpg", SIZE, CAT, tmp_path / "annotations")
    _, findings = check(config(tmp_path / "images"))
    assert findings[0].code == "OD002"
    assert findings[0].cause == "holds no label files."
    assert findings[0].remedy == f"Set data.annotations={tmp_path / 'annotations'}"


def test_a_label_file_without_picture_is_an_error(pets):
    (pets / "p0.jpg").unlink()
    assert errors(pets) == [("OD012", "p0.xml", None, 'no picture is called "p0" or "p0.jpg".')]


def test_a_picture_without_label_file_is_left_out_with_a_warning(pets):
    (pets / "p0.xml").unlink()
    splits, (finding,) = check(config(pets))
    assert "p0.jpg" not in {image.image.name for part in splits.values() for image in part}
    assert (finding.code, finding.severity) == ("OD102", "warning")
    assert finding.file == str(pets / "p0.jpg")


def test_two_pictures_with_one_name_are_an_error(pets):
    draw_picture(pets / "more/p0.png", SIZE, [])
    expected = f"has the name of {pets / 'p0.jpg'}."
    assert ("OD013", "p0.png", None, expected) in errors(pets)


def test_two_label_files_for_one_picture_are_an_error(pets):
    write_xml(pets / "copy.xml", "p0.jpg", SIZE, CAT)
    shown = f"{pets / 'copy.xml'}, {pets / 'p0.xml'}"
    assert errors(pets) == [("OD014", "p0.jpg", None, f"is labelled by {shown}.")]


def test_a_damaged_picture_is_an_error(pets):
    data = (pets / "p0.jpg").read_bytes()
    (pets / "p0.jpg").write_bytes(data[: len(data) // 2])
    ((code, file, _, cause),) = errors(pets)
    assert (code, file) == ("OD010", "p0.jpg")
    assert cause.startswith("cannot be decoded: image file is truncated")


def test_a_picture_in_a_format_that_is_not_read_is_an_error(pets):
    (pets / "p0.jpg").rename(pets / "p0.heic")
    (pets / "p0.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 99)
    assert errors(pets) == [("OD011", "p0.heic", None, "is HEIC, which is not read.")]


def test_a_broken_label_file_is_one_error_not_also_a_missing_label(pets):
    (pets / "p0.xml").write_text("<annotation>")
    findings = check(config(pets))[1]
    assert [(finding.code, Path(finding.file).name) for finding in findings] == [
        ("OD003", "p0.xml")
    ]


def test_an_unknown_class_names_the_nearest_known(pets, tmp_path):
    (tmp_path / "map.pbtxt").write_text("item { id: 1 name: 'dog' } item { id: 2 name: 'cat' }")
    write_xml(pets / "p0.xml", "p0.jpg", SIZE, [("cta", 4, 6, 30, 40)])
    assert errors(pets, label_map=str(tmp_path / "map.pbtxt")) == [
        (
            "OD007",
            "p0.xml",
            "cta 4,6,30,40",
            'class "cta" is not in the label map; nearest is "cat".',
        )
    ]


def test_a_box_outside_its_picture_is_an_error(pets):
    write_xml(pets / "p0.xml", "p0.jpg", SIZE, [("cat", 4, 6, 300, 40)])
    assert errors(pets) == [
        (
            "OD008",
            "p0.xml",
            "cat 4,6,300,40",
            "leaves the picture, which is 64 wide and 48 high.",
        )
    ]


def test_a_wrong_size_in_the_label_is_a_warning(pets):
    write_xml(pets / "p0.xml", "p0.jpg", (0, 0), CAT)
    write_xml(pets / "p1.xml", "p1.jpg", (640, 480), CAT)
    causes = [(finding.code, finding.cause) for finding in check(config(pets))[1]]
    assert causes == [
        ("OD103", "gives no size, p0.jpg has 64 x 48 pixels."),
        ("OD103", "says 640 x 480, p1.jpg has 64 x 48 pixels."),
    ]


def test_an_empty_test_split_is_an_error_with_a_remedy(pets):
    _, findings = check(config(pets, test_fraction=0))
    assert findings[0].cause == "the test split is empty (5 labelled pictures in all)."
    assert findings[0].remedy == "Set data.test_fraction, such as 0.2, or give data.test_list."


def test_an_empty_list_is_an_error(pets, tmp_path):
    (tmp_path / "test.txt").write_text("\n")
    found = errors(pets, test_list=str(tmp_path / "test.txt"))
    assert found == [
        ("OD017", "test.txt", None, "the test split is empty (5 labelled pictures in all).")
    ]


def test_pictures_without_any_box_are_an_error(tmp_path):
    for i in range(4):
        label_picture(tmp_path / f"d/p{i}.jpg", SIZE, [], seed=i)
    assert ("OD018", "d", None, "none of the 1 test pictures has a box.") in errors(tmp_path / "d")


def test_the_same_picture_in_train_and_test_is_a_warning(pets, tmp_path):
    (tmp_path / "test.txt").write_text("p0\n")
    shutil.copy(pets / "p0.jpg", pets / "p4.jpg")
    _, (finding,) = check(config(pets, test_list=str(tmp_path / "test.txt"), validation_fraction=0))
    assert (finding.code, finding.severity) == ("OD106", "warning")
    assert finding.cause == "this test picture equals p4.jpg, a train picture."


def test_a_class_that_no_training_picture_shows_is_a_warning(pets, tmp_path):
    (tmp_path / "test.txt").write_text("p0\n")
    write_xml(pets / "p0.xml", "p0.jpg", SIZE, [("dog", 4, 6, 30, 40)])
    _, findings = check(config(pets, test_list=str(tmp_path / "test.txt")))
    assert [(finding.code, finding.cause) for finding in findings] == [
        ("OD108", 'no train picture shows "dog".'),
        ("OD108", 'no test picture shows "cat".'),
    ]


def test_exif_decides_nothing_where_it_is_ambiguous_but_warns(pets):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(pets / "p0.jpg").save(pets / "p0.jpg", exif=exif)
    findings = check(config(pets))[1]
    assert {finding.code for finding in findings} == {"OD105", "OD203"}


def test_the_users_files_are_not_touched(pets):
    Image.new("CMYK", SIZE).save(pets / "p0.jpg")
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in pets.iterdir()}
    prepare(config(pets))
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in pets.iterdir()} == before


def digest(folder: Path, **values: object) -> str:
    return prepare(config(folder, **values)).digest


def test_the_digest_stays_when_files_are_touched_and_changes_with_a_label(pets):
    before = digest(pets)
    for file in pets.iterdir():
        os.utime(file, (1, 1))
    assert digest(pets) == before
    write_xml(pets / "p0.xml", "p0.jpg", SIZE, [("cat", 5, 6, 30, 40)])
    assert digest(pets) != before
    write_xml(pets / "p0.xml", "p0.jpg", SIZE, CAT)
    assert digest(pets) == before


@pytest.mark.parametrize("change", ["pixel", "class", "background", "split", "difficult"])
def test_the_digest_changes_with(pets, change):
    before = digest(pets, test_fraction=0.2)
    label = pets / "p0.xml"
    if change == "pixel":
        pixels = np.asarray(Image.open(pets / "p0.jpg")).copy()
        pixels[0, 0] = 255
        Image.fromarray(pixels).save(pets / "p0.png")
        (pets / "p0.jpg").unlink()
    elif change == "class":
        label.write_text(label.read_text().replace("cat", "dog"))
    elif change == "background":
        label_picture(pets / "p9.jpg", SIZE, [], seed=9)
    elif change == "difficult":
        label.write_text(label.read_text().replace("<difficult>0", "<difficult>1"))
    after = digest(pets, test_fraction=0.4 if change == "split" else 0.2)
    assert after != before


def test_the_digest_is_the_same_wherever_and_whenever_the_files_lie(pets, tmp_path):
    elsewhere = tmp_path / "other/place"
    elsewhere.mkdir(parents=True)
    for file in sorted(pets.iterdir(), reverse=True):
        shutil.copyfile(file, elsewhere / file.name)
    assert digest(elsewhere) == digest(pets)


def test_findings_are_shown_for_people_and_programs():
    finding = Finding("OD008", "error", "a.xml", "cat 1,2,3,4", "leaves it.", "Redraw it.")
    assert findings_table([finding]) == (
        "error OD008 a.xml [cat 1,2,3,4]: leaves it.\n    Redraw it.\n1 error, 0 warning, 0 info"
    )
    said = {key: value for key, value in vars(finding).items() if key != "seen"}
    assert json.loads(findings_json([finding])) == [said]


def test_a_dataset_is_described_on_one_screen(pets):
    dataset = prepare(config(pets))
    assert describe(dataset) == (
        f"tiny, prepared in {pets.parent / 'prepared'}\n"
        "  train             3 pictures       3 boxes\n"
        "  validation        1 pictures       1 boxes\n"
        "  test              1 pictures       1 boxes\n"
        "  labels: Pascal VOC XML\n"
        "  classes: cat\n"
        "  findings: 2 warning, 2 info; to see them: odtrain check\n"
        f"  digest: {dataset.digest[:16]}"
    )


def test_a_folder_that_holds_no_dataset_is_told(tmp_path):
    expected = f"{tmp_path}: holds no prepared data set.\n  Run: odtrain prepare"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        read_dataset(tmp_path)


def test_raccoon_has_no_error(shared):
    data = shared / "data/raccoon"
    splits, findings = check(
        section(
            DataConfig,
            name="raccoon",
            images=str(data / "images"),
            annotations=str(data / "annotations"),
            train_list=str(data / "data/train_labels.csv"),
            test_list=str(data / "data/test_labels.csv"),
            validation_fraction=0,
            prepared="nowhere",
        )
    )
    assert {finding.severity for finding in findings} == {"info"}
    boxes = {part: sum(len(i.objects) for i in images) for part, images in splits.items()}
    assert boxes == {"train": 173, "validation": 0, "test": 44}


def test_a_typo_in_the_label_map_is_an_error_with_its_place(pets, tmp_path):
    label_map = tmp_path / "map.pbtxt"
    label_map.write_text("item {\n  id: 1\n  name: \u2018cat\u2019\n}\n", encoding="utf-8")
    assert errors(pets, label_map=str(label_map)) == [
        ("OD020", "map.pbtxt:3:9", None, "curly quote \u2018.")
    ]


def test_a_label_map_that_counts_from_zero_is_an_error(pets, tmp_path):
    label_map = tmp_path / "map.pbtxt"
    label_map.write_text("item {\n  id: 0\n  name: 'cat'\n}\n", encoding="utf-8")
    assert errors(pets, label_map=str(label_map)) == [
        ("OD020", "map.pbtxt:1", None, '"cat" has id 0.')
    ]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(
            ("cat", 5, 7, 31, 40),
            [("OD119", "cat 5,7,31,40", "overlaps another box, cat, by an IoU of 0.90.")],
            id="nearly the same",
        ),
        pytest.param(
            ("dog", 4, 6, 30, 41),
            [("OD120", "dog 4,6,30,41", "overlaps another box, cat, by an IoU of 0.97.")],
            id="another class",
        ),
        pytest.param(("dog", 5, 7, 32, 41), [], id="another class near it"),
        pytest.param(("cat", 12, 6, 38, 40), [], id="beside it"),
    ],
)
def test_two_boxes_of_one_object_are_a_warning(pets, second, expected):
    write_xml(pets / "p0.xml", "p0.jpg", SIZE, [*CAT, second])
    _, findings = check(config(pets))
    assert [
        (found.code, found.box, found.cause)
        for found in findings
        if found.code in ("OD107", "OD119", "OD120")
    ] == expected
    assert {found.picture for found in findings if found.box} <= {str(pets / "p0.jpg")}


def test_a_file_of_one_channel_is_remarked(pets):
    Image.open(pets / "p1.jpg").convert("L").save(pets / "p1.jpg")
    assert codes(pets) == ["OD204"]


def test_raccoons_grey_pictures_and_flags_are_told(shared):
    data = shared / "data/raccoon"
    folders = {"images": str(data / "images"), "annotations": str(data / "annotations")}
    _, findings = check(section(DataConfig, name="raccoon", prepared="nowhere", **folders))
    assert [Path(f.file).name for f in findings if f.code == "OD204"] == [
        f"raccoon-{number}.jpg" for number in (150, 152, 161)
    ]
    assert [found.cause for found in findings if found.code == "OD208"] == [
        "of 217 boxes 59 are truncated and 0 difficult; of 200 pictures 199 are verified."
    ]
    assert {found.severity for found in findings} == {"info"}
