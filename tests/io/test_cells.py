from __future__ import annotations

import pytest

from odtrain.io.cells import cell, text_in

TEXTS = {
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
    "+1+1": "'+1+1",
    "-1+1": "'-1+1",
    "@SUM(A1)": "'@SUM(A1)",
    "'=x": "''=x",
    "a\nerror OD001": r"'\a\x0aerror OD001",
    "\x1b[2J\x9b\u202egpj.exe": r"'\\x1b[2J\x9b\u202egpj.exe",
    "\t=x": r"'\\x09=x",
    "'\\x": r"'\'\\x",
    "a;=1+1": r"'\a\x3b=1+1",
    "a;b=1": "a;b=1",
    "a\\b": "a\\b",
    "it's": "it's",
    "'quoted'": "'quoted'",
    "-0.5": "-0.5",
    "버튼.jpg": "버튼.jpg",
}


@pytest.mark.parametrize(("text", "written"), TEXTS.items(), ids=map(repr, TEXTS))
def test_a_text_runs_in_no_spreadsheet_and_is_read_back_as_it_was(text, written):
    assert cell(text) == written
    assert text_in(written) == text


def test_numbers_stay_numbers():
    assert [cell(-1), cell(0.5), cell(None)] == [-1, 0.5, None]
