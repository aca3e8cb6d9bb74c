"""Troubles that people reported of other tools, with data like theirs: cause, place and remedy."""

from __future__ import annotations

import gzip
import shutil

import pytest
from support.pictures import draw_picture, write_xml

from odtrain.config.compose import compose_config, section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check
from odtrain.dataset.repair import repair
from odtrain.io.tfrecord import BYTES, FLOATS, INTS, encode_example, frame

SIZE = (64, 48)
MODEL = compose_config([]).model
OF_FEW = ("OD110", "OD112", "OD115", "OD121", "OD122", "OD205", "OD210", "OD234")


def config(folder, **values):
    values = {"prepared": str(folder / "prepared"), "validation_fraction": 0, **values}
    return section(DataConfig, name="d", **{"images": str(folder), **values})


def told(folder, **values):
    """Code, file below the folder, cause and remedy of what is found, but how few pictures there are."""
    findings = check(config(folder, **values)).findings
    return [
        (each.code, each.file.removeprefix(f"{folder}/"), each.cause, each.remedy)
        for each in findings
        if each.code not in OF_FEW
    ]


def objects(folder, **values):
    """Picture -> class and corners of each object."""
    return {
        image.image.name: [(item.name, *image.corners(item)) for item in image.objects]
        for image in check(config(folder, **values)).images
    }


def pictures(folder, *names):
    for seed, name in enumerate(names):
        draw_picture(folder / name, SIZE, [], seed)


# ---- CVAT for video 1.1 (opencv/cvat issues 275 and 900)


def track(label, *boxes):
    rows = "".join(
        f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{x}" ytl="4" '
        f'xbr="{x + 10}" ybr="20"/>'
        for frame, outside, x in boxes
    )
    return f'<track id="0" label="{label}" source="manual">{rows}</track>'


def video(folder, *tracks):
    pictures(folder, *(f"frame_{i:06d}.jpg" for i in range(3)))
    meta = (
        "<meta><task><size>3</size><mode>interpolation</mode><original_size><width>64</width>"
        "<height>48</height></original_size></task></meta>"
    )
    text = f"<annotations><version>1.1</version>{meta}{''.join(tracks)}</annotations>"
    (folder / "annotations.xml").write_text(text, encoding="utf-8")


def test_the_tracks_of_a_video_are_taken_as_labels_of_its_frames(tmp_path):
    video(
        tmp_path,
        track("cup", (0, 0, 10), (1, 0, 12), (2, 1, 14)),
        track("pen", (1, 0, 30), (2, 1, 32)),
    )
    assert objects(tmp_path) == {
        "frame_000000.jpg": [("cup", "10", "4", "20", "20")],
        "frame_000001.jpg": [("cup", "12", "4", "22", "20"), ("pen", "30", "4", "40", "20")],
        "frame_000002.jpg": [],
    }


def test_a_track_with_a_hole_is_not_read_whole(tmp_path):
    video(tmp_path, track("cup", (0, 0, 10), (2, 0, 14)), track("pen", (1, 0, 30)))
    found = [each for each in told(tmp_path) if each[0] == "OD134"]
    cause = 'is not read whole: track "cup" has no shape between the frames 0 and 2.'
    assert [each[1:3] for each in found] == [("annotations.xml", cause)]


def test_a_picture_in_no_label_file_about_many_is_told_so(tmp_path):
    video(tmp_path, track("cup", (0, 0, 10), (1, 0, 12)))
    how = "save it without boxes in the tool that wrote the labels."
    assert [each for each in told(tmp_path) if each[0] == "OD102"] == [
        (
            "OD102",
            "frame_000002.jpg",
            "is in none of the label files.",
            f"It is left out. Label it; if it shows nothing to find, {how}",
        )
    ]


# ---- YOLO text (pjreddie/darknet issue 824, Yoable issue 7)


