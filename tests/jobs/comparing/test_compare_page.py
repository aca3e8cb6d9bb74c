"""The page of a comparison: pictures first, every number with its interval, for everyone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lxml import html
from support.accessibility import (
    MOST_BYTES,
    bytes_without_pictures,
    serious,
    wider_than_the_window,
)
from support.browsers import browser
from support.pictures import label_picture

from odtrain.evaluation.paired_bootstrap import compare_detections
from odtrain.jobs.comparing.compare_page import compare_page
from odtrain.structures import Detections, GroundTruth, LabelledSplit

__all__ = ["browser"]

BOX = np.array([[0.1, 0.1, 0.5, 0.5]], np.float32)
NONE = Detections(BOX[:0], np.zeros(0, np.float32), np.zeros(0, np.int64))


def page_of(folder: Path, classes: int = 2) -> str:
    """B finds all, A what is in pictures of even number; pictures 0 and 3 were kept."""
    names = tuple(f"class_{'long_' * 9}{k}" if k else "cat" for k in range(classes))
    truths = [
        GroundTruth(f"{i}.jpg", 48, 64, BOX, np.array([i % classes + 1]))
        for i in range(2 * classes)
    ]
    b = [Detections(BOX, np.array([0.9], np.float32), truth.classes) for truth in truths]
    a = [each if i % 2 == 0 else NONE for i, each in enumerate(b)]
    split = LabelledSplit(names, truths, tuple(map(str, range(len(truths)))))
    files = {row: label_picture(folder / f"{row}.jpg", (64, 48), []) for row in (0, 3)}
    compared = compare_detections(truths, a, b, names, bootstrap=50, seed=0)
    pictures = {row: folder / f"{row}.jpg" for row in files}
    table = {"columns": ["file", "mAP A", "mAP B"], "rows": [["pb", "0.5", "-"]]}
    named = ("run one", "models:/<b>/2")
    return compare_page(
        compared.in_words(), named, compared, split, (a, b), pictures, table, ["Well."]
    )


def test_pictures_come_first_the_one_with_the_largest_difference_before_the_others(tmp_path):
    tree = html.document_fromstring(page_of(tmp_path))
    assert [heading.text for heading in tree.iter("h2")] == [
        "Where they differ in pictures",
        "All classes together",
        "Class by class",
        "Exported files",
    ]
    assert [" ".join(each.text_content().split()) for each in tree.iter("figcaption")] == [
        "A, 3.jpg: 0 found, 1 missed, 0 wrong",
        "B, 3.jpg: 1 found, 0 missed, 0 wrong",
        "A, 0.jpg: 1 found, 0 missed, 0 wrong",
        "B, 0.jpg: 1 found, 0 missed, 0 wrong",
    ]
    assert tree.findtext(".//h1").startswith("B better by ")
    assert "models:/<b>/2" in tree.text_content()


def test_intervals_lie_on_a_round_axis_around_nothing(tmp_path):
    tree = html.document_fromstring(page_of(tmp_path))
    assert tree.xpath("(//table)[1]//th[@data-drawn]")[0].text_content() == "-1 0 1"
    rows = tree.xpath("//section[@aria-labelledby='by-class']//tbody/tr")
    assert rows[0].xpath("string(th)").strip() == "cat"
    assert [row.xpath("string(td[7])") for row in rows] == ["50%", "100%"]
    assert tree.xpath("count(//*[@class='bar' and local-name()='path'])") == 5


def test_ninety_classes_fit(tmp_path):
    assert bytes_without_pictures(page_of(tmp_path, 90)) < MOST_BYTES


@pytest.mark.slow
def test_everyone_can_use_the_page(browser, tmp_path):
    (tmp_path / "page.html").write_text(page_of(tmp_path, 20), encoding="utf-8")
    opened = browser()
    opened.get((tmp_path / "page.html").as_uri())
    assert serious(opened) == []
    assert wider_than_the_window(opened) == []
    assert opened.get_log("browser") == []
