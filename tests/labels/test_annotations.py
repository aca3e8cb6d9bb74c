from __future__ import annotations

from pathlib import Path

import pytest
from support.pictures import write_xml

from odtrain.labels.annotations import Entry, LabelledObject, WrittenObject, place
from odtrain.labels.formats import voc
from odtrain.labels.formats.recognise import Sources

BOX = "<xmin>4</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax>"
BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]><annotation><filename>&lol9;</filename></annotation>"
)


def read_voc(files):
    reading = voc.read(Sources(files))
    return reading.entries, reading.findings


def voc_file(folder: Path, text: str, name: str = "img.xml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def entry(*objects: WrittenObject, size: tuple[int, int] | None = (100, 50)) -> Entry:
    return Entry(Path("img.xml"), ("img",), size, objects)


def written(*xyxy: float) -> WrittenObject:
    return WrittenObject("cat", (xyxy[0], xyxy[1], xyxy[2], xyxy[3]), False, False)


def test_labelimg_coordinates_are_kept_as_written(tmp_path):
    file = write_xml(tmp_path / "img.xml", "img.jpg", (64, 48), [("circle", 1, 6, 64, 48)])
    entries, findings = read_voc([file])
    assert findings == []
    assert entries == [
        Entry(
            file,
            ("img", "img.jpg"),
            (64, 48),
            (WrittenObject("circle", (1.0, 6.0, 64.0, 48.0), False, False),),
        )
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            "<bndbox><xmin>4</xmin><xmax>30</xmax><ymin>6</ymin><ymax>40</ymax></bndbox>",
            (4, 6, 30, 40),
            id="Roboflow's order",
        ),
        pytest.param(
            "<part><bndbox><xmin>0</xmin></bndbox></part><bndbox>" + BOX + "</bndbox>",
            (4, 6, 30, 40),
            id="a VOC part before the box",
        ),
        pytest.param(
            "<bndbox><xmin>4.5</xmin><ymin> 6 </ymin><xmax>3e1</xmax><ymax>40</ymax></bndbox>",
            (4.5, 6, 30, 40),
            id="fractions and blanks",
        ),
    ],
)
def test_boxes_are_read_by_tag_name(tmp_path, body, expected):
    file = voc_file(tmp_path, f"<annotation><object><name>a</name>{body}</object></annotation>")
    entries, findings = read_voc([file])
    assert findings == []
    assert entries[0].objects[0].xyxy == expected


def test_a_namespace_a_comment_and_a_bare_doctype_are_no_obstacle(tmp_path):
    file = voc_file(
        tmp_path,
        '<!DOCTYPE annotation><annotation xmlns="http://example.org"><!-- by hand -->'
        f"<object><name>a\t b</name><truncated>1</truncated><bndbox>{BOX}</bndbox></object>"
        "</annotation>",
    )
    entries, findings = read_voc([file])
    assert findings == []
    assert entries[0].objects == (WrittenObject("a b", (4.0, 6.0, 30.0, 40.0), False, True),)


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        pytest.param(r"C:\pictures\cat 1.jpg", ("img", "cat 1.jpg"), id="Windows path"),
        pytest.param("images/cat", ("img", "cat"), id="old labelImg, without suffix"),
        pytest.param("", ("img",), id="none"),
    ],
)
def test_the_file_name_in_the_label_is_a_second_name(tmp_path, filename, expected):
    file = voc_file(tmp_path, f"<annotation><filename>{filename}</filename></annotation>")
    assert read_voc([file])[0][0].names == expected


@pytest.mark.parametrize(
    ("text", "code", "cause"),
    [
        pytest.param("", "OD003", "is not XML: it is empty.", id="empty"),
        pytest.param(
            "0 0.5 0.5 0.2 0.2",
            "OD003",
            "is not XML: line 1, column 1: no tag begins there.",
            id="YOLO text",
        ),
        pytest.param(
            "<html></html>", "OD004", "begins with <html>, not with <annotation>.", id="html"
        ),
        pytest.param(BILLION_LAUGHS, "OD005", "declares XML entities.", id="bomb"),
        pytest.param(
            '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            "<annotation><filename>&x;</filename></annotation>",
            "OD005",
            "declares XML entities.",
            id="external entity",
        ),
        pytest.param(
            '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>',
            "OD005",
            "refers to a DTD that lies elsewhere.",
            id="external DTD",
        ),
    ],
)
def test_a_file_that_is_no_label_file_is_a_finding(tmp_path, text, code, cause):
    entries, (finding,) = read_voc([voc_file(tmp_path, text)])
    assert entries == []
    assert (finding.code, finding.severity, finding.cause) == (code, "error", cause)
    assert finding.file == str(tmp_path / "img.xml")


