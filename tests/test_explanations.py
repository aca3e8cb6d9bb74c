"""What the explaining pages say of their pictures is what the script that draws them computes."""

import importlib.util
from pathlib import Path

import pytest

from odtrain.evaluation.error_analysis import MISTAKE_KINDS
from odtrain.promotion.gate import FILES

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location("explanations", DOCS / "draw_explanations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_in_the_text_is_that_of_the_picture(drawing):
    _, means = drawing.average_precisions()
    said = f"mAP_50 {means[0]:.3f} and mAP {means.mean():.3f}"
    assert said in (DOCS / "matching.md").read_text(encoding="utf-8")


def test_every_kind_of_mistake_but_one_is_in_the_picture_and_all_are_in_the_table(drawing):
    truth = drawing.panel(drawing.SHOWN_PANEL)[1]
    judged = drawing.judge_picture(truth, drawing.made_up(truth))
    drawn = [*judged.kinds, *(["missed"] * int(judged.missed.sum()))]
    assert sorted(set(drawn)) == [
        "background",
        "duplicate",
        "found",
        "missed",
        "wrong class",
        "wrong place",
    ]
    page = (DOCS / "matching.md").read_text(encoding="utf-8")
    assert [kind for kind in MISTAKE_KINDS if f"\n| {kind} | " not in page] == []


def test_the_gate_on_the_page_has_the_checks_of_the_gate():
    page = (DOCS / "numbers.md").read_text(encoding="utf-8")
    section = page.partition("## 4. The gate")[2].partition("\n## ")[0]
    listed = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert ", ".join(listed[1:]).split(", ") == [*FILES, "accuracy", "latency", "size"]
