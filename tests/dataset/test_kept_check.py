"""A check of a prepared data set that did not change answers from what was kept."""

from __future__ import annotations

import pytest

from odtrain.cli.main import main
from odtrain.dataset import kept_check
from odtrain.dataset.read import DATASET_FILE


@pytest.fixture
def asked(tiny_voc, tmp_path, monkeypatch, capsys):
    """`odtrain check` of a small data set that was prepared: what it prints, and the pages it writes."""
    monkeypatch.chdir(tmp_path)
    where = [f"data.images={tiny_voc}", "data.name=tiny", "data.prepared=prepared"]
    assert main(["prepare", *where]) == 0

    def ask(*more: str) -> tuple[str, bytes, bytes]:
        capsys.readouterr()
        assert main(["check", "--html", "a.html", "--json", "a.json", *where, *more]) == 0
        pages = [(tmp_path / name).read_bytes() for name in ("a.html", "a.json")]
        return capsys.readouterr().out, pages[0], pages[1]

    return ask


@pytest.fixture
def checks(monkeypatch):
    """Every time that the data are looked at."""
    seen = []
    real = kept_check.check

    def counted(*args, **named):
        seen.append(args)
        return real(*args, **named)

    monkeypatch.setattr(kept_check, "check", counted)
    return seen


def test_an_unchanged_check_says_the_same_and_reads_nothing(asked, checks):
    assert asked() == asked() == asked()
    assert len(checks) == 1


def test_a_label_that_changed_is_read(asked, checks, tiny_voc):
    asked()
    label = sorted(tiny_voc.glob("*.xml"))[0]
    label.write_text(label.read_text().replace("<object>", "<object> ", 1))
    asked()
    assert len(checks) == 2


def test_another_network_is_another_question(asked, checks):
    small = asked()
    assert asked("model.input_size=128") != small
    assert asked() == small
    assert len(checks) == 3


def test_a_folder_that_is_not_prepared_gets_no_file(asked, checks, tmp_path):
    (tmp_path / "prepared" / DATASET_FILE).unlink()
    asked()
    asked()
    assert not (tmp_path / "prepared" / kept_check.CHECK_FILE).exists()
    assert len(checks) == 2