def test_an_entity_is_not_followed_in_any_encoding(tmp_path):
    (tmp_path / "secret").write_text("secret")
    text = (
        f'<!DOCTYPE annotation [<!ENTITY x SYSTEM "{(tmp_path / "secret").as_uri()}">]>'
        "<annotation><filename>&x;</filename></annotation>"
    )
    (tmp_path / "img.xml").write_bytes(text.encode("utf-16"))
    entries, (finding,) = read_voc([tmp_path / "img.xml"])
    assert entries == []
    assert (finding.code, finding.cause) == ("OD005", "uses XML entities.")


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        pytest.param(f"<bndbox>{BOX}</bndbox>", "object 2 has no <name>.", id="name"),
        pytest.param("<name>cat</name>", 'object 2, "cat", has no <bndbox>.', id="box"),
        pytest.param(
            "<name>cat</name><bndbox><xmin>nan</xmin></bndbox>",
            'object 2, "cat": <xmin> is "nan", not a number.',
            id="number",
        ),
    ],
)
def test_an_incomplete_object_is_a_finding_and_the_others_are_kept(tmp_path, body, cause):
    good = f"<object><name>dog</name><bndbox>{BOX}</bndbox></object>"
    file = voc_file(tmp_path, f"<annotation>{good}<object>{body}</object></annotation>")
    (only,), (finding,) = read_voc([file])
    assert [item.name for item in only.objects] == ["dog"]
    assert (finding.code, finding.cause) == ("OD006", cause)


def test_a_box_is_placed_as_fractions_in_yxyx_order():
    objects, findings = place(entry(written(10, 5, 60, 30)), width=100, height=50)
    assert findings == []
    assert objects == (LabelledObject("cat", (0.1, 0.1, 0.6, 0.6), False, False),)


@pytest.mark.parametrize(
    ("xyxy", "code", "cause"),
    [
        pytest.param((10, 5, 10, 30), "OD009", "x 10 to 10, y 5 to 30 has no area.", id="no width"),
        pytest.param(
            (60, 5, 10, 30), "OD009", "x 60 to 10, y 5 to 30 has no area.", id="inside out"
        ),
        pytest.param(
            (10, 5, 101.5, 30),
            "OD008",
            "leaves the picture, which is 100 wide and 50 high.",
            id="right of it",
        ),
        pytest.param(
            (100, 5, 101, 30),
            "OD008",
            "leaves the picture, which is 100 wide and 50 high.",
            id="wholly outside by a pixel",
        ),
        pytest.param(
            (-2, 5, 60, 30),
            "OD008",
            "leaves the picture, which is 100 wide and 50 high.",
            id="left of it",
        ),
    ],
)
def test_a_box_that_cannot_be_is_an_error_and_left_out(xyxy, code, cause):
    objects, (finding,) = place(entry(written(*xyxy)), width=100, height=50)
    assert objects == ()
    assert (finding.code, finding.severity, finding.cause) == (code, "error", cause)
    assert finding.box == "cat " + ",".join(f"{value:g}" for value in xyxy)


def test_a_box_that_leaves_the_picture_by_a_pixel_is_clipped_with_a_warning():
    objects, (finding,) = place(entry(written(-0.5, 0, 101, 50)), width=100, height=50)
    assert objects[0].yxyx == (0.0, 0.0, 1.0, 1.0)
    assert (finding.code, finding.severity) == ("OD104", "warning")
    assert finding.cause == "leaves the picture by 1 pixels."


def test_an_object_labelled_twice_is_kept_once():
    objects, (finding,) = place(entry(written(1, 1, 9, 9), written(1, 1, 9, 9)), 100, 50)
    assert len(objects) == 1
    assert (finding.code, finding.box) == ("OD107", "cat 1,1,9,9")


def test_the_raccoon_labels_are_read_without_a_finding(shared):
    entries, findings = read_voc(sorted((shared / "data/raccoon/annotations").glob("*.xml")))
    assert findings == []
    assert len(entries) == 200
    assert sum(len(found.objects) for found in entries) == 217
    assert sum(item.truncated for found in entries for item in found.objects) == 59
