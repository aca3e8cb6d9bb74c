"""What the readers make of the odd corners of each format, and of files that are out to harm."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzz_readers import SEEDS, run, try_input
from support.label_files import EVERYTHING, LABELLED, data, easy, read, told
from support.pictures import draw_picture

from odtrain.cli.main import main
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check
from odtrain.dataset.prepare import prepare
from odtrain.io.tfrecord import BYTES, FLOATS, INTS, encode_example, frame
from odtrain.labels.formats.reading import MAX_BYTES, decode, picture_name
from odtrain.labels.formats.recognise import Sources, read_labels

STEMS = frozenset(["img", "a", "b"])


def labels(folder, files, chosen="auto", crowd=False):
    """What is read from files of these contents."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif isinstance(content, str):
            file.write_text(content, encoding="utf-8")
        else:
            file.write_text(json.dumps(content), encoding="utf-8")
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    sources = Sources(found, (), STEMS, chosen != "auto", crowd=crowd)
    labels, findings = read_labels(sources, folder, chosen)
    return SimpleNamespace(format=labels.format, entries=labels.entries, findings=findings)


def boxes(folder, files, chosen="auto"):
    """Format, and the objects of the first picture: class and box, rounded."""
    result = labels(folder, files, chosen)
    items = result.entries[0].objects
    return result.format, [(item.name, tuple(round(s, 4) for s in item.xyxy)) for item in items]


def causes(folder, files, chosen="auto"):
    """Code and cause of every finding, except which format it is."""
    return [
        (finding.code, finding.cause)
        for finding in labels(folder, files, chosen).findings
        if finding.code != "OD230"
    ]


# ---- Pascal VOC

BOX = "<bndbox><xmin>4</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
ROBOFLOW = """<annotation>
	<folder></folder>
	<filename>img_jpg.rf.0123456789abcdef0123456789abcdef.jpg</filename>
	<path>img_jpg.rf.0123456789abcdef0123456789abcdef.jpg</path>
	<source><database>roboflow.com</database></source>
	<size><width>416</width><height>416</height><depth>3</depth></size>
	<segmented>0</segmented>
	<object>
		<name>raccoon</name><pose>Unspecified</pose><truncated>0</truncated>
		<difficult>0</difficult><occluded>0</occluded>
		<bndbox><xmin>52</xmin><xmax>333</xmax><ymin>88</ymin><ymax>408</ymax></bndbox>
		<polygon><x1>52</x1><y1>88</y1><x2>333</x2><y2>408</y2></polygon>
	</object>
</annotation>"""
ROTATION = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(BOX, (4, 6, 30, 40), id="box"),
        pytest.param(
            "<polygon><pt><x>4</x><y>9</y></pt><pt><x>30</x><y>6</y></pt></polygon>",
            (4, 6, 30, 9),
            id="LabelMe's polygon",
        ),
        pytest.param(BOX + ROTATION.format("90.0"), (0, 10, 34, 36), id="CVAT's rotation"),
        pytest.param(
            "<robndbox><cx>20</cx><cy>20</cy><w>10</w><h>4</h><angle>1.5707963</angle></robndbox>",
            (18, 15, 22, 25),
            id="roLabelImg",
        ),
    ],
)
def test_a_voc_dialect_gives_its_bounds(tmp_path, body, expected):
    text = f"<annotation><object><name>cat</name>{body}</object></annotation>"
    assert boxes(tmp_path, {"img.xml": text}) == ("voc", [("cat", expected)])


def test_roboflows_order_of_tags_is_no_obstacle(tmp_path):
    assert boxes(tmp_path, {"img.xml": ROBOFLOW}) == ("voc", [("raccoon", (52, 88, 333, 408))])


def test_an_object_that_labelme_marks_as_deleted_is_left_out(tmp_path):
    text = f"<annotation><object><name>cat</name><deleted>1</deleted>{BOX}</object></annotation>"
    assert boxes(tmp_path, {"img.xml": text}) == ("voc", [])
    assert causes(tmp_path, {}) == [("OD232", "1 objects marked as deleted are left out.")]


BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
CUP = f"<object><name>cup</name>{BOX}</object>"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            f"<object><name>cup</name>{BOX}{BOX}</object>",
            'object 1, "cup", has a second <bndbox>.',
            id="second box",
        ),
        pytest.param(
            f"<object><name>cup</name><name>pen</name>{BOX}</object>",
            'object 1, "cup", has a second <name>.',
            id="second name",
        ),
        pytest.param(
            f"{CUP}<object><name>pen</name>{BOX}{CUP}</object>",
            'an object "cup" stands in object 2, "pen".',
            id="object in object",
        ),
        pytest.param(
            f"<objects>{CUP}</objects>", 'an object "cup" stands in <objects>.', id="in objects"
        ),
        pytest.param(f"{CUP}{BOX}", "a <bndbox> stands in <annotation>.", id="box alone"),
        pytest.param(
            f"<objects>{CUP * 7}</objects>",
            "; ".join(['an object "cup" stands in <objects>'] * 5) + "; 2 more.",
            id="many",
        ),
    ],
)
def test_what_stands_twice_or_nested_in_voc_is_a_warning(tmp_path, body, expected):
    files = {"img.xml": f"<annotation>{body}</annotation>"}
    assert causes(tmp_path, files) == [("OD134", f"is not read whole: {expected}")]


