"""Labels that a model doubts: findings, the folder to look through, and what is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from support.pictures import Labelled, label_picture
from support.tflite_files import write_constant_model

from odtrain.cli.main import main
from odtrain.labelling import doubted, merge

SIZE = (100, 80)
CIRCLE, SQUARE = (10, 8, 50, 40), (50, 40, 90, 72)
"""xmin, ymin, xmax, ymax of what the model sees, circle with 0.9 and square with 0.8."""
LABELS: dict[str, list[Labelled]] = {
    "right": [("circle", *CIRCLE), ("square", *SQUARE)],
    "overlooked": [("circle", *CIRCLE)],
    "placed": [("circle", 30, 8, 70, 40), ("square", *SQUARE)],
    "classed": [("square", *CIRCLE), ("square", *SQUARE)],
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch) -> list[str]:
    """Settings that name four labelled pictures, one right and three wrong, in the folder where it is run."""
    for seed, (name, objects) in enumerate(LABELS.items()):
        label_picture(tmp_path / "mine" / f"{name}.jpg", SIZE, objects, seed=seed)
    monkeypatch.chdir(tmp_path)
    return ["data.images=mine", "data.name=mine", "predict.label_map=labels.txt"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Finds the circle and the square in any picture."""
    (tmp_path / "labels.txt").write_text("circle\nsquare\n", encoding="utf-8")
    boxes = np.array([[[0.1, 0.1, 0.5, 0.5], [0.5, 0.5, 0.9, 0.9]]], np.float32)
    outputs = [
        ("detection_boxes", boxes),
        ("detection_classes", np.array([[0, 1]], np.float32)),
        ("detection_scores", np.array([[0.9, 0.8]], np.float32)),
        ("num_detections", np.array([2], np.float32)),
    ]
    return write_constant_model(tmp_path / "model.tflite", outputs)


