"""Proposals for new pictures, and corrections back into the data set, through the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from PIL import Image
from support.pictures import Labelled, draw_picture, label_picture
from support.tflite_files import write_constant_model

from odtrain.cli.main import main
from odtrain.dataset.prepare import prepare
from odtrain.labelling import merge as merging

BOXES = np.array([[[0.1, 0.1, 0.5, 0.5], [0.5, 0.5, 0.9, 0.9]]], np.float32)
"""On a picture of 100 x 80: x 10 to 50, y 8 to 40, and x 50 to 90, y 40 to 72."""
PROPOSED = {"circle": (10, 8, 50, 40), "square": (50, 40, 90, 72)}
SIZE = (100, 80)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Finds a circle, score 0.9, and a square, score 0.7, in any picture."""
    outputs = [
        ("detection_boxes", BOXES),
        ("detection_classes", np.array([[0, 1]], np.float32)),
        ("detection_scores", np.array([[0.9, 0.7]], np.float32)),
        ("num_detections", np.array([2], np.float32)),
    ]
    return write_constant_model(tmp_path / "model.tflite", outputs)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    file = tmp_path / "labels.txt"
    file.write_text("circle\nsquare\n", encoding="utf-8")
    return file


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A data set of six labelled pictures."""
    folder = tmp_path / "mine"
    for seed in range(6):
        objects: list[Labelled] = [("circle", 10, 10, 40, 40), ("square", 50, 40, 90, 70)]
        label_picture(folder / f"img{seed}.jpg", SIZE, objects, seed=seed)
    return folder


@pytest.fixture
def new(tmp_path: Path, mine: Path) -> Path:
    """Three new pictures, one of them twice, one that is labelled already, and a broken one."""
    folder = tmp_path / "새 사진"
    for seed in (20, 21, 22):
        draw_picture(folder / f"new {seed}.jpg", SIZE, [], seed)
    shutil.copy(folder / "new 20.jpg", folder / "twice.jpg")
    shutil.copy(mine / "img0.jpg", folder / "known.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken off")
    return folder


def run(capsys, monkeypatch, folder: Path, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.chdir(folder)
    status = main(["prelabel", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def proposed(capsys, monkeypatch, tmp_path: Path, model, names, mine, new) -> tuple[Path, str]:
    """The folder of proposals, and what the command said."""
    data = (f"data.images={mine}", "data.name=mine")
    status, out, err = run(
        capsys, monkeypatch, tmp_path,
        f"source={model}", f"input='{new}'", f"predict.label_map={names}", *data,
    )  # fmt: skip
    assert status == 0, err
    return tmp_path / "to_label", out


def verify(folder: Path, number: int, change: dict[str, tuple[int, ...] | str | None]) -> None:
    """Correct one picture as labelImg would: a new box, another name, or None to delete it."""
    (file,) = folder.glob(f"{number:05d}-*.xml")
    root = etree.parse(file).getroot()
    root.set("verified", "yes")
    for item in root.findall("object"):
        new = change.get(item.findtext("name"), "as it is")
        if new is None:
            root.remove(item)
        elif isinstance(new, tuple):
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), new, strict=True):
                item.find(f"bndbox/{tag}").text = str(value)
        elif new != "as it is":
            item.find("name").text = new
    file.write_bytes(etree.tostring(root))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_new_pictures_are_copied_with_what_was_found_in_them(proposed):
    folder, _ = proposed
    pictures = sorted(file.name for file in folder.glob("*.jpg"))
    assert [name[:9] for name in pictures] == ["00001-new", "00002-new", "00003-new"]
    root = etree.parse(folder / f"{Path(pictures[0]).stem}.xml").getroot()
    assert root.get("verified") is None
    assert root.findtext("filename") == pictures[0]
    found = {
        item.findtext("name"): tuple(int(edge.text) for edge in item.find("bndbox"))
        for item in root.findall("object")
    }
    assert found == PROPOSED


def test_the_class_list_is_there_for_the_labelling_tool(proposed):
    assert (proposed[0] / "classes.txt").read_text(encoding="utf-8") == "circle\nsquare\n"


def test_what_is_left_out_and_what_comes_next_is_said(proposed, mine):
    assert proposed[1].splitlines() == [
        "6 proposals in 3 pictures, the most worthwhile first: to_label",
        "Left out: 1 not readable, 1 in the data set already, 1 there twice.",
        "  correct them  labelImg to_label to_label/classes.txt to_label   "
        "(space bar: this picture is right)",
        f"  take them     odtrain prelabel merge input=to_label data.images={mine} data.name=mine",
    ]


def test_a_folder_that_may_hold_corrections_is_not_written_to(
    capsys, monkeypatch, tmp_path, proposed, model, names, new
):
    before = digests(proposed[0])
    arguments = (f"source={model}", f"input='{new}'", f"predict.label_map={names}")
    status, _, err = run(capsys, monkeypatch, tmp_path, *arguments)
    assert (status, err) == (
        1,
        "to_label: is there already, perhaps with corrections; nothing was written.\n"
        "  Take those first: odtrain prelabel merge. Or give a new folder: output=DIR.\n",
    )
    assert digests(proposed[0]) == before


def test_a_model_without_class_names_is_refused(capsys, monkeypatch, tmp_path, model, new):
    status, _, err = run(capsys, monkeypatch, tmp_path, f"source={model}", f"input='{new}'")
    assert (status, err) == (
        1,
        f"source={model}: carries no class names, so that labels cannot be written.\n"
        "  Give them: predict.label_map=FILE.\n",
    )


def merged(capsys, monkeypatch, tmp_path, mine) -> tuple[int, str, str]:
    arguments = ("merge", "input=to_label", f"data.images={mine}", "data.name=mine")
    return run(capsys, monkeypatch, tmp_path, *arguments)


def test_verified_pictures_go_into_the_data_set_and_the_others_stay(
    capsys, monkeypatch, tmp_path, proposed, mine
):
    verify(proposed[0], 1, {"circle": (10, 8, 60, 40)})
    verify(proposed[0], 2, {"circle": "square", "square": None})
    before = digests(mine)
    status, out, err = merged(capsys, monkeypatch, tmp_path, mine)
    assert status == 0, err
    lines = out.splitlines()
    assert lines[:2] == [
        "2 pictures taken into mine; 1 are not verified yet.",
        "  boxes: 1 kept (25% of what was proposed), 1 moved, 1 renamed, 0 added, 1 removed.",
    ]
    after = digests(mine)
    assert {name: after[name] for name in before} == before
    rows = json.loads((proposed[0] / "prelabel.json").read_text("utf-8"))["pictures"]
    taken = sorted(row["merged"] for row in rows if row["taken"])
    assert sorted(set(after) - set(before)) == sorted(
        [*taken, *(f"{Path(name).stem}.xml" for name in taken)]
    )


def test_a_box_that_was_not_proposed_is_added(capsys, monkeypatch, tmp_path, proposed, mine):
    verify(proposed[0], 1, {"circle": (60, 5, 95, 30)})  # elsewhere: another object
    _, out, _ = merged(capsys, monkeypatch, tmp_path, mine)
    assert out.splitlines()[1] == (
        "  boxes: 1 kept (50% of what was proposed), 0 moved, 0 renamed, 1 added, 1 removed."
    )


def test_what_was_taken_is_not_taken_again(capsys, monkeypatch, tmp_path, proposed, mine):
    verify(proposed[0], 1, {})
    merged(capsys, monkeypatch, tmp_path, mine)
    before = digests(mine)
    status, _, err = merged(capsys, monkeypatch, tmp_path, mine)
    assert (status, err) == (
        1,
        "to_label: holds no verified picture that was not taken before.\n"
        "  In labelImg, press the space bar on each picture that is right, and save.\n",
    )
    assert digests(mine) == before


def test_the_data_set_has_the_boxes_and_a_new_digest(capsys, monkeypatch, tmp_path, proposed, mine):
    from odtrain.config.compose import compose_config

    monkeypatch.chdir(tmp_path)
    config = compose_config([f"data.images={mine}", "data.name=mine"])
    first = prepare(config.data)
    verify(proposed[0], 1, {})
    _, out, _ = merged(capsys, monkeypatch, tmp_path, mine)
    second = prepare(config.data)
    assert out.splitlines()[2] == f"  data set: digest {first.digest[:16]} -> {second.digest[:16]}"
    pictures = sum(count["images"] for count in second.counts.values())
    boxes = sum(count["boxes"] for count in second.counts.values())
    assert (pictures, boxes) == (7, 14)


def test_a_name_that_is_taken_gets_a_number(capsys, monkeypatch, tmp_path, proposed, mine):
    manifest = json.loads((proposed[0] / "prelabel.json").read_text("utf-8"))
    manifest["pictures"][0]["source"] = "elsewhere/img1.jpg"
    (proposed[0] / "prelabel.json").write_text(json.dumps(manifest), encoding="utf-8")
    verify(proposed[0], 1, {})
    before = digests(mine)
    merged(capsys, monkeypatch, tmp_path, mine)
    assert sorted(set(digests(mine)) - set(before)) == ["img1-2.jpg", "img1-2.xml"]


def test_merging_goes_on_under_the_same_name_after_a_kill(
    capsys, monkeypatch, tmp_path, proposed, mine
):
    verify(proposed[0], 1, {})
    noted = merging._noted

    def killed(folder, source, rows, changed):
        if changed.taken:
            raise KeyboardInterrupt
        return noted(folder, source, rows, changed)

    monkeypatch.setattr(merging, "_noted", killed)
    assert merged(capsys, monkeypatch, tmp_path, mine)[0] == 130
    between = digests(mine)
    monkeypatch.setattr(merging, "_noted", noted)
    assert merged(capsys, monkeypatch, tmp_path, mine)[0] == 0
    assert digests(mine) == between


def test_corrections_with_errors_are_not_taken(capsys, monkeypatch, tmp_path, proposed, mine):
    verify(proposed[0], 1, {"circle": (10, 8, 500, 40)})
    before = digests(mine)
    status, _, err = merged(capsys, monkeypatch, tmp_path, mine)
    assert status == 1
    assert "leaves the picture, which is 100 wide and 80 high." in err
    assert digests(mine) == before


def test_a_data_set_of_another_format_is_refused(capsys, monkeypatch, tmp_path, proposed):
    yolo = tmp_path / "yolo"
    for seed in range(4):
        draw_picture(yolo / f"a{seed}.jpg", SIZE, [], 50 + seed)
        (yolo / f"a{seed}.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.2 0.2\n")
    (yolo / "classes.txt").write_text("circle\nsquare\n")
    verify(proposed[0], 1, {})
    status, _, err = merged(capsys, monkeypatch, tmp_path, yolo)
    assert (status, err) == (
        1,
        f"data.images={yolo}: is labelled as yolo, and corrections are Pascal VOC.\n"
        "  Convert it first: odtrain convert --to voc output=DIR.\n",
    )


def test_a_folder_without_proposals_is_told(capsys, monkeypatch, tmp_path, mine):
    status, _, err = run(capsys, monkeypatch, tmp_path, "merge", f"input={mine}")
    assert (status, err) == (
        1,
        f"{mine}/prelabel.json: holds no list of proposals.\n"
        "  Name a folder that odtrain prelabel has written: input=DIR.\n",
    )


def test_the_copies_are_the_users_bytes(proposed, new):
    contents = {file.read_bytes() for file in new.iterdir()}
    for copy in proposed[0].glob("*.jpg"):
        assert copy.read_bytes() in contents
        with Image.open(copy) as image:
            assert image.size == SIZE