def test_the_box_of_a_part_is_none_of_the_object(tmp_path):
    body = f"<object><name>cup</name><part><name>ear</name>{BOX}</part>{BOX}</object>"
    assert causes(tmp_path, {"img.xml": f"<annotation>{body}</annotation>"}) == []


def test_verified_is_read(tmp_path):
    result = labels(tmp_path, {"a.xml": '<annotation verified="yes"/>', "b.xml": "<annotation/>"})
    assert [entry.verified for entry in result.entries] == [True, False]


# ---- CVAT


def test_cvat_turns_boxes_and_bounds_polygons(tmp_path):
    text = (
        '<annotations><image name="sub/img.jpg" width="100" height="80">'
        '<box label="cat" xtl="4" ytl="6" xbr="30" ybr="40" rotation="90"/>'
        '<polygon label="dog" points="1,2;9.5,3;4,8"><attribute name="difficult">true</attribute>'
        '</polygon><polyline label="cat" points="1,2;3,4"/></image></annotations>'
    )
    result = labels(tmp_path, {"annotations.xml": text})
    (entry,) = result.entries
    assert (result.format, entry.names, entry.size) == ("cvat", ("sub/img.jpg",), (100, 80))
    assert [(i.name, tuple(map(round, i.xyxy)), i.difficult) for i in entry.objects] == [
        ("cat", (0, 10, 34, 36), False),
        ("dog", (1, 2, 10, 8), True),
    ]
    assert causes(tmp_path, {}) == [
        ("OD131", "has shapes without a box: 1 of type polyline."),
        ("OD132", "1 rotated boxes are taken by their bounds."),
        ("OD231", "1 polygons are taken by their bounds."),
    ]


# ---- YOLO

NAMES = {"classes.txt": "cat\ndog\n"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("1 0.5 0.5 0.2 0.4", (0.4, 0.3, 0.6, 0.7), id="box"),
        pytest.param("1 0.5 0.5 0.2 0.4 0.93", (0.4, 0.3, 0.6, 0.7), id="box with a score"),
        pytest.param("1.0 .5 5e-1 0.2 0.4   ", (0.4, 0.3, 0.6, 0.7), id="other spellings"),
        pytest.param("1 0.1 0.2 0.5 0.3 0.3 0.6", (0.1, 0.2, 0.5, 0.6), id="outline"),
        pytest.param("1 .1 .2 .5 .2 .5 .6 .1 .6", (0.1, 0.2, 0.5, 0.6), id="turned box"),
    ],
)
def test_a_yolo_line_is_read(tmp_path, line, expected):
    found = boxes(tmp_path, {**NAMES, "img.txt": f"\n{line}\n\n"})
    assert found == ("yolo", [("dog", expected)])


@pytest.mark.parametrize(
    ("content", "code", "cause"),
    [
        pytest.param(
            "0 0.5 0.5\n",
            "OD032",
            'line 1 is "0 0.5 0.5", not class cx cy width height.',
            id="too few",
        ),
        pytest.param(
            "0 0.5 0.5 nan 0.1",
            "OD032",
            'line 1 is "0 0.5 0.5 nan 0.1", not class cx cy width height.',
            id="nan",
        ),
        pytest.param(
            "\n7 0.5 0.5 0.2 0.2", "OD033", "line 2 has class 7; the list has 0 to 1.", id="class 7"
        ),
        pytest.param(
            "-1 0.5 0.5 0.2 0.2",
            "OD033",
            "line 1 has class -1; the list has 0 to 1.",
            id="class -1",
        ),
        pytest.param("<xml>", "OD032", 'line 1 is "<xml>", not class cx cy width height.', id="no"),
    ],
)
def test_a_line_that_is_none_is_a_finding(tmp_path, content, code, cause):
    assert causes(tmp_path, {**NAMES, "img.txt": content}) == [(code, cause)]


def test_text_that_is_no_label_file_is_passed_over(tmp_path):
    files = {**NAMES, "img.txt": "0 .5 .5 .1 .1", "train.txt": "images/a.jpg", "README.txt": "1 2"}
    assert causes(tmp_path, files) == []
    assert [entry.names for entry in labels(tmp_path, {}).entries] == [("img",)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("classes.txt", "고양이\n판  넬\n".encode(), id="UTF-8"),
        pytest.param("classes.txt", "고양이\r\n판  넬\r\n\r\n".encode("utf-8-sig"), id="with mark"),
        pytest.param("classes.txt", "고양이\n판  넬\n".encode("cp949"), id="cp949"),
        pytest.param("classes.txt", "고양이\n판  넬\n".encode("utf-16"), id="UTF-16"),
        pytest.param("obj.names", "고양이\n판  넬\n".encode(), id="darknet"),
        pytest.param("_darknet.labels", "고양이\n판  넬\n".encode(), id="Roboflow"),
        pytest.param("data.yaml", "nc: 2\nnames: [고양이, '판  넬']\n".encode(), id="YAML list"),
        pytest.param("d.yaml", "names:\n  0: 고양이\n  1: 판  넬\n".encode(), id="YAML table"),
    ],
)
def test_class_names_are_found_in(tmp_path, name, content):
    files = {name: content, "labels/train/img.txt": "1 0.5 0.5 0.2 0.4"}
    assert boxes(tmp_path, files) == ("yolo", [("판 넬", (0.4, 0.3, 0.6, 0.7))])