def check(capsys, *arguments: object) -> tuple[int, str, str]:
    status = main(["check", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def objects_in(file: Path) -> list[tuple[str, ...]]:
    root = etree.parse(file).getroot()
    return [
        (item.findtext("name"), *(edge.text for edge in item.find("bndbox")))
        for item in root.findall("object")
    ]


def verify(folder: Path, name: str) -> None:
    (file,) = folder.glob(f"*-{name}.xml")
    root = etree.parse(file).getroot()
    root.set("verified", "yes")
    file.write_bytes(etree.tostring(root))


def test_each_kind_of_doubt_is_a_finding_with_its_code(capsys, data, model):
    status, _, err = check(capsys, "--with", model, "--json", "doubts.json", *data)
    assert status == 0, err
    found = json.loads(Path("doubts.json").read_text(encoding="utf-8"))
    rows = [(each["code"], Path(each["file"]).name, each["box"], each["cause"]) for each in found]
    assert sorted(rows) == [
        ("OD141", "overlooked.xml", "square 50,40,90,72",
         "the model sees square here (score 0.80), where no label is."),
        ("OD142", "placed.xml", "circle 30,8,70,40",
         "the model places this circle elsewhere (score 0.90)."),
        ("OD143", "classed.xml", "square 10,8,50,40", "the model sees circle here (score 0.90)."),
    ]  # fmt: skip
    assert [each["seen"] for each in found if each["code"] == "OD142"] == ["circle 10,8,50,40"]


def test_what_was_found_and_what_comes_next_is_said(capsys, data, model):
    _, out, _ = check(capsys, "--with", model, *data)
    assert out.splitlines()[-3:] == [
        "3 doubts about 7 labels, in 3 of 4 pictures.",
        "  look at them  labelImg to_check to_check/classes.txt to_check   "
        "(as the model would have them; correct, then space bar)",
        "  take them     odtrain prelabel merge input=to_check data.images=mine data.name=mine",
    ]


def test_the_folder_shows_the_labels_as_the_model_would_have_them(capsys, data, model):
    check(capsys, "--with", model, *data)
    shown = {
        file.stem.partition("-")[2]: objects_in(file) for file in Path("to_check").glob("*.xml")
    }
    as_seen = [("circle", "10", "8", "50", "40"), ("square", "50", "40", "90", "72")]
    assert shown == dict.fromkeys(["overlooked", "placed", "classed"], as_seen)


def test_the_page_draws_the_label_and_what_the_model_sees(capsys, data, model):
    check(capsys, "--with", model, "--html", "doubts.html", *data)
    page = Path("doubts.html").read_text(encoding="utf-8")
    assert "mine: the labels that a model doubts" in page
    assert page.count("<img") >= 3


def test_what_was_verified_replaces_the_labels_and_the_old_ones_are_kept(capsys, data, model):
    check(capsys, "--with", model, *data)
    before = Path("mine/placed.xml").read_bytes()
    verify(Path("to_check"), "placed")
    assert main(["prelabel", "merge", "input=to_check", *data]) == 0
    assert objects_in(Path("mine/placed.xml"))[0] == ("circle", "10", "8", "50", "40")
    (kept,) = Path("to_check/before").iterdir()
    assert kept.read_bytes() == before
    assert objects_in(Path("mine/classed.xml"))[0][0] == "square"


def test_what_was_decided_is_not_asked_again(capsys, data, model):
    check(capsys, "--with", model, *data)
    (file,) = Path("to_check").glob("*-classed.xml")
    root = etree.parse(file).getroot()
    root.find("object/name").text = "square"  # the label was right
    root.set("verified", "yes")
    file.write_bytes(etree.tostring(root))
    assert main(["prelabel", "merge", "input=to_check", *data]) == 0
    capsys.readouterr()
    _, out, _ = check(capsys, "--with", model, "output=again", *data)
    assert (
        "2 doubts about 7 labels, in 2 of 4 pictures. 1 were looked at before and left out." in out
    )


def test_labels_that_were_changed_since_are_asked_about_again(capsys, data, model):
    check(capsys, "--with", model, *data)
    verify(Path("to_check"), "placed")
    assert main(["prelabel", "merge", "input=to_check", *data]) == 0
    label_picture(Path("mine/placed.jpg"), SIZE, LABELS["placed"], seed=2)
    capsys.readouterr()
    _, out, _ = check(capsys, "--with", model, "output=again", *data)
    assert "3 doubts about 7 labels, in 3 of 4 pictures.\n" in out


def test_labels_that_nobody_doubts_are_said_to_be_so(capsys, data, model):
    for name in ("overlooked", "placed", "classed"):
        label_picture(Path(f"mine/{name}.jpg"), SIZE, LABELS["right"], seed=3)
    status, out, _ = check(capsys, "--with", model, *data)
    assert (status, out) == (0, "Nothing doubtful among 8 labels in 4 pictures.\n")
    assert not Path("to_check").exists()


def test_a_folder_that_may_hold_corrections_is_not_written_to(capsys, data, model):
    check(capsys, "--with", model, *data)
    status, _, err = check(capsys, "--with", model, *data)
    assert (status, err) == (
        1,
        "to_check: is there already, perhaps with corrections; nothing was looked at.\n"
        "  Take those first: odtrain prelabel merge input=to_check. Or give a new folder: output=DIR.\n",
    )


def test_a_picture_that_is_gone_is_told_before_anything_is_changed(capsys, data, model):
    check(capsys, "--with", model, *data)
    for name in ("placed", "classed"):
        verify(Path("to_check"), name)
    for suffix in ("jpg", "xml"):
        Path(f"mine/classed.{suffix}").unlink()
    before = Path("mine/placed.xml").read_bytes()
    assert main(["prelabel", "merge", "input=to_check", *data]) == 1
    said = capsys.readouterr().err
    assert "classed.jpg: is not among the labelled pictures any more; nothing was changed." in said
    assert Path("mine/placed.xml").read_bytes() == before


def test_a_model_of_other_classes_is_refused(capsys, data, model):
    Path("labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    status, _, err = check(capsys, "--with", model, *data)
    assert status == 1
    assert err.splitlines()[0].endswith("knows the classes cat, dog; mine has circle, square.")


def test_what_is_decided_is_remembered_though_merging_was_cut_off(capsys, monkeypatch, data, model):
    check(capsys, "--with", model, *data)
    verify(Path("to_check"), "placed")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merge, "prepare", killed)
        assert main(["prelabel", "merge", "input=to_check", *data]) == 130
    label_picture(Path("mine/right.jpg"), SIZE, LABELS["placed"], seed=0)
    capsys.readouterr()
    _, out, _ = check(capsys, "--with", model, "output=again", *data)
    assert (
        "3 doubts about 7 labels, in 3 of 4 pictures. 1 were looked at before and left out." in out
    )


def test_labels_that_were_changed_meanwhile_are_kept_and_told(capsys, data, model):
    check(capsys, "--with", model, *data)
    for name in ("placed", "classed"):
        verify(Path("to_check"), name)
    file = Path("mine/placed.xml")
    changed = file.read_bytes().replace(b"<xmin>30<", b"<xmin>29<")
    file.write_bytes(changed)
    capsys.readouterr()
    assert main(["prelabel", "merge", "input=to_check", *data]) == 0
    (kept,) = Path("to_check/before").glob("*-placed.jpg.xml")
    assert kept.read_bytes() == changed
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"  1 had other labels by now than when they were doubted: {kept.stem}. Those are in to_check/before."
    )


def test_a_box_that_the_model_places_elsewhere_keeps_what_else_is_said_of_it(capsys, data, model):
    file = Path("mine/placed.xml")
    root = etree.parse(file).getroot()
    root.find("object/difficult").text = "1"
    file.write_bytes(etree.tostring(root))
    check(capsys, "--with", model, *data)
    (shown,) = Path("to_check").glob("*-placed.xml")
    flags = [each.findtext("difficult") for each in etree.parse(shown).getroot().findall("object")]
    assert flags == ["1", "0"]


def test_a_model_that_overlooks_most_is_said_to_be_no_witness(capsys, data, model):
    boxes = np.array([[[0.0, 0.9, 0.02, 0.92]]], np.float32)
    numbers = {"boxes": boxes, "classes": [[0]], "scores": [[0.2]]}
    outputs = [(f"detection_{key}", np.array(value, np.float32)) for key, value in numbers.items()]
    write_constant_model(model, [*outputs, ("num_detections", np.array([1], np.float32))])
    _, out, _ = check(capsys, "--with", model, *data)
    assert out.splitlines() == [
        "Nothing doubtful among 7 labels in 4 pictures.",
        "The model sees 0 of the 7 labels: it overlooks most, and what it does not doubt is not proven right. "
        "Train longer (train.steps), or name a better one.",
    ]


def test_a_folder_that_was_not_written_to_the_end_is_not_there(capsys, monkeypatch, data, model):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(doubted, "close_folder", killed)
        assert check(capsys, "--with", model, *data)[0] == 130
    assert not Path("to_check").exists()
    assert check(capsys, "--with", model, *data)[0] == 0


def test_the_command_that_takes_them_names_the_data_as_they_were_named(capsys, data, model):
    Path("labels").mkdir()
    for file in Path("mine").glob("*.xml"):
        file.rename(Path("labels", file.name))
    _, out, _ = check(capsys, "--with", model, *data, "data.annotations=labels", "data.prepared=p")
    assert out.splitlines()[-1] == (
        "  take them     odtrain prelabel merge input=to_check data.images=mine data.name=mine "
        "data.annotations=labels data.prepared=p"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--fix", "new"],
            "--with and --fix: are two ways to ask: --fix repairs what is wrong with files, not with what "
            "they say.\n  Give one of them.\n",
        ),
        (
            ["--html", "nowhere/page.html"],
            "nowhere/page.html: lies in no folder that is there.\n  Make it, or name another.\n",
        ),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_looked_at(capsys, data, model, flags, said):
    status, _, err = check(capsys, "--with", model, *flags, *data)
    assert (status, err) == (1, said)
    assert not Path("to_check").exists()


def test_an_empty_name_is_told(capsys, data):
    status, _, err = check(capsys, "--with", "", *data)
    assert (status, err) == (
        1, "--with: names nothing.\n  Name a model, or folds: --with SOURCE.\n"
    )  # fmt: skip