@pytest.mark.parametrize(
    ("line", "code", "cause", "remedy"),
    [
        pytest.param(
            "0, 0.5, 0.5, 0.25, 0.25",
            "OD032",
            'line 1 is "0, 0.5, 0.5, 0.25, 0.25", with "," between its numbers.',
            "Put blanks alone between the numbers.",
            id="commas",
        ),
        pytest.param(
            "0;0.5;0.5;0.25;0.25",
            "OD032",
            'line 1 is "0;0.5;0.5;0.25;0.25", with ";" between its numbers.',
            "Put blanks alone between the numbers.",
            id="semicolons",
        ),
        pytest.param(
            "0 0,548982 0,5 0,25 0,25",
            "OD032",
            'line 1 is "0 0,548982 0,5 0,25 0,25", with commas for points.',
            "Write each number with a point, as 0.5.",
            id="decimal commas",
        ),
        pytest.param(
            "cup 0.5 0.5 0.25 0.25",
            "OD032",
            'line 1 is "cup 0.5 0.5 0.25 0.25": "cup" is no class number.',
            "Write the class's number in the list of classes, the first is 0.",
            id="class name",
        ),
        pytest.param(
            "0 0.5 0.5 0.25",
            "OD032",
            'line 1 is "0 0.5 0.5 0.25", not class cx cy width height.',
            "Correct the line, or delete it.",
            id="too few",
        ),
        pytest.param(
            "1 1.02 0.5 0.25 0.25",
            "OD008",
            "line 1: leaves the picture, which is 64 wide and 48 high.",
            "Correct the line, or delete it.",
            id="outside",
        ),
        pytest.param(
            "0 0.5 0.5 -0.25 0.25",
            "OD009",
            "line 1: x 40 to 24, y 18 to 30 has no area.",
            "Correct the line, or delete it.",
            id="negative",
        ),
        pytest.param(
            "0 32 24 16 12",
            "OD008",
            "line 1: is in pixels; files of this format have fractions of the picture.",
            "Divide x and width by 64, y and height by 48; in a copy odtrain does it: odtrain check "
            "--fix NEW",
            id="pixels",
        ),
    ],
)
def test_a_bad_line_of_yolo_is_named_with_what_to_write(tmp_path, line, code, cause, remedy):
    pictures(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "classes.txt").write_text("cup\npen\n")
    (tmp_path / "a.txt").write_text(line)
    for good in "bc":
        (tmp_path / f"{good}.txt").write_text("0 0.5 0.5 0.25 0.25")
    found = [each for each in told(tmp_path) if each[0] in ("OD008", "OD009", "OD032")]
    assert found == [(code, "a.txt", cause, remedy)]


def test_pixels_in_yolo_are_taken_as_pixels_in_a_repaired_copy(tmp_path):
    folder = tmp_path / "d"
    pictures(folder, "a.jpg", "b.jpg")
    (folder / "classes.txt").write_text("cup\n")
    for name in "ab":
        (folder / f"{name}.txt").write_text("0 32 24 16 12")
    given = config(folder, prepared=str(tmp_path / "prepared"))
    repair(given, MODEL, str(tmp_path / "new"), check(given))
    found = objects(tmp_path / "new/images", annotations=str(tmp_path / "new/annotations"))
    assert found == {name: [("cup", "24", "18", "40", "30")] for name in ("a.jpg", "b.jpg")}


# ---- Ultralytics' tree


def test_class_names_are_found_in_the_data_yaml_one_folder_up(tmp_path):
    for part in ("train", "val", "test"):
        pictures(tmp_path / "images" / part, f"{part}.jpg")
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / f"{part}.txt").write_text("1 0.5 0.5 0.25 0.25")
    (tmp_path / "data.yaml").write_text("path: /datasets/x\nnames:\n  0: 전기 컵\n  1: pen\n")
    lies = {"images": str(tmp_path / "images"), "annotations": str(tmp_path / "labels")}
    splits = check(config(tmp_path, **lies)).splits
    assert {part: [i.objects[0].name for i in images] for part, images in splits.items()} == {
        part: ["pen"] for part in ("train", "validation", "test")
    }


# ---- names from Windows


def from_windows(folder):
    for i in range(3):
        draw_picture(folder / f"Img_{i}.JPG", SIZE, [], i)
        write_xml(folder / f"img_{i}.xml", f"IMG_{i}.jpg", SIZE, [("cup", 4, 6, 30, 40)])


def test_names_that_differ_in_case_alone_are_told_as_that(tmp_path):
    from_windows(tmp_path)
    remedy = "Give both names the same letters; in a copy odtrain does it: odtrain check --fix NEW"
    assert [each for each in told(tmp_path) if each[0] in ("OD012", "OD102")] == [
        (
            "OD012",
            f"img_{i}.xml",
            f'no picture is called "img_{i}" or "IMG_{i}.jpg"; "Img_{i}.JPG" differs in upper and lower '
            "case alone.",
            remedy,
        )
        for i in range(3)
    ]