def test_western_windows_text_is_read_too():
    assert decode("Waschbär".encode("cp1252")) == ("Waschbär", "cp1252")


def test_a_numbered_list_of_yolo_gives_names_by_their_numbers(tmp_path):
    files = {"img.txt": "2 0.5 0.5 0.2 0.2", "classes.txt": "0  person\n2  cat\n"}
    assert [name for name, _ in boxes(tmp_path, files)[1]] == ["cat"]


def test_yolo_without_names_says_what_is_missing_once(tmp_path):
    files = {"a.txt": "0 .5 .5 .1 .1", "b.txt": "0 .5 .5 .1 .1"}
    cause = "no class names: no classes.txt, obj.names or data.yaml lies with the labels or one folder up."
    assert causes(tmp_path, files) == [("OD034", cause)]


def test_the_nearest_list_of_names_counts(tmp_path):
    files = {
        "one/classes.txt": "cat",
        "one/a.txt": "0 .5 .5 .1 .1",
        "two/classes.txt": "dog",
        "two/b.txt": "0 .5 .5 .1 .1",
    }
    entries = labels(tmp_path, files).entries
    assert [entry.objects[0].name for entry in entries] == ["cat", "dog"]


# ---- COCO


def coco(**annotation):
    return {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [
            {"id": 0, "name": "none"},
            {"id": 3, "name": "cat", "supercategory": "none"},
        ],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 3, **annotation}],
    }


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        pytest.param({"bbox": [4, 6, 26, 34]}, (4, 6, 30, 40), id="numbers"),
        pytest.param({"bbox": ["4", 6.0, "26.5", 34]}, (4, 6, 30.5, 40), id="Roboflow's strings"),
        pytest.param(
            {"segmentation": [[4, 6, 30, 6, 30, 40], [5, 5, 6, 6, 7, 7]]},
            (4, 5, 30, 40),
            id="outline",
        ),
        pytest.param({"image_id": "5", "bbox": [4, 6, 26, 34]}, (4, 6, 30, 40), id="id as text"),
    ],
)
def test_a_coco_annotation_is_read(tmp_path, annotation, expected):
    found = boxes(tmp_path, {"_annotations.coco.json": coco(**annotation)})
    assert found == ("coco", [("cat", expected)])


@pytest.mark.parametrize(
    ("annotation", "code", "cause"),
    [
        pytest.param({"bbox": [1, 2, 3]}, "OD032", "has no bbox of four numbers", id="three"),
        pytest.param({"bbox": [1, 2, 3, None]}, "OD032", "has no bbox of four numbers", id="null"),
        pytest.param(
            {"bbox": [1, 2, math.nan, 4]}, "OD032", "has no bbox of four numbers", id="nan"
        ),
        pytest.param(
            {"bbox": [1, 2, 10**400, 4]}, "OD032", "has no bbox of four numbers", id="huge"
        ),
        pytest.param(
            {"image_id": 9},
            "OD032",
            "annotation 1 is of a picture that the file does not list.",
            id="id",
        ),
        pytest.param(
            {"image_id": []},
            "OD032",
            "annotation 1 is of a picture that the file does not list.",
            id="[]",
        ),
        pytest.param(
            {"category_id": 4},
            "OD033",
            "annotation 1 is of a category that the file does not list.",
            id="category",
        ),
        pytest.param(
            {"iscrowd": 1}, "OD232", "left out as crowd regions: 1 of 1 objects.", id="crowd"
        ),
    ],
)
def test_a_coco_annotation_that_cannot_be_used_is_a_finding(tmp_path, annotation, code, cause):
    ((found_code, found_cause),) = causes(tmp_path, {"a.json": coco(**annotation)})
    assert found_code == code
    assert cause in found_cause


@pytest.mark.parametrize(
    ("key", "row"),
    [
        pytest.param("categories", {"id": 1, "name": "dog"}, id="category"),
        pytest.param("images", {"id": 1, "file_name": "b.jpg"}, id="picture"),
    ],
)
def test_an_id_that_two_rows_of_a_coco_file_have_is_an_error(tmp_path, key, row):
    document = coco(bbox=[1, 1, 2, 2])
    first = document[key][0]
    document[key].append({**row, "id": first["id"]})
    what = {"categories": "categories", "images": "pictures"}[key]
    expected = ("OD032", f"two {what} have the id {first['id']}.")
    assert expected in causes(tmp_path, {"a.json": document})


