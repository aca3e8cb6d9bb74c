"""What is faulty: shown in every kind, repaired by one command, or left out by `data.faulty=leave_out`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.pictures import label_picture, write_xml

from odtrain.cli.main import main
from odtrain.config.compose import section
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check
from odtrain.dataset.prepare import prepare
from odtrain.dataset.ways_out import ways_out
from odtrain.errors import DataError
from odtrain.findings import KINDS, SCREEN_LINES, Finding, errors, findings_screen

SIZE = (64, 48)
CAT = [("cat", 4, 6, 30, 40)]


@pytest.fixture
def pets(tmp_path):
    """Ten pictures: of one a box has no area, of one all, one is cut off, one label file is no XML."""
    folder = tmp_path / "pets"
    for i in range(10):
        label_picture(folder / f"p{i}.jpg", SIZE, CAT, seed=i)
    write_xml(folder / "p0.xml", "p0.jpg", SIZE, [*CAT, ("cat", 5, 6, 5, 40)])
    write_xml(folder / "p1.xml", "p1.jpg", SIZE, [("cat", 5, 6, 5, 40)])
    whole = (folder / "p2.jpg").read_bytes()
    (folder / "p2.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "p3.xml").write_text("nonsense")
    return folder


def config(folder, **values):
    places = {"images": str(folder), "prepared": str(folder.parent / "prepared")}
    return section(DataConfig, name="pets", **{**places, **values})


def used(dataset):
    """The pictures of all splits, with how many boxes."""
    counts = {}
    for split in ("train", "validation", "test"):
        with (dataset.folder / f"{split}_labels.csv").open() as stream:
            for row in csv.DictReader(stream):
                counts[row["filename"]] = counts.get(row["filename"], 0) + bool(row["class"])
    return counts


def test_what_is_faulty_is_an_error_by_default(pets):
    with pytest.raises(DataError, match="4 errors in the data; nothing was written"):
        prepare(config(pets))


def test_what_is_faulty_can_be_left_out(pets):
    dataset = prepare(config(pets, faulty="leave_out"))
    assert used(dataset) == {f"p{i}.jpg": 1 for i in (0, 4, 5, 6, 7, 8, 9)}
    assert errors(dataset.findings) == []


def test_what_is_left_out_is_listed_in_the_folder_of_the_data_set(pets):
    dataset = prepare(config(pets, faulty="leave_out"))
    with (dataset.folder / "left_out.csv").open() as stream:
        rows = [
            (row["code"], Path(row["file"]).name, row["box"], row["cause"])
            for row in csv.DictReader(stream)
        ]
    assert [row for row in rows if row[0] != "OD010"] == [
        ("OD003", "p3.xml", "", "is not XML: line 1, column 1: no tag begins there."),
        ("OD009", "p0.xml", "cat 5,6,5,40", "x 5 to 5, y 6 to 40 has no area."),
        ("OD009", "p1.xml", "cat 5,6,5,40", "x 5 to 5, y 6 to 40 has no area."),
        ("OD136", "p1.jpg", "", "none of its boxes can be used, so that it is left out too."),
    ]
    assert [row[1] for row in rows if row[0] == "OD010"] == ["p2.jpg"]


def test_the_list_goes_when_nothing_is_left_out_any_more(pets):
    file = prepare(config(pets, faulty="leave_out")).folder / "left_out.csv"
    assert file.is_file()
    for i in range(4):
        label_picture(pets / f"p{i}.jpg", SIZE, CAT, seed=i)
    prepare(config(pets, faulty="leave_out"))
    assert not file.exists()


def test_a_set_of_which_most_is_faulty_is_an_error_all_the_same(pets):
    for i in range(4, 8):
        write_xml(pets / f"p{i}.xml", f"p{i}.jpg", SIZE, [("cat", 5, 6, 5, 40)])
    found = errors(check(config(pets, faulty="leave_out")).findings)
    assert [(each.code, each.cause) for each in found] == [
        ("OD035", "7 of 10 labelled pictures would be left out as faulty.")
    ]


@pytest.mark.parametrize(
    ("name", "content", "left"),
    [
        ("p0.txt", "0 .5 .5 .2", ["p1.txt"]),
        ("p0.txt", "9 .5 .5 .2 .2\n0 .5 .5 .2 .2", ["p0.txt", "p1.txt"]),
    ],
)
def test_a_picture_whose_only_line_is_wrong_is_no_background(tmp_path, name, content, left):
    folder = tmp_path / "d"
    for i in range(2):
        label_picture(folder / f"p{i}.jpg", SIZE, [], seed=i).unlink()
        (folder / f"p{i}.txt").write_text("0 .5 .5 .2 .2")
    (folder / "classes.txt").write_text("cat\n")
    (folder / name).write_text(content)
    found = check(config(folder, faulty="leave_out", validation_fraction=0))
    assert sorted(image.label_file.name for image in found.images) == left


# ---- what check and prepare say


def test_check_ends_with_the_command_that_repairs_and_the_command_does(
    pets, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(pets)
    assert main(["check", "data.images=.", "data.name=pets"]) == 1
    *_, title, command, leave = capsys.readouterr().out.splitlines()
    assert title == "To put right or leave out what can be in a copy (4 errors):"
    assert (
        command
        == f"  odtrain check data.images={pets} data.name=pets --fix {tmp_path}/pets-repaired"
    )
    assert leave == "Without a copy: data.faulty=leave_out"
    assert main(command.split()[1:]) == 0
    assert len(list((tmp_path / "pets-repaired/images").iterdir())) == 7


def test_nothing_is_said_of_repairing_what_cannot_be_repaired(tmp_path):
    assert ways_out(config(tmp_path), [Finding.of("OD002", tmp_path, "x.")]) == []


def test_the_command_names_all_that_changes_what_is_found(tmp_path):
    given = config(tmp_path / "a b", annotations=str(tmp_path / "l"), format="voc", crowd="take")
    lines = ways_out(given, [Finding.of("OD009", "f", "x.")])
    assert lines[1] == (
        f"  odtrain check 'data.images={tmp_path}/a b' data.annotations={tmp_path}/l data.format=voc "
        f"data.crowd=take data.name=pets --fix {tmp_path.parent}/pets-repaired"
    )


@pytest.mark.parametrize("of_each", [1, 2, 40, 3000])
def test_every_kind_of_finding_is_on_the_screen(of_each):
    findings = [Finding.of(code, f"f{i}", "x.") for code in KINDS for i in range(of_each)]
    screen = findings_screen(findings)
    assert all(code in screen for code in KINDS)
    assert len(screen.splitlines()) <= len(KINDS) + 2


def test_few_kinds_are_shown_with_as_many_as_there_is_room_for():
    findings = [Finding.of(code, f"f{i}", "x.") for code in list(KINDS)[:7] for i in range(9)]
    screen = findings_screen(findings).splitlines()
    assert len(screen) == 7 * (2 * 3 + 1) + 1 <= SCREEN_LINES
    assert screen[6] == "error OD001: 6 more, no pictures."


def test_prepare_shows_an_error_of_every_kind_however_many_there_are_of_one(tmp_path):
    folder = tmp_path / "d"
    for i in range(12):
        label_picture(folder / f"p{i}.jpg", SIZE, [("cat", 5, 6, 5, 40)] * 100, seed=i)
    (folder / "p9.jpg").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepare(config(folder))
    shown = [line.split()[1] for line in str(caught.value).splitlines()[1:11]]
    assert set(shown) == {"OD009", "OD010"}