def test_a_repaired_copy_joins_names_that_differ_in_case_alone(tmp_path):
    from_windows(tmp_path / "d")
    given = config(tmp_path / "d")
    done = repair(given, MODEL, str(tmp_path / "new"), check(given))
    assert len(objects(done.folder / "images", annotations=str(done.folder / "annotations"))) == 3
    assert [line for line in done.log.changes if line.startswith("OD012")] == [
        f'OD012 {tmp_path}/d/img_{i}.xml: no picture is called "img_{i}" or "IMG_{i}.jpg"; "Img_{i}.JPG" '
        "differs in upper and lower case alone. It was taken."
        for i in range(3)
    ]


def test_a_listed_name_that_differs_in_case_alone_is_told_as_that(tmp_path):
    from_windows(tmp_path)
    (tmp_path / "list.txt").write_text("IMG_0.JPG\n")
    found = told(tmp_path, train_list=str(tmp_path / "list.txt"))
    cause = 'no picture is called "IMG_0.JPG"; "Img_0.JPG" differs in upper and lower case alone.'
    assert [each[2] for each in found if each[0] == "OD015"] == [cause]


# ---- pictures that are something else (ultralytics/yolov5 issue 2446, jarun/imgp issue 21)


@pytest.mark.parametrize(
    ("start", "kind", "remedy"),
    [
        (
            b"\0\0\0\x18ftypheic",
            "HEIC",
            "Convert it: heif-convert OLD NEW.jpg, or with ImageMagick: magick OLD NEW.jpg",
        ),
        (
            b"\0\0\0\x18ftypavif",
            "AVIF",
            "Convert it: avifdec OLD NEW.jpg, or with ImageMagick: magick OLD NEW.jpg",
        ),
        (
            b"\0\0\0\x18ftypisom",
            "a video",
            "Save it as JPEG or PNG under the same name, 8 bits a channel.",
        ),
    ],
)
def test_a_picture_is_named_for_its_bytes_whatever_its_suffix(tmp_path, start, kind, remedy):
    pictures(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "c.jpg").write_bytes(start + b"\0" * 60)
    for name in "abc":
        write_xml(tmp_path / f"{name}.xml", f"{name}.jpg", SIZE, [("cup", 4, 6, 30, 40)])
    assert [each for each in told(tmp_path) if each[0] == "OD011"] == [
        ("OD011", "c.jpg", f"is {kind}, which is not read.", remedy)
    ]


# ---- tables (nicknochnack/TFODCourse issue 70, EdjeElectronics issue 159)

COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")


@pytest.mark.parametrize(("sign", "left"), [(";", "4"), (";", "4,0"), ("\t", "4.0")])
def test_a_table_with_another_sign_between_its_cells_is_read(tmp_path, sign, left):
    pictures(tmp_path, "a,0.jpg", "b.jpg")
    rows = [
        COLUMNS,
        *((n, "64", "48", "cup", left, "6", "30", "40") for n in ("a,0.jpg", "b.jpg")),
    ]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(sign.join(row) for row in rows), encoding="utf-8-sig")
    found = objects(tmp_path, annotations=str(table))
    assert found == {name: [("cup", "4", "6", "30", "40")] for name in ("a,0.jpg", "b.jpg")}


def test_a_row_with_more_cells_than_columns_is_named(tmp_path):
    pictures(tmp_path, "a,0.jpg", "b.jpg")
    row = "64,48,cup,4,6,30,40"
    (tmp_path / "t.csv").write_text(f"{','.join(COLUMNS)}\na,0.jpg,{row}\nb.jpg,{row}\n")
    found = [each for each in told(tmp_path, annotations=str(tmp_path / "t.csv"))]
    assert [each for each in found if each[0] in ("OD012", "OD032")] == [
        (
            "OD032",
            "t.csv",
            "line 2 has 9 cells, the first line 8.",
            'Put quotes, ", around what has "," in it.',
        )
    ]


