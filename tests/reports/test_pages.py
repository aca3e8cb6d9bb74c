"""What all pages share: one style and one script inside them, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import io

import pytest
from lxml import html
from support.browsers import browser

from odtrain.io.cells import write_rows
from odtrain.reports.findings_page import findings_page
from odtrain.reports.pages import TEMPLATES, served_page
from odtrain_runtime.plain import plain

__all__ = ["browser"]

TEXTS = [
    "cat",
    "=1+1",
    "-3.5",
    "-3.5e2",
    "'=2",
    "@a",
    "a;=1",
    "'\\x",
    "a,b",
    'say "x"',
    "two\nlines",
    "\u202eleft",
    "\x1b[2J",
    "",
]


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_a_policy_names_the_style_and_the_script_that_are_in_the_page():
    page, policy = served_page("serve")
    tree = html.fromstring(page)
    (style,), (script,) = tree.xpath("//style/text()"), tree.xpath("//script/text()")
    assert policy == (
        f"default-src 'none'; img-src data: blob:; style-src {digest(style)}; script-src "
        f"{digest(script)}; base-uri 'none'; form-action 'none'; connect-src 'self'; media-src blob:"
    )
    assert tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content") == [policy]
    assert tree.xpath("//@style | //@onclick | //@onload") == []


@pytest.mark.parametrize("name", ["design.css", "design.js"])
def test_all_pages_have_the_same_design(name):
    shared = (TEMPLATES / name).read_text(encoding="utf-8")
    pages = [served_page("serve").text, served_page("webcam").text, findings_page("x", [], {})]
    assert [shared in page for page in pages] == [True] * 3


def test_nothing_that_ends_a_style_or_a_script_is_in_one():
    for file in [*TEMPLATES.glob("*.js"), *TEMPLATES.glob("*.css")]:
        assert "</" not in file.read_text(encoding="utf-8"), file.name


@pytest.fixture
def library(browser, tmp_path):
    """Calls the script library, in a page that has it."""
    (tmp_path / "page.html").write_text(findings_page("x", [], {}), encoding="utf-8")
    opened = browser()
    opened.get((tmp_path / "page.html").as_uri())
    return lambda call, *values: opened.execute_script(f"return {call}", *values)


def test_the_script_writes_csv_and_names_as_the_program_does(library):
    stream = io.StringIO()
    write_rows(stream, [[text] for text in TEXTS if text])
    assert library("csv(arguments[0].map((each) => [each]))", [t for t in TEXTS if t]) == (
        stream.getvalue()
    )
    assert library("arguments[0].map(plain)", TEXTS[-3:]) == [plain(text) for text in TEXTS[-3:]]


def test_the_numbers_at_an_axis_are_round(library):
    marked = {
        (0, 1): [0, 0.2, 0.4, 0.6, 0.8, 1],
        (0.474, 2.37): [0, 0.5, 1, 1.5, 2, 2.5],
        (0, 14.2): [0, 2.5, 5, 7.5, 10, 12.5, 15],
        (0.3, 0.3): [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6],
        (0, 12000): [0, 2000, 4000, 6000, 8000, 10000, 12000],
    }
    ends = [list(each) for each in marked]
    assert library("arguments[0].map((each) => ticks(...each))", ends) == list(marked.values())