def test_crowd_regions_are_taken_where_that_is_wanted(tmp_path):
    document = coco(bbox=[1, 1, 2, 2], iscrowd=1)
    result = labels(tmp_path, {"a.json": document}, crowd=True)
    assert [item.xyxy for entry in result.entries for item in entry.objects] == [(1, 1, 3, 3)]
    assert "1 crowd regions are taken by their bounds." in [f.cause for f in result.findings]


def test_a_list_that_a_json_file_has_twice_is_a_warning(tmp_path):
    text = json.dumps(coco(bbox=[1, 1, 2, 2]))
    twice = text[:-1] + ', "annotations": []}'
    assert causes(tmp_path, {"a.json": twice}) == [
        ("OD134", 'is not read whole: "annotations" is there twice.')
    ]


def test_a_class_that_is_called_none_and_never_used_does_no_harm(tmp_path):
    assert boxes(tmp_path, {"a.json": coco(bbox=[1, 1, 2, 2])})[1] == [("cat", (1, 1, 3, 3))]


# ---- LabelMe, CreateML, Label Studio


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        pytest.param(
            {"points": [[30, 40], [4, 6]], "shape_type": "rectangle"}, (4, 6, 30, 40), id="box"
        ),
        pytest.param(
            {"points": [[4, 6], [30, 7], [9, 40]]}, (4, 6, 30, 40), id="LabelMe 3, no type"
        ),
        pytest.param(
            {"points": [[4, 20], [20, 6], [30, 9], [9, 40]], "shape_type": "oriented_rectangle"},
            (4, 6, 30, 40),
            id="turned",
        ),
        pytest.param(
            {"points": [[4, 6], [30, 40]], "shape_type": "mask", "mask": "iVBORw0KGgo="},
            (4, 6, 30, 40),
            id="mask",
        ),
    ],
)
def test_a_labelme_shape_gives_its_bounds(tmp_path, shape, expected):
    document = {"shapes": [{"label": "cat", **shape}], "imagePath": "img.jpg"}
    assert boxes(tmp_path, {"img.json": document}) == ("labelme", [("cat", expected)])


def test_createml_boxes_are_by_their_centre(tmp_path):
    box = {"label": "cat", "coordinates": {"x": 17, "y": 23, "width": 26, "height": 34}}
    document = [
        {"image": "a.jpg", "annotations": [box]},
        {"imagefilename": "b.jpg", "annotation": [], "verified": True},
    ]
    assert boxes(tmp_path, {"labels.json": document}) == ("createml", [("cat", (4, 6, 30, 40))])
    entries = labels(tmp_path, {}).entries
    assert [(entry.names[0], entry.verified) for entry in entries] == [
        ("a.jpg", False),
        ("b.jpg", True),
    ]


def label_studio(value, **task):
    region = {
        "type": "rectanglelabels",
        "original_width": 200,
        "original_height": 100,
        "value": value,
    }
    result = {"id": 1, "result": [region], "was_cancelled": False}
    return [{"id": 1, "data": {"image": "/data/upload/1/a.jpg"}, "annotations": [result], **task}]


def test_a_turned_box_of_label_studio_is_turned_in_pixels_about_its_corner(tmp_path):
    value = {
        "x": 50,
        "y": 20,
        "width": 20,
        "height": 10,
        "rotation": 90,
        "rectanglelabels": ["cat"],
    }
    # 40 x 10 pixels at (100, 20), turned: x from 90 to 100, y from 20 to 60.
    found = boxes(tmp_path, {"export.json": label_studio(value)})
    assert found == ("label_studio", [("cat", (0.45, 0.2, 0.5, 0.6))])
    assert causes(tmp_path, {}) == [("OD132", "1 rotated boxes are taken by their bounds.")]


def test_a_region_of_label_studio_with_two_labels_is_a_box_of_each(tmp_path):
    value = {"x": 10, "y": 10, "width": 10, "height": 10, "rectanglelabels": ["cup", "pen"]}
    square = (0.1, 0.1, 0.2, 0.2)
    found = boxes(tmp_path, {"export.json": label_studio(value)})
    assert found == ("label_studio", [("cup", square), ("pen", square)])
    assert causes(tmp_path, {}) == []


def test_the_last_annotation_that_was_not_cancelled_counts(tmp_path):
    value = {"x": 10, "y": 10, "width": 10, "height": 10, "rectanglelabels": ["cat"]}
    (task,) = label_studio(value)
    newer = json.loads(json.dumps(task["annotations"][0]).replace("cat", "dog"))
    dropped = {"result": [], "was_cancelled": True}
    task["annotations"] += [newer, dropped]
    assert boxes(tmp_path, {"a.json": [task]})[1] == [("dog", (0.1, 0.1, 0.2, 0.2))]


def with_results(*results):
    """A task of Label Studio with one box of a cup and what stands beside it."""
    (task,) = label_studio({**SQUARE, "rectanglelabels": ["cup"]})
    task["annotations"][0]["result"] += results
    return [task]


SQUARE = {"x": 10, "y": 10, "width": 10, "height": 10}
PEN = {"id": "pen1", "type": "rectangle", "original_width": 200, "value": SQUARE}