NAME_ANOTHER = (
    "Name a file or a folder of them that is .xml, .txt, .json, .csv or .record and of a format in "
    "docs/formats.md."
)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        (
            "t.csv",
            "image;label\n",
            "its first line is image, label; needed are the columns class, filename, xmax, xmin, ymax, "
            "ymin.",
        ),
        (
            "t.json",
            '{"foo": 1}',
            "is JSON, an object with the keys foo, but not of coco, labelme, createml, label_studio.",
        ),
        ("t.txt", "a cup", "has lines that are not class cx cy width height, all numbers."),
        ("t.xlsx", "PK", "is no label file: .xlsx is not read."),
    ],
)
def test_a_file_named_as_labels_that_is_none_is_told_why(tmp_path, name, content, cause):
    pictures(tmp_path, "a.jpg")
    (tmp_path / name).write_text(content)
    found = told(tmp_path, annotations=str(tmp_path / name))
    assert found == [("OD031", name, cause, NAME_ANOTHER)]


def test_a_folder_without_labels_says_why_a_table_in_it_is_none(tmp_path):
    pictures(tmp_path, "a.jpg")
    (tmp_path / "t.csv").write_text("image,label\n")
    ((code, _, cause, _),) = told(tmp_path)
    assert (code, cause) == (
        "OD002",
        "holds no label files. t.csv its first line is image, label; needed are the columns class, "
        "filename, xmax, xmin, ymax, ymin.",
    )


# ---- XML in other encodings, or nearly XML


def xml(name, encoding="utf-8", declared="", inside="x"):
    text = (
        f"{declared}<annotation><path>{inside}</path><size><width>64</width><height>48</height></size>"
        f"<object><name>{name}</name><bndbox><xmin>4</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax>"
        "</bndbox></object></annotation>"
    )
    return text.encode(encoding)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(
            xml("컵", "cp949"),
            "2 XML files are not in the encoding that they should be; read as cp949.",
            id="cp949",
        ),
        pytest.param(
            xml("컵", "cp949", '<?xml version="1.0" encoding="utf-8"?>'),
            "2 XML files are not in the encoding that they should be; read as cp949.",
            id="cp949 that says it is UTF-8",
        ),
        pytest.param(
            xml("컵", "euc-kr", '<?xml version="1.0" encoding="EUC-KR"?>'), None, id="EUC-KR"
        ),
        pytest.param(xml("컵", "utf-16"), None, id="UTF-16"),
        pytest.param(
            xml("컵", declared='<?xml version="1.1" encoding="UTF-8"?>'), None, id="XML 1.1"
        ),
        pytest.param(
            xml("컵", declared='<?xml version="1.0" encoding="utf-16"?>'),
            "2 XML files begin with blanks or name another encoding; read as UTF-8.",
            id="UTF-8 that says it is UTF-16",
        ),
        pytest.param(
            xml("컵", declared='\n\n<?xml version="1.0"?>'),
            "2 XML files begin with blanks or name another encoding; read as UTF-8.",
            id="blank lines",
        ),
    ],
)
def test_xml_in_another_encoding_is_read_and_said(tmp_path, content, said):
    pictures(tmp_path, "a.jpg", "b.jpg")
    for name in "ab":
        (tmp_path / f"{name}.xml").write_bytes(content)
    found = objects(tmp_path)
    assert found == {name: [("컵", "4", "6", "30", "40")] for name in ("a.jpg", "b.jpg")}
    causes = [cause for code, _, cause, _ in told(tmp_path) if code == "OD233"]
    assert causes == [said] * (said is not None)


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        pytest.param(
            xml("컵", inside=r"C:\R&D\a.jpg"),
            "is not XML: line 1, column 23: a & stands alone.",
            "Write &amp; for a & that is meant as such.",
            id="bare &",
        ),
        pytest.param(
            xml("컵", inside="\na&nbsp;b"),
            "is not XML: line 2, column 2: &nbsp; is HTML's.",
            "Write &#160; instead.",
            id="HTML's",
        ),
        pytest.param(
            xml("컵", inside="&foo;"),
            "is not XML: line 1, column 19: &foo; stands for nothing.",
            "Write &amp; for a & that is meant as such.",
            id="unknown",
        ),
        pytest.param(
            xml("컵")[:-13],
            "is not XML: line 1, column 182: it ends before its tags are closed.",
            "Save it again in labelImg, or delete it.",
            id="broken off",
        ),
    ],
)
def test_what_is_not_xml_is_named_with_line_and_column(tmp_path, content, cause, remedy):
    pictures(tmp_path, "a.jpg")
    (tmp_path / "a.xml").write_bytes(content)
    assert [each for each in told(tmp_path) if each[0] == "OD003"] == [
        ("OD003", "a.xml", cause, remedy)
    ]


# ---- records (opencv/cvat issue 866)


