"""`odtrain demo pictures`: panels without labels, with labels and mistakes, and those that come later."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from odtrain.cli.main import main
from odtrain.collect.demo import RETAKEN
from odtrain.config.compose import compose_config
from odtrain.config.schema import DataConfig
from odtrain.dataset.check import check
from odtrain.dataset.repair import repair
from odtrain.findings import errors

MISTAKES = {
    ("OD012", "IMG_2027.xml"): 'no picture is called "IMG_2027" or "IMG_2027.jpg".',
    ("OD008", "img14.xml"): "leaves the picture, which is 216 wide and 240 high.",
    ("OD009", "img21.xml"): "x 13 to 13, y 113 to 171 has no area.",
    ("OD102", "img27.jpg"): "has no label file.",
    ("OD102", "img46.jpg"): "has no label file.",
    ("OD103", "img34.xml"): "says 4032 x 3024, img34.jpg has 240 x 180 pixels.",
    ("OD107", "img39.xml"): "is there twice.",
}
SLIPS = {
    ("OD113", "img3.xml"): 'class "flor" looks like a misspelling of "floor".',
    ("OD114", "img8.xml"): 'class "Alarm" looks like another spelling of "alarm".',
}
"""Looked for where there are no errors."""


def demo(folder: Path, *flags: str) -> Path:
    assert main(["demo", "pictures", *flags, "--to", str(folder)]) == 0
    return folder


def data(folder: Path, **values: str) -> DataConfig:
    place = str(folder.with_name("prepared"))
    config = compose_config([f"data.images={folder}", "data.name=lift"]).data
    return replace(config, prepared=place, **values)


def found(config: DataConfig) -> dict[tuple[str, str], str]:
    return {(one.code, Path(one.file).name): one.cause for one in check(config).findings}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo(tmp_path_factory.mktemp("demo") / "labelled", "--labelled")


def test_sixty_pictures_come_without_labels(tmp_path, capsys):
    folder = demo(tmp_path / "pictures")
    assert {*digests(folder)} == {f"img{number}.jpg" for number in range(1, 61)}
    assert capsys.readouterr().out == (
        f"{folder}: 60 pictures of elevator panels, img1.jpg to img60.jpg, without labels\n"
        f"  label them   labelImg {folder}\n"
        "  or go on     odtrain demo pictures --labelled --to DIR\n"
    )


def test_they_are_the_same_whenever_they_are_written(labelled, tmp_path):
    assert digests(demo(tmp_path / "labelled", "--labelled")) == digests(labelled)


def test_labelled_ones_are_the_same_pictures(labelled, tmp_path):
    pictures = digests(demo(tmp_path / "pictures"))
    assert pictures.items() <= digests(labelled).items()


def test_a_label_file_is_labelimg_s_of_that_folder(labelled):
    text = (labelled / "img1.xml").read_text(encoding="utf-8")
    assert text.startswith(
        "<annotation>\n\t<folder>labelled</folder>\n\t<filename>img1.jpg</filename>\n"
        "\t<path>labelled/img1.jpg</path>\n"
    )


def test_the_check_finds_every_mistake(labelled):
    assert found(data(labelled)) == MISTAKES


def test_with_the_faulty_left_out_there_is_no_error_and_the_slips_show(labelled):
    checked = check(data(labelled, faulty="leave_out"))
    assert errors(checked.findings) == []
    shown = {(one.code, Path(one.file).name): one.cause for one in checked.findings}
    assert MISTAKES.items() | SLIPS.items() <= shown.items()


def test_a_repaired_copy_has_none_of_the_mistakes(labelled, tmp_path):
    config, model = data(labelled), compose_config([]).model
    done = repair(config, model, str(tmp_path / "panels"), check(config, model))
    assert {one.code for one in done.findings}.isdisjoint(code for code, _ in MISTAKES | SLIPS)
    assert len(done.log.changes) == 5
    assert len(done.log.left_out) == 4


def test_later_ones_have_other_numbers_and_labels_without_a_mistake(tmp_path, labelled):
    later = demo(tmp_path / "later", "--labelled", "--more")
    assert {file.stem for file in later.iterdir()} == {f"img{n}" for n in range(61, 121)}
    assert {one.severity for one in check(data(later)).findings} <= {"info", "warning"}
    assert {code for code, _ in found(data(later))}.isdisjoint(code for code, _ in MISTAKES | SLIPS)


def test_some_of_the_later_ones_show_an_earlier_scene_again(tmp_path):
    demo(tmp_path / "all/first")
    demo(tmp_path / "all/later", "--labelled", "--more")
    for file in (tmp_path / "all/first").iterdir():
        file.with_suffix(".xml").write_text("<annotation></annotation>")
    _, near, _ = scenes = check(data(tmp_path / "all")).scenes
    again = {tuple(sorted(int(file.stem.removeprefix("img")) for file in group)) for group in near}
    assert again == {(earlier, later) for later, earlier in RETAKEN.items()}
    assert scenes.same == ()


@pytest.mark.parametrize("kind", ["a folder with a file in it", "a file"])
def test_what_is_there_is_not_touched(tmp_path, kind, capsys):
    folder = tmp_path / "pictures"
    mine = folder / "mine.txt" if kind.startswith("a folder") else folder
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    assert main(["demo", "pictures", "--to", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"{folder}: is there already and not empty; nothing was written.\n"
        "  Give the name of a new folder: --to DIR\n"
    )
    assert mine.read_text() == "mine"
