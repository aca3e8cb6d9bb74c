"""`odtrain convert`: what is written can be read again, whole, and nothing of the user's is touched."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree
from PIL import Image
from support.label_files import EVERYTHING, LABELLED, data, easy, read
from support.pictures import label_picture

from odtrain.cli.main import main
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig

FLAGS = (
    "  lost: 1 box marked difficult; {0} has no place for it\n"
    "  lost: 2 boxes marked truncated; {0} has no place for it\n"
    "  lost: 1 picture marked verified; {0} has no place for it\n"
)


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """Pictures and labelImg's files in one folder, `voc`, beside which the commands are run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(LABELLED / "pictures", "voc")
    shutil.copytree(LABELLED / "labelimg_voc", "voc", dirs_exist_ok=True)
    return tmp_path / "voc"


def objects_in(folder):
    found, findings = read(section(DataConfig, name="d", images=str(folder), prepared="nowhere"))
    assert {finding.severity for finding in findings} <= {"info", "warning", "error"}
    assert [f for f in findings if f.severity == "error" and f.code not in ("OD017", "OD018")] == []
    return found


def contents(folder):
    return {
        file.relative_to(folder): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("target", ["voc", "yolo", "coco", "csv"])
def test_labels_survive_the_way_there_and_back(voc, target, capsys):
    before = contents(voc)
    assert main(["convert", "input=voc", f"output=there/{target}", "--to", target]) == 0
    said = capsys.readouterr().out
    assert main(["convert", f"input=there/{target}", "output=back", "--to", "voc"]) == 0
    title = {"voc": "Pascal VOC XML", "yolo": "YOLO text", "coco": "COCO JSON"}.get(
        target, "CSV with the tutorial's columns"
    )
    assert said == (
        f"Pascal VOC XML to {title}: 4 pictures, 5 boxes\n"
        + ("" if target == "voc" else FLAGS.format(target))
        + f"wrote pictures and labels to there/{target}; to read them: data.images=there/{target}\n"
    )
    expected = EVERYTHING if target == "voc" else easy(EVERYTHING)
    assert objects_in(Path("there") / target) == expected
    assert objects_in("back") == expected
    assert contents(voc) == before
    pictures = {file.name: file.read_bytes() for file in Path("back/images").iterdir()}
    assert pictures == {file.name: file.read_bytes() for file in (LABELLED / "pictures").iterdir()}
    assert sorted(path.name for path in Path().iterdir()) == ["back", "there", "voc"]


def test_voc_keeps_flags_and_whole_numbers(voc):
    main(["convert", "input=voc", "output=yolo", "--to", "yolo"])
    main(["convert", "input=yolo", "output=back", "--to", "voc"])
    main(["convert", "input=voc", "output=same", "--to", "voc"])
    for name in ("p1", "p4"):
        corners = [
            [side.text for side in box]
            for box in etree.parse(f"back/annotations/{name}.xml").iter("bndbox")
        ]
        original = [
            [side.text for side in box] for box in etree.parse(f"voc/{name}.xml").iter("bndbox")
        ]
        assert corners == original
    assert etree.parse("same/annotations/p3.xml").getroot().get("verified") == "yes"
    assert [
        element.text for element in etree.parse("same/annotations/p1.xml").iter("truncated")
    ] == ["0", "1"]


def test_yolo_names_the_classes_and_the_split(voc):
    main(["convert", "input=voc", "output=yolo", "--to", "yolo"])
    assert Path("yolo/labels/classes.txt").read_text() == "circle\nred square\n단추\n"
    assert Path("yolo/labels/p1.txt").read_text() == (
        "0 0.250000000000 0.450000000000 0.333333333333 0.600000000000\n"
        "1 0.750000000000 0.443750000000 0.500000000000 0.862500000000\n"
    )
    listed = "".join(Path(f"yolo/{part}.txt").read_text() for part in ("train", "val", "test"))
    assert sorted(listed.splitlines()) == sorted(f"./images/{name}" for name in EVERYTHING)
    assert Path("yolo/data.yaml").read_text() == (
        "train: train.txt\nval: val.txt\ntest: test.txt\nnc: 3\n"
        "names:\n  0: circle\n  1: red square\n  2: 단추\n"
    )


def test_coco_is_what_pycocotools_reads(voc):
    from pycocotools.coco import COCO

    main(["convert", "input=voc", "output=coco", "--to", "coco"])
    truth = COCO("coco/annotations/instances.json")
    pictures = {
        picture["file_name"]: picture["id"] for picture in truth.loadImgs(truth.getImgIds())
    }
    assert sorted(pictures) == sorted(EVERYTHING)
    found = truth.loadAnns(truth.getAnnIds(imgIds=[pictures["p1.jpg"]]))
    assert [(one["bbox"], one["area"], one["iscrowd"]) for one in found] == [
        ([10, 12, 40, 48], 1920, 0),
        ([60, 1, 60, 69], 4140, 0),
    ]
    assert min(truth.anns) == 1


def test_csv_has_the_tutorials_columns_and_keeps_the_background(voc):
    main(["convert", "input=voc", "output=csv", "--to", "csv"])
    with Path("csv/labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    assert ["p3.jpg", "100", "100", "", "", "", "", ""] in rows
    assert ["p1.jpg", "120", "80", "red square", "60", "1", "120", "70"] in rows


def test_folders_of_a_split_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, part in enumerate(["train", "train", "train", "val", "test"]):
        label_picture(Path(f"d/images/{part}/{i}.png"), (64, 48), [("cat", 4, 6, 30, 40)], seed=i)
    for target in ("yolo", "coco", "csv"):
        assert main(["convert", "input=d", f"output={target}", "--to", target]) == 0
        assert Path(f"{target}/images/val/3.png").is_file()
    assert Path("yolo/labels/val/3.txt").is_file()
    assert Path("yolo/val.txt").read_text() == "./images/val/3.png\n"
    document = json.loads(Path("coco/annotations/instances.json").read_text())
    assert document["images"][0]["file_name"] == "test/4.png"
    assert len(objects_in("yolo")) == len(objects_in("coco")) == len(objects_in("csv")) == 5


def test_records_become_pictures_and_labels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(LABELLED / "tfrecord", "records")
    assert main(["convert", "input=records", "output=voc", "--to", "voc"]) == 0
    assert capsys.readouterr().out.startswith("TFRecord to Pascal VOC XML: 4 pictures, 5 boxes\n")
    assert sorted(p.name for p in Path("voc/images/train").iterdir()) == [
        "p  2.png",
        "p1.jpg",
        "p3.jpg",
    ]
    assert objects_in("voc") == easy(EVERYTHING)
    assert sorted(path.name for path in Path().iterdir()) == ["records", "voc"]


def test_one_label_file_may_be_the_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(LABELLED / "pictures", "d")
    shutil.copy(LABELLED / "label_studio/export.json", "d")
    shutil.copy(LABELLED / "labelimg_createml/labels.json", "d")
    assert main(["convert", "input=d/export.json", "output=out", "--to", "csv"]) == 0
    assert objects_in("out") == easy(EVERYTHING)


def test_labels_alone_can_be_written(voc, capsys):
    assert main(["convert", "input=voc", "output=out", "--to", "coco", "--labels-only"]) == 0
    assert capsys.readouterr().out.endswith(
        "wrote labels to out; to read them: data.annotations=out\n"
    )
    assert [str(path) for path in Path("out").rglob("*") if path.is_file()] == [
        "out/annotations/instances.json"
    ]


def test_boxes_with_fractions_of_pixels_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(LABELLED / "pictures", "d")
    Path("d/labels.csv").write_text(
        "filename,class,xmin,ymin,xmax,ymax\np1.jpg,cat,1.5,2,30,40\np4.jpg,cat,1,2,30,40\n"
    )
    assert main(["convert", "input=d", "output=out", "--to", "voc"]) == 0
    assert (
        "  boxes of 1 picture have fractions of pixels: labelImg cuts them off, the tutorial's "
        "xml_to_csv.py fails on them\n" in capsys.readouterr().out
    )


def test_a_picture_labelled_as_stored_loses_the_exif_that_would_turn_it(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    label_picture(Path("d/a.jpg"), (64, 48), [("cat", 4, 6, 30, 40)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("d/a.jpg").save("d/a.jpg", exif=exif)
    pixels = Image.open("d/a.jpg").tobytes()
    assert main(["convert", "input=d", "output=out", "--to", "yolo"]) == 0
    assert "  1 picture labelled as stored, though EXIF turns it: the copy has no EXIF\n" in (
        capsys.readouterr().out
    )
    copy = Image.open("out/images/a.jpg")
    assert (copy.size, copy.getexif().get(0x0112), copy.tobytes()) == ((64, 48), None, pixels)
    assert objects_in("out") == {"a.jpg": {("cat", 4.0, 6.0, 30.0, 40.0, False)}}


def refused(capsys, *arguments):
    status = main(["convert", *arguments])
    captured = capsys.readouterr()
    assert (status, captured.out) == (1, "")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ("input=voc", "output=full", "--to", "csv"),
            "full: is there already; nothing was written.\n"
            "  Give the name of a new folder: output=DIR\n",
            id="full folder",
        ),
        pytest.param(
            ("input=voc", "output=voc/new", "--to", "csv"),
            "voc/new: lies inside voc, whose data set would come to hold its own copy.\n"
            "  Give a folder elsewhere: output=DIR\n",
            id="inside the input",
        ),
        pytest.param(
            ("input=voc", "output=new", "--to", "cvs"),
            '--to: unknown "cvs".\n  Choose one of: coco, csv, voc, yolo.\n',
            id="format",
        ),
        pytest.param(
            ("input=voc", "output=new"),
            '--to: unknown "".\n  Choose one of: coco, csv, voc, yolo.\n',
            id="no format",
        ),
        pytest.param(
            ("input=voc", "--to", "csv"),
            "output: is not set.\n  Give a new folder, such as output=converted.\n",
            id="no output",
        ),
        pytest.param(
            ("input=gone", "output=new", "--to", "csv"),
            "gone: is not there, taken from HERE.\n  Set input= to a folder or a label file.\n",
            id="no input",
        ),
    ],
)
def test_what_cannot_be_converted_is_told(voc, capsys, arguments, message):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    assert refused(capsys, *arguments) == message.replace("HERE", str(Path.cwd()))
    assert sorted(path.name for path in Path().iterdir()) == ["full", "voc"]
    assert Path("full/mine.txt").read_text() == "mine"


def test_a_data_set_with_errors_is_not_converted(voc, capsys):
    (voc / "p1.xml").write_text("<annotation>")
    said = refused(capsys, "input=voc", "output=new", "--to", "csv")
    assert said.startswith(
        "voc: 1 error in the data; nothing was written.\n  error OD003 voc/p1.xml"
    )
    assert not Path("new").exists()


def test_a_full_disk_leaves_nothing(voc, small_disk, capsys):
    for i in range(30):
        label_picture(voc / f"more{i}.png", (64, 48), [("cat", 4, 6, 30, 40)], seed=i)
    said = refused(capsys, "input=voc", f"output={small_disk}/out", "--to", "yolo")
    assert re.search(
        r": cannot be written: No space left on device\.\n  Give another output=DIR", said
    )
    assert list(small_disk.iterdir()) == []


def test_a_kill_leaves_nothing_that_is_taken_for_whole(voc):
    for i in range(300):
        label_picture(voc / f"more{i}.png", (64, 48), [("cat", 4, 6, 30, 40)], seed=i)
    command = [
        sys.executable,
        "-m",
        "odtrain",
        "convert",
        "input=voc",
        "output=out",
        "--to",
        "yolo",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(Path().glob(".out.new-*/images")) and process.poll() is None:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("out").exists()
    assert list(Path().glob(".out.new-*"))
    assert main(["convert", "input=voc", "output=out", "--to", "yolo"]) == 0
    assert len(list(Path("out/images").iterdir())) == 304
    assert sorted(path.name for path in Path().iterdir()) == ["out", "voc"]


def test_a_large_export_may_lie_elsewhere(tmp_path):
    """`data.annotations` may be a file."""
    config = data(tmp_path, "cvat_coco_instances")
    one = Path(config.annotations) / "annotations/instances_train.json"
    objects, _ = read(replace(config, annotations=str(one)))
    assert sorted(objects) == ["p  2.png", "p1.jpg", "p3.jpg"]
