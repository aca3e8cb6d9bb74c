"""The page of findings: everything is on it, drawn where it is, and nothing runs."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from lxml import html
from PIL import Image
from support.accessibility import MOST_BYTES, bytes_without_pictures, serious, wider_than_the_window
from support.browsers import browser
from support.pictures import label_picture, write_xml

from odtrain.cli.main import main
from odtrain.findings import KINDS, Finding
from odtrain.reports.findings_page import BOX_COLOUR, DRAWN_OF_EACH, SHOWN_OF_EACH, findings_page

__all__ = ["browser"]


def pictures_of(page: str) -> list[np.ndarray]:
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    ]


def drawn(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what has the colour of boxes."""
    rows, columns = np.nonzero(np.abs(picture - np.array(BOX_COLOUR)).sum(axis=2) < 120)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """A plain picture of 260 x 130."""
    Image.new("RGB", (260, 130), (90, 90, 90)).save(tmp_path / "plain.png")
    return tmp_path / "plain.png"


def test_findings_are_ordered_by_severity_and_all_of_their_words_are_there():
    page = findings_page(
        "pets",
        [
            Finding.of("OD204", "a.jpg", "has one channel only."),
            Finding.of(
                "OD009", "b.xml", "x 8 to 8 has no area.", box="cat 8,1,8,53", remedy="Think."
            ),
        ],
        {},
    )
    tree = html.fromstring(page)
    assert [heading.text_content() for heading in tree.iter("h2")] == [
        "What was found",
        "OD009 box without area error, 1",
        "OD204 grey picture info, 1",
    ]
    assert tree.findtext(".//p[@class='lead']") == "1 error, 0 warning, 1 info"
    assert tree.find(".//figcaption").text_content() == (
        "b.xml cat 8,1,8,53x 8 to 8 has no area.Think."
    )


def test_a_box_is_drawn_where_it_is(grey):
    finding = Finding.of("OD116", "a.xml", "is tiny.", box="cat 40,30,140,90", picture=grey)
    (picture,) = pictures_of(findings_page("x", [finding], {}))
    assert picture.shape == (130, 260, 3)
    assert drawn(picture) == pytest.approx((40, 30, 140, 90), abs=2)


def test_a_small_box_is_shown_enlarged(grey):
    finding = Finding.of("OD116", "a.xml", "is tiny.", box="cat 100,50,110,60", picture=grey)
    (picture,) = pictures_of(findings_page("x", [finding], {}))
    left, _, right, _ = drawn(picture)
    assert right - left > 30


def test_a_box_outside_the_picture_is_shown_outside(grey):
    finding = Finding.of("OD008", "a.xml", "leaves it.", box="cat 200,30,300,90", picture=grey)
    (picture,) = pictures_of(findings_page("x", [finding], {}))
    assert picture[5, -5].tolist() == pytest.approx([120, 120, 120], abs=4)


def test_the_picture_is_turned_as_its_boxes_are(grey):
    finding = Finding.of("OD105", grey, "is turned.")
    (picture,) = pictures_of(findings_page("x", [finding], {str(grey): 6}))
    assert picture.shape == (260, 130, 3)


def test_both_of_two_alike_pictures_are_shown(grey, tmp_path):
    Image.open(grey).save(tmp_path / "twin.png")
    finding = Finding.of("OD206", grey, "equals twin.png.", picture=tmp_path / "twin.png")
    assert len(pictures_of(findings_page("x", [finding], {}))) == 2


