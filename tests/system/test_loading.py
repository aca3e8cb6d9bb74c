"""What is said while packages load, and what they do not say."""

import importlib
import os
import sys

import pytest

from odtrain.system import loading, logs, progress


@pytest.fixture
def slow_package(tmp_path, monkeypatch):
    """A package that takes a while to import, and is gone afterwards."""
    (tmp_path / "slow_to_load.py").write_text("import time\ntime.sleep(0.4)\nANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(progress, "SOON", 0.1)
    monkeypatch.setattr(progress, "TICK", 0.05)
    monkeypatch.setitem(loading.SLOW, "slow_to_load", "Slow")
    handlers, level = list(logs.ROOT.handlers), logs.ROOT.level
    logs.show()
    yield "slow_to_load"
    logs.ROOT.handlers[:], level = handlers, logs.ROOT.setLevel(level)
    sys.modules.pop("slow_to_load", None)


def test_it_is_said_that_a_slow_package_is_loading(slow_package, capsys):
    loading.say_what_loads()
    loading.say_what_loads()
    assert importlib.import_module(slow_package).ANSWER == 42
    assert capsys.readouterr().err == "Loading Slow ...\n"


@pytest.mark.parametrize(
    ("verbosity", "level"), [(-1, "3"), (0, "3"), pytest.param(1, None, id="with -v")]
)
def test_tensorflow_keeps_its_start_to_itself_unless_details_are_asked_for(
    monkeypatch, verbosity, level
):
    monkeypatch.setattr(os, "environ", {})
    loading.calm_tensorflow(verbosity)
    assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setattr(os, "environ", {"TF_CPP_MIN_LOG_LEVEL": "0"})
    loading.calm_tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
