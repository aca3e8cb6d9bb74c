"""Label files of real tools, made by tests/support/labelled/make.py, and what is read from them."""

from __future__ import annotations

import shutil

import pytest
from support.label_files import EVERYTHING, LABELLED, data, easy, read, told

from odtrain.dataset.check import check


def but(*names):
    return {name: items for name, items in EVERYTHING.items() if name not in names}


def as_format(title, counted):
    return ("OD230", "labels", f"labels are read as {title}: {counted}.")


UNLABELLED = ("OD102", "p3.jpg", "has no label file.")


@pytest.mark.parametrize(
    ("folder", "objects", "findings"),
    [
        pytest.param("labelimg_voc", EVERYTHING, [], id="labelImg"),
        pytest.param("labelimg_voc_2016", EVERYTHING, [], id="labelImg of 2016"),
        pytest.param("cvat_voc_detection", but("p3.jpg"), [UNLABELLED], id="CVAT's VOC"),
        pytest.param(
            "label_studio_voc", easy(but("p3.jpg")), [UNLABELLED], id="Label Studio's VOC"
        ),
        pytest.param("cvat_label_me", easy(EVERYTHING), [], id="LabelMe's own XML from CVAT"),
        pytest.param(
            "labelimg_yolo",
            easy(EVERYTHING),
            [as_format("YOLO text", "4 files about 4 pictures")],
            id="labelImg's YOLO",
        ),
        pytest.param(
            "labelimg_yolo_cp949",
            easy(EVERYTHING),
            [
                ("OD233", "classes.txt", "is not UTF-8; read as cp949."),
                as_format("YOLO text", "4 files about 4 pictures"),
            ],
            id="labelImg's YOLO on Korean Windows",
        ),
        pytest.param(
            "cvat_yolo",
            easy(EVERYTHING),
            [as_format("YOLO text", "4 files about 4 pictures")],
            id="CVAT's YOLO",
        ),
        pytest.param(
            "cvat_yolo_ultralytics",
            easy(EVERYTHING),
            [as_format("YOLO text", "4 files about 4 pictures")],
            id="Ultralytics' YOLO from CVAT",
        ),
        pytest.param(
            "label_studio_yolo",
            easy(EVERYTHING),
            [as_format("YOLO text", "4 files about 4 pictures")],
            id="Label Studio's YOLO",
        ),
        pytest.param(
            "cvat_coco_instances",
            EVERYTHING,
            [as_format("COCO JSON", "2 files about 4 pictures")],
            id="CVAT's COCO",
        ),
        pytest.param(
            "label_studio_coco",
            easy(EVERYTHING),
            [
                (
                    "OD012",
                    "result.json",
                    'no picture is called "data/upload/1/00000009-nobody.jpg".',
                ),
                as_format("COCO JSON", "1 file about 5 pictures"),
            ],
            id="Label Studio's COCO",
        ),
        pytest.param(
            "labelimg_createml",
            easy(EVERYTHING),
            [as_format("CreateML JSON", "1 file about 4 pictures")],
            id="labelImg's CreateML",
        ),
        pytest.param(
            "labelme",
            easy(EVERYTHING),
            [
                ("OD131", "p3.json", "has shapes without a box: 1 of type circle."),
                ("OD133", "p3.json", "all that is labelled is left out: 1 circle."),
                ("OD231", "labels", "2 polygons are taken by their bounds."),
                as_format("LabelMe JSON", "4 files about 4 pictures"),
            ],
            id="LabelMe",
        ),
        pytest.param(
            "label_studio",
            easy(EVERYTHING),
            [
                ("OD232", "labels", "1 tasks that nobody has labelled are left out."),
                as_format("Label Studio JSON", "1 file about 4 pictures"),
            ],
            id="Label Studio",
        ),
        pytest.param(
            "label_studio_json_min",
            easy(EVERYTHING),
            [
                ("OD232", "labels", "1 tasks that nobody has labelled are left out."),
                as_format("Label Studio JSON", "1 file about 4 pictures"),
            ],
            id="Label Studio's JSON_MIN",
        ),
        pytest.param(
            "cvat_cvat",
            easy(EVERYTHING),
            [as_format("CVAT XML", "2 files about 4 pictures")],
            id="CVAT",
        ),
        pytest.param(
            "tutorial_csv",
            easy(but("p3.jpg")),
            [
                ("OD102", "p3.jpg", "is in none of the label files."),
                as_format("CSV with the tutorial's columns", "1 file about 3 pictures"),
            ],
            id="the tutorial's CSV",
        ),
    ],
)
def test_files_of_a_real_tool_are_recognised_and_read(tmp_path, folder, objects, findings):
    found_objects, found_findings = read(data(tmp_path, folder))
    assert told(found_findings) == findings
    assert found_objects == objects


def test_records_give_labels_pictures_and_split(tmp_path):
    before = {file.name: file.read_bytes() for file in (LABELLED / "tfrecord").iterdir()}
    shutil.copytree(LABELLED / "tfrecord", tmp_path / "records")
    config = data(tmp_path, images=str(tmp_path / "records"), annotations=None)
    checked = check(config)
    splits, findings = checked.splits, checked.findings
    assert {part: [i.image.name for i in images] for part, images in splits.items()} == {
        "train": ["p  2.png", "p1.jpg", "p3.jpg"],
        "validation": [],
        "test": ["p4.jpg"],
    }
    folder = tmp_path / "prepared/pictures"
    assert told(findings) == [
        ("OD234", "records", f"4 pictures were unpacked from records into {folder}."),
        ("OD230", "records", "labels are read as TFRecord: 2 files about 4 pictures."),
    ]
    assert read(config)[0] == easy(EVERYTHING)
    assert (folder / "test/p4.jpg").read_bytes() == (LABELLED / "pictures/p4.jpg").read_bytes()
    assert {file.name: file.read_bytes() for file in (tmp_path / "records").iterdir()} == before