def test_what_is_no_picture_or_broken_is_told_without_one(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8")
    findings = [
        Finding.of("OD010", tmp_path / "broken.jpg", "is broken."),
        Finding.of("OD002", tmp_path, "x."),
    ]
    page = findings_page("x", findings, {})
    assert pictures_of(page) == []
    assert "is broken." in page


def test_names_of_files_and_classes_cannot_bring_markup():
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    page = findings_page(
        evil, [Finding.of("OD007", evil, evil, box=f"{evil} 1,2,3,4", remedy=evil)], {}
    )
    tree = html.fromstring(page)
    assert list(tree.iter("img")) == []
    assert len(list(tree.iter("script"))) == 1  # the page's own, which alone its policy lets run
    assert tree.findtext(".//h1") == evil
    assert not re.search("https?:", page.replace("http://www.w3.org/2000/svg", ""))


def test_many_findings_are_cut_and_counted(grey, monkeypatch):
    monkeypatch.chdir(grey.parent)
    grey = Path(grey.name)  # the page has a bound in bytes, and long paths reach it sooner
    findings = [Finding.of("OD204", grey, f"number {i}.") for i in range(SHOWN_OF_EACH + 7)]
    page = findings_page("x", findings, {})
    assert len(pictures_of(page)) == DRAWN_OF_EACH
    assert page.count("<figure ") == SHOWN_OF_EACH
    assert "and 7 more: odtrain check --json FILE has all" in page


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(5):
        label_picture(tmp_path / f"pets/p{i}.jpg", (64, 48), [("cat", 4, 6, 30, 40)], seed=i)
    write_xml(tmp_path / "pets/p2.xml", "p2.jpg", (64, 48), [("cat", 60, 6, 30, 40)])
    arguments = [
        "data.images=pets",
        "data.name=pets",
        "--html",
        "found.html",
        "--json",
        "found.json",
    ]
    assert main(["check", *arguments]) == 1
    page = (tmp_path / "found.html").read_text()
    assert "OD009 box without area" in html.fromstring(page).text_content()
    assert len(pictures_of(page)) == 1
    (finding,) = json.loads((tmp_path / "found.json").read_text())
    assert (finding["code"], finding["picture"]) == ("OD009", "pets/p2.jpg")


def test_a_page_of_every_kind_of_finding_is_small_and_says_what_it_leaves_out():
    file = f"/data/{'very long ' * 8}/1.jpg"
    some = [Finding.of(code, file, "is <b>. " * 5) for code in KINDS for _ in range(600)]
    page = findings_page("x", some, {})
    assert bytes_without_pictures(page) < MOST_BYTES
    left_out = [int(number) for number in re.findall(r"and (\d+) more", page)]
    assert sum(left_out) + page.count("<figure ") == len(some)


def test_a_box_of_a_known_class_has_the_colour_of_the_class(grey):
    finding = Finding.of("OD116", "a.xml", "is tiny.", box="dog 40,30,140,90", picture=grey)
    page = findings_page("x", [finding], {}, ("cat", "dog"))
    assert 'fill="#56b4e9"' in page
    (picture,) = pictures_of(page)
    assert picture[30, 90].tolist() == pytest.approx([86, 180, 233], abs=30)


def test_no_finding_is_told():
    tree = html.fromstring(findings_page("x", [], {}))
    assert tree.findtext(".//p[@class='empty']") == (
        "Nothing was found: labels and pictures are as they should be."
    )


@pytest.mark.slow
def test_everyone_can_use_the_page(browser, grey, tmp_path):
    findings = [
        Finding.of("OD116", "a.xml", "is tiny.", box="cat 40,30,140,90", picture=grey),
        Finding.of("OD009", "long_" * 30, "x 8 to 8 has no area.", box=f"{'cat' * 30} 8,1,8,53"),
        Finding.of("OD204", grey, "has one channel only."),
    ]
    (tmp_path / "page.html").write_text(findings_page("x", findings, {}, ("cat",)), "utf-8")
    opened = browser()
    opened.get((tmp_path / "page.html").as_uri())
    assert serious(opened) == []
    assert wider_than_the_window(opened) == []
    shown = "return [...document.querySelectorAll('section h2')].filter((h) => h.offsetParent).map((h) => h.id)"
    assert opened.execute_script(shown) == ["kinds", "OD009", "OD116", "OD204"]
    opened.find_element("css selector", "input[value=error]").send_keys(" ")
    assert opened.execute_script(shown) == ["kinds", "OD116", "OD204"]
    opened.find_element("id", "words").send_keys("tiny")
    assert opened.execute_script(shown) == ["kinds", "OD116"]
    assert opened.find_element("id", "count").text == "1 of 3 shown"
    assert opened.get_log("browser") == []
