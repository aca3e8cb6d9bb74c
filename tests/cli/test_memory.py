"""Memory that runs out is told in one line, however the library puts it that noticed first."""

from __future__ import annotations

import importlib

import pytest

from odtrain.cli.main import LESS_MEMORY, main

command_line = importlib.import_module("odtrain.cli.main")


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        ImportError("libtensorflow_cc.so.2: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=repr,
)
def test_it_is_one_line(problem, monkeypatch, capsys):
    def run(arguments):
        raise problem

    monkeypatch.setattr(command_line, "_run", run)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == f"Memory ran out: {LESS_MEMORY}\n"


def test_what_came_of_it_is_told_as_it(monkeypatch, capsys):
    def run(arguments):
        raise ImportError("numpy cannot be imported") from OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(command_line, "_run", run)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == f"Memory ran out: {LESS_MEMORY}\n"


def test_another_error_is_not_taken_for_it(monkeypatch):
    def run(arguments):
        raise ValueError("a fault of the program")

    monkeypatch.setattr(command_line, "_run", run)
    with pytest.raises(ValueError, match="a fault of the program"):
        main(["train"])