@pytest.mark.parametrize(
    ("results", "names", "expected"),
    [
        pytest.param(
            [
                {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
                {"type": "choices", "value": {"choices": ["blurry"]}},
            ],
            ["cup"],
            [
                (
                    "OD232",
                    "2 relations, choices and other entries that are no regions are left out.",
                )
            ],
            id="no regions",
        ),
        pytest.param(
            [PEN],
            ["cup"],
            [("OD135", "left out as regions without a label: 1 of 2 objects.")],
            id="no label",
        ),
        pytest.param(
            [PEN, {"id": "pen1", "type": "choices", "value": {**SQUARE, "choices": ["pen"]}}],
            ["cup", "pen"],
            [],
            id="labelled by a choice",
        ),
        pytest.param(
            [PEN, {"id": "pen1", "type": "labels", "value": {**SQUARE, "labels": ["pen"]}}],
            ["cup", "pen"],
            [],
            id="labelled a second time",
        ),
    ],
)
def test_no_entry_of_a_label_studio_result_is_lost_without_a_word(
    tmp_path, results, names, expected
):
    found = boxes(tmp_path, {"a.json": with_results(*results)})[1]
    assert [name for name, _ in found] == names
    assert causes(tmp_path, {}) == expected


def test_earlier_annotations_of_a_task_are_counted(tmp_path):
    (task,) = label_studio({**SQUARE, "rectanglelabels": ["cup"]})
    task["annotations"] *= 3
    assert causes(tmp_path, {"a.json": [task]}) == [
        ("OD232", "2 earlier annotations are left out: of each task the last one counts.")
    ]


@pytest.mark.parametrize(
    ("region", "code", "cause"),
    [
        pytest.param(
            {"keypointlabels": ["cup"]},
            "OD131",
            "has shapes without a box: 1 of type keypointlabels.",
            id="no box",
        ),
        pytest.param(
            {"original_width": 200},
            "OD135",
            "left out as regions without a label: 1 of 1 objects.",
            id="no label",
        ),
    ],
)
def test_a_region_of_json_min_that_is_no_object_is_told(tmp_path, region, code, cause):
    task = {"id": 1, "image": "a.jpg", "annotator": 1, "label": [{**SQUARE, **region}]}
    assert causes(tmp_path, {"a.json": [task]}) == [(code, cause)]


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/3/0123abcd-a.jpg",
        "/data/local-files/?d=pictures/a.jpg",
        "https://example.org/bucket/a.jpg?signature=x.png",
        "s3://bucket/folder/a.jpg",
        "C:\\pictures\\a.jpg",
        "https://example.org/%61.jpg",
    ],
)
def test_label_studios_ways_of_naming_a_picture_are_understood(tmp_path, image):
    draw_picture(tmp_path / "d/a.jpg", (64, 48), [])
    (task,) = label_studio({"x": 1, "y": 1, "width": 50, "height": 50, "rectanglelabels": ["cat"]})
    task["data"]["image"] = image
    (tmp_path / "d/export.json").write_text(json.dumps([task]))
    found, _ = read(
        section(DataConfig, name="d", images=str(tmp_path / "d"), prepared=str(tmp_path / "p"))
    )
    assert [len(items) for items in found.values()] == [1]


# ---- what is left out


EXPORT_OTHERWISE = (
    "Export boxes or polygons in place of masks (CVAT marks masks as crowds), or take the crowd regions: "
    "data.crowd=take"
)


@pytest.mark.parametrize(
    ("crowds", "code", "cause", "remedy"),
    [
        pytest.param(
            (1, 0),
            "OD133",
            '"a.jpg": all that is labelled is left out: 1 crowd region.',
            f"It is taken for background. {EXPORT_OTHERWISE}",
        ),
        pytest.param(
            (1, 1),
            "OD035",
            "2 of 2 labelled pictures lose all their objects: 2 crowd regions.",
            EXPORT_OTHERWISE,
        ),
    ],
)
def test_a_picture_whose_objects_are_all_left_out_is_told(tmp_path, crowds, code, cause, remedy):
    document = coco(bbox=[1, 1, 20, 20], iscrowd=crowds[0])
    document["images"] = [{"id": i, "file_name": name} for i, name in ((5, "a.jpg"), (6, "b.jpg"))]
    one = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [1, 1, 20, 20], "iscrowd": crowds[0]}
    document["annotations"] = [one, {**one, "id": 2, "image_id": 6, "iscrowd": crowds[1]}]
    document["categories"] = [{"id": 2, "name": "cat"}]
    for name in ("a.jpg", "b.jpg"):
        draw_picture(tmp_path / "d" / name, (64, 48), [])
    (tmp_path / "d/a.json").write_text(json.dumps(document))
    places = {"images": str(tmp_path / "d"), "prepared": str(tmp_path / "p")}
    findings = check(section(DataConfig, name="d", **places)).findings
    assert (code, cause, remedy) in [(each.code, each.cause, each.remedy) for each in findings]
    taken = check(section(DataConfig, name="d", crowd="take", **places)).findings
    assert not {"OD133", "OD035"} & {finding.code for finding in taken}


