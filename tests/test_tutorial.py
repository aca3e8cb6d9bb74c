"""The tutorial: the same in both languages, and followed by a script that types only what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.commands import odtrain

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("tutorial.md", "tutorial.ko.md")
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r"^```sh\n.*?^```\n\n```\n(.*?)```$", re.MULTILINE | re.DOTALL)
FINDS_ERRORS = "odtrain check data.images=labelled data.name=lift"
"""Ends with 1, as the page says."""


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    return [line for block in BLOCK.findall(page(name)) for line in block.splitlines()]


def headings(name: str) -> list[str]:
    """Their levels, and the numbers before their words."""
    return re.findall(r"^(#+ (?:\d+\.)?)", page(name), re.MULTILINE)


def test_both_languages_have_the_same_commands():
    assert commands(PAGES[0]) == commands(PAGES[1])
    assert len(commands(PAGES[0])) == 14


def test_both_languages_have_the_same_headings_in_the_same_order():
    assert headings(PAGES[0]) == headings(PAGES[1])
    assert [heading for heading in headings(PAGES[0]) if heading.endswith(".")] == [
        f"## {number}." for number in range(1, 13)
    ]


def test_both_languages_have_the_same_table_and_outputs():
    printed, rows = zip(
        *((OUTPUT.findall(page(name)), page(name).count("\n| ")) for name in PAGES), strict=True
    )
    assert printed[0] == printed[1]
    assert len(printed[0]) == len(commands(PAGES[0]))
    assert rows[0] == rows[1]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_script_follows_it_from_the_first_picture_to_the_promotion(tmp_path):
    said: dict[str, str] = {}
    for line in commands(PAGES[0]):
        done = odtrain(shlex.split(line)[1:], tmp_path)
        assert done.returncode == (1 if line == FINDS_ERRORS else 0), f"{line}\n{done.stderr}"
        said[line] = done.stdout
    first, second = (text for line, text in said.items() if line.startswith("odtrain train "))
    assert "Registered models:/lift/1 is @champion.\n" in first
    assert "Registered models:/lift/2 is @champion.\n" in second
    compared = said["odtrain models compare models:/lift/1 models:/lift/2"]
    assert re.match(r"B better by [\d.]+ mAP .* on 11 pictures", compared)
