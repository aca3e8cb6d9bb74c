"""Names that would do something where they are shown."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from odtrain.command import say
from odtrain.errors import DataError, first_line
from odtrain.findings import Finding, findings_table
from odtrain.io import markdown
from odtrain.io.http_errors import status
from odtrain.labels.formats.voc import VocObject, annotation
from odtrain.registry.versions import Version, describe_version, versions_table
from odtrain.reports import charts
from odtrain.reports.findings_page import findings_page
from odtrain.system.logs import Terminal
from odtrain_runtime.plain import plain, plain_lines

EVIL = "a\x1b[2J\x9b1m\u202egpj\nerror OD001 b: forged.\r"
SHOWN = r"a\x1b[2J\x9b1m\u202egpj\nerror OD001 b: forged.\r"


def test_a_name_is_one_line_of_what_can_be_seen():
    assert plain(EVIL) == SHOWN
    assert plain("버튼 é 👩‍🚀 שלום") == "버튼 é 👩‍🚀 שלום"
    assert plain_lines("a\n\tb\x1b") == "a\n\tb\\x1b"


def test_a_finding_is_its_own_lines_whatever_a_file_is_called():
    finding = Finding.of("OD010", Path(EVIL), f'"{EVIL}" is damaged.')
    assert str(finding).startswith(f'error OD010 {SHOWN}: "{SHOWN}" is damaged. Replace')
    assert "\n" not in str(finding)
    assert [line[:12] for line in findings_table([finding]).splitlines()] == [
        "error OD010 ",
        "    Replace ",
        "1 error, 0 w",
    ]


def test_a_page_shows_no_name_that_turns_the_text():
    page = findings_page("x", [Finding.of("OD010", Path(EVIL), "is damaged.")], {})
    assert not {"\x1b", "\x9b", "\u202e"} & set(page)


def test_an_error_shows_the_place_on_one_line():
    assert str(DataError(EVIL, "is \x1b[1mwrong.", "Look:\nhere.")) == (
        f"{SHOWN}: is \\x1b[1mwrong.\n  Look:\nhere."
    )
    assert first_line(ValueError("a\x1b[2J")) == r"a\x1b[2J"


def test_what_a_server_says_is_shown_and_short():
    answer = SimpleNamespace(status_code=500, reason=f"{EVIL}{'x' * 1000}")
    said = f"the server answered 500 {SHOWN}"
    assert status(answer).startswith(said)
    assert len(status(answer)) < 150


def test_a_cell_of_markdown_is_one_cell():
    lines = markdown.table(("a",), [(EVIL,)])
    assert lines[2:] == [f"| {SHOWN} |"]
    assert markdown.escaped("a|b\x1b") == "a\\|b\\x1b"


def test_a_label_of_a_chart_is_one_line_of_what_can_be_seen():
    assert charts.plain("a\x1b[2J\nb$") == r"a\x1b[2J\nb\$"


def test_tags_of_a_version_forge_no_line():
    tags = {"odtrain.architecture": EVIL}
    version = Version("x", "1", (), "r", "", tags)
    assert describe_version(version).splitlines()[2].startswith("    error OD001")
    assert len(versions_table([version]).splitlines()) == 2


def test_what_is_logged_and_printed_moves_no_cursor(capsys):
    record = logging.LogRecord("odtrain", logging.INFO, "", 0, "a\x1b[2J", None, None)
    Terminal().emit(record)
    say("b\x1b[2J")
    assert capsys.readouterr() == ("b\\x1b[2J\n", "a\\x1b[2J\n")


@pytest.mark.parametrize("name", ["=1.jpg", "a\x1b.jpg"])
def test_a_picture_of_any_name_is_read_back_from_a_list(name, tmp_path):
    import csv

    from odtrain.dataset.splits import read_list
    from odtrain.io.cells import cell

    with (tmp_path / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["filename"], [cell(name)]])
    assert read_list(tmp_path / "list.csv") == [name]


def test_a_class_name_that_xml_cannot_hold_is_written_by_its_numbers():
    written = annotation(("f", "\x01", "/f"), (9, 9), [VocObject("a\x1bb", (1, 1, 2, 2), False)])
    assert b"<filename>\\x01</filename>" in written
    assert b"<name>a\\x1bb</name>" in written