# ---- CSV and records


def test_columns_may_come_in_any_order_and_background_is_kept(tmp_path):
    text = "xmax,ymax,class,filename,xmin,ymin\n30,40,cat,b.jpg,4,6\n,,,a.jpg,,\n"
    entries = labels(tmp_path, {"t.csv": text}).entries
    assert [(entry.names, len(entry.objects)) for entry in entries] == [
        (("a.jpg",), 0),
        (("b.jpg",), 1),
    ]


def test_a_row_that_lacks_something_is_a_finding(tmp_path):
    text = "filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,x,4\na.jpg,,1,2,3,4\n,cat,1,2,3,4\n"
    assert causes(tmp_path, {"t.csv": text}) == [
        ("OD032", "a row has no filename."),
        ("OD032", 'line 2 "cat", lacks a number in xmin to ymax.'),
        ("OD032", "line 3 has no class."),
    ]


def record(picture, **features):
    kinds = {bytes: BYTES, float: FLOATS, int: INTS}
    values = {"image/encoded": [picture], **features}
    return frame(encode_example({key: (kinds[type(v[0])], v) for key, v in values.items() if v}))


def test_names_in_records_cannot_lead_out_of_the_folder(tmp_path):
    picture = (LABELLED / "pictures/p1.jpg").read_bytes()
    names = [
        b"../../evil.jpg",
        b"/etc/passwd",
        b"a/../../b.jpg",
        b"",
        b"x" * 400,
        b"\xff\0.jpg",
        b".hid",
    ]
    data_ = b"".join(record(picture, **{"image/filename": [name]}) for name in names)
    (tmp_path / "records").mkdir()
    (tmp_path / "records/all.record").write_bytes(data_)
    config = section(
        DataConfig, name="d", images=str(tmp_path / "records"), prepared=str(tmp_path / "p/d")
    )
    check(config)
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert written == {
        "records/all.record",
        "p/d/pictures/unpacked.json",
        "p/d/pictures/all/evil.jpg",
        "p/d/pictures/all/passwd.jpg",
        "p/d/pictures/all/b.jpg",
        "p/d/pictures/all/image.jpg",
        f"p/d/pictures/all/{'x' * 80}.jpg",
        "p/d/pictures/all/\ufffd.jpg",
        "p/d/pictures/all/hid.jpg",
    }


def test_a_damaged_record_is_a_finding_and_the_others_are_kept(tmp_path):
    whole = (LABELLED / "tfrecord/train.record").read_bytes()
    broken = bytearray(whole)
    broken[200] ^= 1
    files = {"train.record": bytes(broken), "label_map.pbtxt": "item { id: 1 name: 'a' }"}
    assert causes(tmp_path, files) == [("OD032", "record 1 is damaged: its checksum is wrong.")]
    assert len(labels(tmp_path, {}).entries) == 2
    (tmp_path / "train.record").write_bytes(whole[:-9])
    ((code, cause),) = causes(tmp_path, {})
    assert (code, cause.split(",")[0]) == ("OD030", "ends in the middle of a record")


def test_numbers_without_a_label_map_are_a_finding(tmp_path):
    (tmp_path / "test.record").write_bytes((LABELLED / "tfrecord/test.record").read_bytes())
    cause = "has neither a class/text nor a class/label that a label map names."
    assert causes(tmp_path, {}) == [
        ("OD034", f"object 1 of record 1 {cause}"),
        ("OD034", f"object 2 of record 1 {cause}"),
    ]


def test_records_are_unpacked_once_and_prepared_again_only_when_they_change(tmp_path):
    shutil.copytree(LABELLED / "tfrecord", tmp_path / "records")
    config = section(
        DataConfig,
        name="d",
        images=str(tmp_path / "records"),
        prepared=str(tmp_path / "d"),
        validation_fraction=0,
    )
    first = prepare(config)
    pictures = sorted((tmp_path / "d/pictures").rglob("*.jpg"))
    stamps = [file.stat().st_mtime_ns for file in pictures]
    assert prepare(config) == first
    os.utime(tmp_path / "records/train.record", (1, 1))
    assert prepare(config).digest == first.digest
    assert [file.stat().st_mtime_ns for file in pictures] == stamps
    (tmp_path / "records/test.record").unlink()
    prepare(replace(config, test_fraction=0.4))
    assert not (tmp_path / "d/pictures/test/p4.jpg").exists()


def test_records_of_odtrain_itself_are_read(tmp_path, prepared_shapes):
    config = section(
        DataConfig, name="d", images=str(prepared_shapes.folder), prepared=str(tmp_path / "d")
    )
    again = prepare(config)
    assert (again.digest, again.label_format) == (prepared_shapes.digest, "tfrecord")


# ---- which format


