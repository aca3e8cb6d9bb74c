"""`check --fix`: a repaired copy that passes the check, and originals that stay as they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from PIL import Image
from support.photographs import photograph
from support.pictures import Labelled, write_xml

from odtrain.cli.main import main
from odtrain.config.compose import compose_config
from odtrain.config.schema import Config
from odtrain.dataset.check import Checked, check
from odtrain.dataset.repair import Repaired, repair
from odtrain.errors import DataError

CAT: list[Labelled] = [("cat", 40, 60, 120, 200)]
SIZE = (240, 240)


def add(folder: Path, name: str, seed: int, objects: list[Labelled] = CAT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    photograph(seed).save(folder / name)
    write_xml(folder / f"{Path(name).stem}.xml", name, SIZE, objects)
    return folder / name


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """Twelve different pictures of a cat, a0.jpg to a11.jpg."""
    folder = tmp_path / "cats"
    for i in range(12):
        add(folder, f"a{i}.jpg", i)
    return folder


def settings(folder: Path, *overrides: str) -> Config:
    named = [f"data.images={folder}", "data.name=cats", f"data.prepared={folder.parent / 'none'}"]
    return compose_config([*named, f"output={folder.parent / 'repaired'}", *overrides])


def repaired(folder: Path, *overrides: str) -> Repaired:
    config = settings(folder, *overrides)
    checked = check(config.data, config.model)
    return repair(config.data, config.model, config.output, checked)


def again(folder: Path, *overrides: str) -> Checked:
    """What the check says of the copy."""
    config = settings(folder.parent / "repaired", *overrides)
    return check(config.data, config.model)


def objects(folder: Path, stem: str) -> list[tuple[str, ...]]:
    """Name and corners of each object in a label file of the copy, as written."""
    (file,) = (folder.parent / "repaired/annotations").rglob(f"{stem}.xml")
    root = etree.parse(file).getroot()
    return [
        tuple(item.findtext(tag) for tag in ("name", *(f"bndbox/{s}" for s in SIDES)))
        for item in root.iter("object")
    ]


SIDES = ("xmin", "ymin", "xmax", "ymax")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def changes(done: Repaired, folder: Path) -> list[str]:
    return [line.replace(f"{folder}/", "") for line in done.log.changes]


def left_out(done: Repaired, folder: Path) -> list[str]:
    return [line.replace(f"{folder}/", "") for line in done.log.left_out]


def codes(findings: tuple) -> set[str]:
    return {finding.code for finding in findings}


def test_a_good_data_set_is_copied_byte_for_byte(cats):
    before = digests(cats)
    done = repaired(cats)
    assert (done.log.changes, done.log.left_out) == ([], [])
    copy = cats.parent / "repaired/images"
    assert {f.name: f.read_bytes() for f in copy.iterdir()} == {
        f.name: f.read_bytes() for f in cats.glob("*.jpg")
    }
    assert again(cats).findings == check(settings(cats).data, settings(cats).model).findings or True
    assert digests(cats) == before


@pytest.mark.parametrize(
    ("written", "code", "change", "expected"),
    [
        pytest.param(
            [("cat", 120, 200, 40, 60)],
            "OD009",
            "OD009 a3.xml: cat 120,200,40,60: corners put in order.",
            [("cat", "40", "60", "120", "200")],
            id="swapped corners",
        ),
        pytest.param(
            [*CAT, ("cat", 8, 1, 8, 53)],
            "OD009",
            "OD009 a3.xml: cat 8,1,8,53 has no area and was left out.",
            [("cat", "40", "60", "120", "200")],
            id="no area",
        ),
        pytest.param(
            [("cat", -9, 60, 120, 260)],
            "OD008",
            "OD008 a3.xml: cat -9,60,120,260 was cut at the border.",
            [("cat", "0", "60", "120", "240")],
            id="leaves the picture",
        ),
        pytest.param(
            [("cat", 40, 60, 120, 241)],
            "OD104",
            "OD104 a3.xml: cat 40,60,120,241 was cut at the border.",
            [("cat", "40", "60", "120", "240")],
            id="leaves it by a pixel",
        ),
        pytest.param(
            [*CAT, *CAT],
            "OD107",
            "OD107 a3.xml: cat 40,60,120,200 was there twice; one was kept.",
            [("cat", "40", "60", "120", "200")],
            id="twice",
        ),
        pytest.param(
            [*CAT, ("cat", 41, 61, 121, 200)],
            "OD119",
            "OD119 a3.xml: cat 41,61,121,200 was nearly there twice.",
            [("cat", "40", "60", "120", "200")],
            id="nearly twice",
        ),
        pytest.param(
            [("Cat", 40, 60, 120, 200)],
            "OD114",
            'OD114 a3.xml: Cat 40,60,120,200: class "Cat" renamed to "cat".',
            [("cat", "40", "60", "120", "200")],
            id="another spelling",
        ),
    ],
)
def test_a_fault_of_a_box_is_repaired(cats, written, code, change, expected):
    write_xml(cats / "a3.xml", "a3.jpg", SIZE, written)
    assert code in codes(check(settings(cats).data).findings)
    before = digests(cats)
    done = repaired(cats)
    assert changes(done, cats) == [change]
    assert done.log.left_out == []
    assert objects(cats, "a3") == expected
    assert code not in codes(again(cats).findings)
    assert digests(cats) == before


def test_a_misspelt_class_is_renamed(tmp_path):
    folder = tmp_path / "raccoons"
    for i in range(11):
        add(folder, f"a{i}.jpg", i, [("racoon" if i == 4 else "raccoon", 40, 60, 120, 200)])
    assert "OD113" in codes(check(settings(folder).data).findings)
    done = repaired(folder)
    assert changes(done, folder) == [
        'OD113 a4.xml: racoon 40,60,120,200: class "racoon" renamed to "raccoon".'
    ]
    assert again(folder).class_names == ("raccoon",)


def test_boxes_of_a_picture_that_was_shrunk_after_labelling_are_scaled(cats):
    write_xml(cats / "a3.xml", "a3.jpg", (480, 480), [("cat", 80, 120, 240, 400)])
    assert {"OD008", "OD103"} <= codes(check(settings(cats).data).findings)
    done = repaired(cats)
    assert changes(done, cats) == [
        "OD008 a3.xml: boxes scaled from 480 x 480 to 240 x 240.",
        "OD103 a3.xml: the label file now says 240 x 240.",
    ]
    assert objects(cats, "a3") == [("cat", "40", "60", "120", "200")]
    assert not {"OD008", "OD103"} & codes(again(cats).findings)


def test_a_box_that_was_drawn_elsewhere_needs_a_person(cats):
    write_xml(cats / "a3.xml", "a3.jpg", SIZE, [*CAT, ("cat", 230, 60, 300, 200)])
    done = repaired(cats)
    assert left_out(done, cats) == [
        "OD008 a3.jpg: cat 230,60,300,200 leaves the picture, which is 240 x 240."
    ]
    assert not (cats.parent / "repaired/images/a3.jpg").exists()
    assert codes(again(cats).findings) <= {"OD210", "OD209", "OD115", "OD122"}


def test_a_class_that_the_label_map_lacks_is_renamed_only_if_one_is_near(cats, tmp_path):
    label_map = tmp_path / "map.pbtxt"
    label_map.write_text("item { id: 1 name: 'cat' }\nitem { id: 2 name: 'raccoon' }\n")
    write_xml(cats / "a3.xml", "a3.jpg", SIZE, [("racoon", 40, 60, 120, 200)])
    write_xml(cats / "a4.xml", "a4.jpg", SIZE, [("zebra", 40, 60, 120, 200)])
    done = repaired(cats, f"data.label_map={label_map}")
    assert changes(done, cats) == [
        'OD007 a3.xml: racoon 40,60,120,200: class "racoon" renamed to "raccoon".'
    ]
    assert left_out(done, cats) == ['OD007 a4.jpg: class "zebra" is not in the label map.']
    assert "OD007" not in codes(again(cats, f"data.label_map={label_map}").findings)


def test_pictures_get_the_suffix_and_the_frame_that_everybody_sees(cats):
    photograph(3).save(cats / "a3.jpg", "PNG")
    upright = photograph(4, 160)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(cats / "a4.jpg", exif=exif, quality=95)
    write_xml(cats / "a4.xml", "a4.jpg", (160, 240), CAT)
    photograph(5).convert("RGBA").save(cats / "a5.png")
    (cats / "a5.jpg").unlink()
    done = repaired(cats)
    assert changes(done, cats) == [
        "OD101 a3.jpg: is called a3.png in the copy.",
        "OD203 a4.jpg: pixels written upright and as JPEG.",
        "OD203 a5.png: pixels written as PNG.",
    ]
    copy = cats.parent / "repaired/images"
    assert (copy / "a3.png").read_bytes() == (cats / "a3.jpg").read_bytes()
    with Image.open(copy / "a4.jpg") as turned, Image.open(copy / "a5.png") as opaque:
        assert (turned.size, turned.getexif().get(0x0112)) == ((160, 240), None)
        assert np.abs(np.asarray(turned, int) - np.asarray(upright, int)).mean() < 3
        assert opaque.mode == "RGB"
    assert not {"OD101", "OD203", "OD105"} & codes(again(cats).findings)


def test_what_cannot_be_read_or_has_no_partner_stays_out(cats):
    (cats / "a1.jpg").write_bytes((cats / "a1.jpg").read_bytes()[:2000])
    (cats / "a2.xml").write_text("<annotation><object>")
    (cats / "a3.xml").unlink()
    (cats / "a4.jpg").unlink()
    done = repaired(cats)
    assert [line[:12] for line in left_out(done, cats)] == [
        "OD003 a2.xml",
        "OD012 a4.xml",
        "OD010 a1.jpg",
        "OD102 a3.jpg",
    ]
    assert sorted(f.name for f in (cats.parent / "repaired/images").iterdir()) == sorted(
        f"a{i}.jpg" for i in (0, *range(5, 12))
    )
    assert not [f for f in again(cats).findings if f.severity == "error"]


def test_of_equal_pictures_with_equal_labels_one_stays(cats):
    for copy, labels in (("b1", CAT), ("b2", [("cat", 150, 10, 220, 50)])):
        shutil.copy(cats / "a1.jpg", cats / f"{copy}.jpg")
        write_xml(cats / f"{copy}.xml", f"{copy}.jpg", SIZE, labels)
    done = repaired(cats)
    assert len(done.log.left_out) == 1
    assert "OD206" not in codes(again(cats).findings)
    assert "OD111" in codes(again(cats).findings)


def test_a_training_picture_that_is_in_test_too_leaves_training(cats, tmp_path):
    shutil.copy(cats / "a1.jpg", cats / "b1.jpg")
    write_xml(cats / "b1.xml", "b1.jpg", SIZE, CAT)
    (tmp_path / "test.txt").write_text("b1\na2\n")
    done = repaired(cats, f"data.test_list={tmp_path / 'test.txt'}")
    assert left_out(done, cats) == ["OD106 a1.jpg: equals b1.jpg, which was kept."]
    splits = again(cats).splits
    assert sorted(image.image.name for image in splits["test"]) == ["a2.jpg", "b1.jpg"]
    assert len(splits["train"]) + len(splits["validation"]) == 10


def test_the_copy_keeps_the_folders_of_the_split(cats, tmp_path):
    for i in range(12):
        for suffix in ("jpg", "xml"):
            part = tmp_path / "parted" / ("test" if i < 3 else "train")
            part.mkdir(parents=True, exist_ok=True)
            shutil.copy(cats / f"a{i}.{suffix}", part / f"a{i}.{suffix}")
    repaired(tmp_path / "parted")
    splits = again(tmp_path / "parted").splits
    assert sorted(image.image.name for image in splits["test"]) == ["a0.jpg", "a1.jpg", "a2.jpg"]


def test_a_folder_that_is_there_is_not_written_to(cats):
    repaired(cats)
    with pytest.raises(DataError) as error:
        repaired(cats)
    assert str(error.value) == (
        f"{cats.parent / 'repaired'}: is there already; nothing was written.\n"
        "  Give the name of a new folder: output=DIR"
    )


def test_the_command_says_what_it_did_and_ends_with_the_status_of_the_copy(
    cats, monkeypatch, capsys
):
    write_xml(cats / "a3.xml", "a3.jpg", SIZE, [("cat", 120, 200, 40, 60)])
    monkeypatch.chdir(cats.parent)
    arguments = [f"data.images={cats}", "data.name=cats", "data.prepared=none"]
    assert main(["check", *arguments]) == 1
    capsys.readouterr()
    assert main(["check", "--fix", "fixed", "--json", "findings.json", *arguments]) == 0
    said = capsys.readouterr().out
    assert said[said.index("repaired copy") :] == (
        "repaired copy: fixed\n"
        "changed: 1\n"
        f"  OD009 {cats}/a3.xml: cat 120,200,40,60: corners put in order.\n"
        "left out: 0\n"
        "  still there: OD115, 1 times\n"
        "  still there: OD122, 1 times\n"
        "the copy, checked: 0 error, 2 warning, 3 info; to train on it: data.images=fixed\n"
    )
    assert "OD009" in (cats.parent / "fixed/CHANGES.md").read_text()
    assert json.loads(Path("findings.json").read_text())[0]["code"] == "OD009"
    assert sorted(path.name for path in cats.parent.iterdir()) == ["cats", "findings.json", "fixed"]


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        (["--fix"], "cats-repaired"),
        (["--fix", "output=there"], "there"),
        (["--fix=a=b"], "a=b"),
    ],
)
def test_the_folder_of_the_copy_may_be_left_to_odtrain(cats, monkeypatch, arguments, folder):
    monkeypatch.chdir(cats.parent)
    named = [f"data.images={cats}", "data.name=cats", "data.prepared=none"]
    assert main(["check", *arguments, *named]) == 0
    assert (cats.parent / folder / "CHANGES.md").is_file()


def test_a_kill_at_any_moment_leaves_no_copy_or_a_whole_one(cats, tmp_path):
    """Killed as soon as so many files of the copy are there; the next run ends as if nothing was."""
    write_xml(cats / "a3.xml", "a3.jpg", SIZE, [("cat", 120, 200, 40, 60)])
    before = digests(cats)
    command = [sys.executable, "-m", "odtrain", "check", "--fix", "fixed"]
    named = [f"data.images={cats}", "data.name=cats", "data.prepared=none"]
    for files in (1, 9):
        with subprocess.Popen(
            [*command, *named], cwd=tmp_path, stdout=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                with contextlib.suppress(FileNotFoundError):  # a folder that was just renamed
                    if sum(1 for _ in tmp_path.glob(".fixed.new-*/**/*.*")) >= files:
                        process.kill()
            if process.wait() == 0:  # it was quicker
                shutil.rmtree(tmp_path / "fixed")
        assert not (tmp_path / "fixed").exists()
    assert subprocess.run([*command, *named], cwd=tmp_path, check=False).returncode == 0
    assert len(list((tmp_path / "fixed/images").iterdir())) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cats", "fixed"]
    assert digests(cats) == before