def record(folder, box=(0.1, 0.1, 0.5, 0.5), name="t{}.jpg", **aside):
    """A file of two records; a feature given as None is left out."""
    folder.mkdir()
    framed = []
    for i in range(2):
        picture = draw_picture(folder / "p.jpg", SIZE, [], i).read_bytes()
        sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        features = {
            "image/encoded": (BYTES, [picture]),
            "image/filename": (BYTES, [name.format(i).encode()]),
            "image/object/class/text": (BYTES, [b"cup"]),
            "image/object/class/label": (INTS, [1]),
            **{f"image/object/bbox/{side}": (FLOATS, [at]) for side, at in sides.items()},
        }
        kept = {
            key: value for key, value in features.items() if key not in aside.get("without", ())
        }
        framed.append(frame(encode_example(kept)))
    (folder / "p.jpg").unlink()
    (folder / "train.record").write_bytes(b"".join(framed))
    return folder


def test_records_without_pictures_are_told_as_that(tmp_path):
    assert told(record(tmp_path / "d", without=["image/encoded"])) == [
        (
            "OD001",
            "train.record",
            "holds 2 records, but no picture: none has image/encoded.",
            "Write the records again with the pictures in them (CVAT: Save images), or give pictures and "
            "labels in another format.",
        )
    ]


def test_pictures_of_one_name_in_records_are_told_apart(tmp_path):
    found = objects(record(tmp_path / "d", name="same.jpg"))
    assert sorted(found) == ["same-2.jpg", "same.jpg"]
    assert {name for each in found.values() for name, *_ in each} == {"cup"}


def test_the_text_of_a_record_counts_and_another_number_is_told(tmp_path):
    folder = record(tmp_path / "d")
    (folder / "label_map.pbtxt").write_text("item { id: 1 name: 'pen' } item { id: 2 name: 'cup' }")
    assert {name for each in objects(folder).values() for name, *_ in each} == {"cup"}
    causes = [cause for code, _, cause, _ in told(folder) if code == "OD232"]
    assert causes == ["2 class numbers are left out: class/text is another name."]


def test_compressed_records_are_told_as_that(tmp_path):
    file = record(tmp_path / "d") / "train.record"
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert told(tmp_path / "d") == [
        (
            "OD030",
            "train.record",
            "is compressed by GZIP, and records are read uncompressed.",
            f"Unpack it: mv {file} {file}.gz && gunzip {file}.gz",
        )
    ]


def test_pixels_in_records_are_told_as_that(tmp_path):
    found = told(record(tmp_path / "d", box=(4, 6, 30, 40)))
    remedy = "Divide x and width by 64, y and height by 48; in a copy odtrain does it: odtrain check --fix NEW"
    said = "is in pixels; files of this format have fractions of the picture."
    assert [each for each in found if each[0] == "OD008"] == [
        ("OD008", "train.record", f'"train/t{i}.jpg": {said}', remedy) for i in range(2)
    ]


@pytest.mark.parametrize(
    ("text", "place", "cause", "remedy"),
    [
        (
            "item { id: 0 name: 'cup' }",
            ":1",
            '"cup" has id 0.',
            "Number the classes from 1; 0 is background.",
        ),
        (
            "item {\n id: 1\n name: 'cup'\n item { id: 2 name: 'pen' }\n}",
            ":4:2",
            "this item stands within the item of line 1.",
            'Close that one first, with "}".',
        ),
    ],
)
def test_a_label_map_that_cannot_be_used_is_the_one_error_of_records(
    tmp_path, text, place, cause, remedy
):
    folder = record(tmp_path / "d", without=["image/object/class/text"])
    (folder / "label_map.pbtxt").write_text(text)
    found = told(folder)
    errors = [each for each in found if each[0] not in ("OD017", "OD018", "OD230")]
    assert errors == [("OD020", f"label_map.pbtxt{place}", cause, remedy)]


def test_the_label_map_beside_a_record_file_named_by_hand_is_found(tmp_path):
    folder = record(tmp_path / "d", without=["image/object/class/text"])
    (folder / "label_map.pbtxt").write_text("item { id: 1 name: 'cup' }")
    (tmp_path / "empty").mkdir()
    shutil.move(folder / "train.record", folder / "train.tfrecord")
    found = objects(tmp_path / "empty", annotations=str(folder / "train.tfrecord"))
    assert found["t0.jpg"] == [("cup", "6.4", "4.8", "32", "24")]