def test_of_two_formats_the_one_about_more_pictures_is_taken_and_said(tmp_path):
    config = data(tmp_path, "labelimg_yolo", "labelimg_voc")
    Path(config.annotations, "p3.xml").unlink()
    objects, findings = read(config)
    assert objects == easy(EVERYTHING)
    assert told(findings)[0] == (
        "OD130",
        "labels",
        "holds labels as Pascal VOC XML too (3 files about 3 pictures); taken are those as YOLO text "
        "(4 files about 4 pictures).",
    )
    assert findings[0].remedy == "Set data.format=voc to take the others, or data.format=yolo."
    config = replace(config, format="voc")
    assert sorted(read(config)[0]) == ["p  2.png", "p1.jpg", "p4.jpg"]
    assert told(read(config)[1]) == [("OD102", "p3.jpg", "has no label file.")]


def test_a_named_format_refuses_what_is_another(tmp_path):
    assert causes(tmp_path, {"a.json": coco(bbox=[1, 1, 2, 2])}, "labelme") == [
        ("OD031", "is JSON, but not labelme.")
    ]
    assert causes(tmp_path, {"t.csv": "a,b\n1,2\n"}, "csv") == [
        (
            "OD031",
            "its first line is a, b; needed are the columns class, filename, xmax, xmin, ymax, ymin.",
        )
    ]
    assert causes(tmp_path, {"a.xml": "<annotation/>"}, "cvat") == [
        ("OD031", "begins with <annotation>, not with CVAT's <annotations>.")
    ]


def test_tables_that_give_the_split_are_no_second_labels(tmp_path):
    config = data(tmp_path, "labelimg_voc", "tutorial_csv")
    config = replace(config, train_list=f"{config.annotations}/train_labels.csv")
    assert told(read(config)[1]) == []


def test_equal_rows_in_two_tables_are_one(tmp_path):
    config = data(tmp_path, "tutorial_csv")
    shutil.copy(f"{config.annotations}/train_labels.csv", f"{config.annotations}/all_labels.csv")
    assert [finding.code for finding in read(config)[1] if finding.severity == "error"] == []


def test_pictures_of_one_name_in_two_folders_get_the_labels_of_theirs(tmp_path):
    for i, part in enumerate(("train", "train", "test")):
        name = f"{i % 2}"
        draw_picture(tmp_path / f"d/images/{part}/{name}.png", (64, 48), [], seed=i)
        file = tmp_path / f"d/labels/{part}/{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{i} 0.5 0.5 0.5 0.5")
    (tmp_path / "d/labels/classes.txt").write_text("a\nb\nc\n")
    config = section(
        DataConfig, name="d", images=str(tmp_path / "d"), prepared="p", validation_fraction=0
    )
    checked = check(config)
    splits, findings = checked.splits, checked.findings
    assert [finding for finding in findings if finding.severity == "error"] == []
    found = {
        f"{i.image.parent.name}/{i.image.stem}": i.objects[0].name
        for p in splits.values()
        for i in p
    }
    assert found == {"train/0": "a", "train/1": "b", "test/0": "c"}


def test_prepare_says_which_format_it_took(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(LABELLED / "pictures", "d")
    shutil.copytree(LABELLED / "labelimg_yolo", "d", dirs_exist_ok=True)
    assert main(["prepare", "data.images=d", "data.name=d", "data.validation_fraction=0"]) == 0
    assert "\n  labels: YOLO text\n" in capsys.readouterr().out


def test_raccoons_own_csv_says_what_its_xml_says(shared):
    raccoon = shared / "data/raccoon"
    config = section(DataConfig, name="r", images=str(raccoon / "images"), prepared="nowhere")
    config = replace(config, annotations=str(raccoon / "annotations"), validation_fraction=0)
    by_xml, _ = read(config)
    config = replace(config, annotations=str(raccoon / "data/raccoon_labels.csv"))
    by_csv, findings = read(config)
    assert by_csv == by_xml
    assert {finding.severity for finding in findings} == {"info"}


# ---- files that are out to harm


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        (r"C:\Users\x\a.jpg", "Users/x/a.jpg"),
        (r"\\host\share\a.jpg", "a.jpg"),
        ("a/./b/../c.jpg", "a/b/c.jpg"),
        ("a\0b.jpg", "a b.jpg"),
        (None, ""),
        (7, ""),
    ],
)
def test_a_path_in_a_label_file_is_no_more_than_a_name(written, expected):
    assert picture_name(written) == expected


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        pytest.param(
            "img.json", '{"shapes":1,"image":' + "[" * 100_000, "is nested too deep.", id="depth"
        ),
        pytest.param(
            "img.json", '{"shapes":1,"image":' + "9" * 5000 + "}", "is not JSON: ", id="digits"
        ),
        pytest.param("img.json", '{"shapes": [], "image', "is not JSON: ", id="broken off"),
    ],
)
def test_json_that_is_out_to_harm_is_a_finding(tmp_path, name, content, cause):
    ((code, said),) = causes(tmp_path, {name: content})
    assert code == "OD030"
    assert said.startswith(cause)


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with (tmp_path / "img.json").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    assert causes(tmp_path, {}, "coco") == [("OD030", "is larger than 100 MB.")]


def test_yaml_that_multiplies_itself_is_not_expanded(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)
    ]
    merged = ["m0: &m0 {x: 1}"]
    merged += [f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 40)]
    for text in (lines, merged):
        files = {"data.yaml": "\n".join([*text, "names: *a"]), "img.txt": "0 .5 .5 .1 .1"}
        assert [code for code, _ in causes(tmp_path, files)] == ["OD034"]


def test_what_is_wrong_with_one_file_takes_a_hundred_findings(tmp_path):
    document = coco(bbox=1)
    document["annotations"] *= 5000
    found = causes(tmp_path, {"a.json": document})
    assert len(found) == 101
    assert found[-1] == ("OD032", "4,900 more of its objects cannot be used.")


def test_a_file_about_many_pictures_that_are_not_there_takes_a_hundred_findings(tmp_path):
    config = data(tmp_path, "tutorial_csv")
    rows = "".join(f"gone{i}.jpg,1,1,cat,0,0,1,1\n" for i in range(500))
    with Path(config.annotations, "train_labels.csv").open("a") as stream:
        stream.write(rows)
    found = [cause for code, _, cause in told(read(config)[1]) if code == "OD012"]
    assert len(found) == 101
    assert found[-1] == "400 more pictures that it tells of are not there."


@pytest.mark.parametrize("kind", ["json", "records", "csv"])
def test_a_large_hostile_file_stays_within_a_bound_of_memory(tmp_path, kind):
    """A file of 2 to 4 MB, in a process of its own that may have 600 MB of addresses."""
    content = {
        "json": b'{"images":[' + b"[]," * 1_300_000 + b'[]],"annotations":[],"categories":[]}',
        "records": frame(b"\x0a\xff\xff\xff\xff\x0f" + b"\x80" * 4_000_000),
        "csv": b"filename,class,xmin,ymin,xmax,ymax\n" + b"a,b,x,,,\n" * 200_000,
    }[kind]
    name = {"json": "a.json", "records": "a.record", "csv": "a.csv"}[kind]
    (tmp_path / name).write_bytes(content)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (600 << 20,) * 2)\n"
        "from odtrain.labels.formats.recognise import Sources, read_labels\n"
        "folder = Path(sys.argv[1])\n"
        "labels, findings = read_labels(Sources(sorted(folder.iterdir())), folder, 'auto')\n"
        "print(len(labels.entries), len(findings) < 200)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert re.fullmatch(r"[01] True\n", done.stdout)


@pytest.mark.parametrize("seed", sorted(SEEDS.glob("*")), ids=lambda file: file.name)
def test_an_input_that_once_did_harm_does_none(tmp_path, seed):
    try_input(f"p1{seed.suffix}", seed.read_bytes(), tmp_path)


def test_no_broken_file_harms_a_reader(tmp_path):
    assert run(1000, 0, tmp_path, None) == 0


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "id image_id category_id bbox name file_name width height images annotations categories "
                "shapes imagePath label points shape_type image coordinates x y data result value "
                "rectanglelabels segmentation iscrowd attributes".split()
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)
SHAPES = st.one_of(
    st.fixed_dictionaries(
        {key: st.lists(ANYTHING) for key in ("images", "annotations", "categories")}
    ),
    st.fixed_dictionaries({"shapes": st.lists(ANYTHING), "imagePath": ANYTHING}),
    st.lists(
        st.fixed_dictionaries({"image": st.text(), "annotations": st.lists(ANYTHING)}), min_size=1
    ),
    st.lists(
        st.fixed_dictionaries(
            {
                "id": ANYTHING,
                "data": st.dictionaries(st.text(), ANYTHING),
                "annotations": st.lists(st.fixed_dictionaries({"result": st.lists(ANYTHING)})),
            }
        ),
        min_size=1,
    ),
)
GENTLE = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@GENTLE
@given(document=SHAPES)
def test_no_json_of_a_known_shape_harms_a_reader(tmp_path, document):
    try_input("p1.json", json.dumps(document).encode(), tmp_path)


@GENTLE
@given(text=st.text(st.sampled_from("0123456789.-+eEnaif \t\n,;x\u3000\x00\x85"), max_size=200))
def test_no_text_harms_the_readers_of_yolo_and_csv(tmp_path, text):
    try_input("p1.txt", text.encode("utf-8"), tmp_path)
    header = "filename,class,xmin,ymin,xmax,ymax\n"
    try_input("p1.csv", (header + text).encode("utf-8"), tmp_path)


@GENTLE
@given(
    features=st.dictionaries(
        st.sampled_from(
            "image/encoded image/filename image/width image/height image/object/bbox/xmin "
            "image/object/bbox/xmax image/object/bbox/ymin image/object/bbox/ymax "
            "image/object/class/text image/object/class/label image/object/difficult".split()
        ),
        st.one_of(
            st.tuples(st.just(BYTES), st.lists(st.binary(max_size=20), max_size=3)),
            st.tuples(st.just(FLOATS), st.lists(st.floats(width=32), max_size=3)),
            st.tuples(st.just(INTS), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)),
        ),
    )
)
def test_no_record_harms_a_reader(tmp_path, features):
    try_input("p1.record", frame(encode_example(features)), tmp_path)
