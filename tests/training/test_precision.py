"""Which precision is taken for the fastest, and how long that is remembered."""

from __future__ import annotations

import time

import pytest

from odtrain.training import precision
from odtrain.training.precision import Kind, Place, Steps, fastest, steps_here

AMX = Place("A Processor", "AVX512_CORE_AMX", True, True, 2)
AVX2 = Place("A Processor", "AVX2", False, True, 2)
INVERTED, DENSE = Kind("inverted", 0.35), Kind("dense")
MEASURED = Steps(0.03, 0.05, 1e9)


@pytest.mark.parametrize(
    ("place", "fp32", "bf16", "expected"),
    [
        pytest.param(AMX, 0.0346, 0.0530, "fp32", id="AMX, depthwise"),
        pytest.param(AMX, 0.0129, 0.0093, "bf16", id="AMX, dense"),
        pytest.param(AMX, 0.0129, 0.0126, "fp32", id="no more than noise"),
        pytest.param(AVX2, 0.0316, 0.0812, "fp32", id="emulated"),
        pytest.param(AVX2, 0.0644, None, "fp32", id="not computed at all"),
        pytest.param(AVX2, 0.0900, 0.0600, "fp32", id="emulated, and a disturbed measurement"),
    ],
)
def test_bf16_is_taken_where_there_are_instructions_and_it_was_measured_faster(
    place, fp32, bf16, expected
):
    assert fastest(place, Steps(fp32, bf16, 0.0)) == expected


# ---- remembering


@pytest.fixture
def measured(monkeypatch, own_environment):
    """Kinds of networks that were measured, in order; none is."""
    kinds: list[Kind] = []

    def measure(kind):
        kinds.append(kind)
        return Steps(0.03, 0.05, time.time())

    monkeypatch.setattr(precision, "measure_steps", measure)
    monkeypatch.setattr(precision, "this_place", lambda: AMX)
    monkeypatch.setattr(precision, "_ready", {})
    return kinds


def in_another_process(monkeypatch):
    monkeypatch.setattr(precision, "_ready", {})


def test_a_process_measures_a_kind_of_network_once(measured):
    assert steps_here(INVERTED) is steps_here(INVERTED)
    steps_here(DENSE)
    assert measured == [INVERTED, DENSE]


def test_another_process_remembers_and_says_so(measured, monkeypatch):
    first = steps_here(INVERTED)
    in_another_process(monkeypatch)
    second = steps_here(INVERTED)
    assert measured == [INVERTED]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(first.at))
    text = "a step of a small network of this kind takes 30.0 ms in fp32 and 50.0 ms in bf16, "
    assert (str(first), str(second)) == (f"{text}measured now", f"{text}remembered from {when}")


def test_after_a_week_it_is_measured_again(measured, monkeypatch):
    steps_here(INVERTED)
    in_another_process(monkeypatch)
    later = time.time() + 8 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert not steps_here(INVERTED).remembered


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("ONEDNN_MAX_CPU_ISA", True),
        ("TF_NUM_INTRAOP_THREADS", True),
        ("TF_CPP_MIN_LOG_LEVEL", False),
    ],
)
def test_under_other_variables_it_is_measured_again(measured, monkeypatch, name, again):
    steps_here(INVERTED)
    in_another_process(monkeypatch)
    monkeypatch.setenv(name, "1")
    assert steps_here(INVERTED).remembered is not again


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"fp32": 0, "bf16": 1, "at": 0}'])
def test_what_cannot_be_read_is_measured_again(measured, monkeypatch, tmp_path, content):
    steps_here(INVERTED)
    (file,) = (tmp_path / "cache/odtrain/speed").iterdir()
    file.write_text(content)
    in_another_process(monkeypatch)
    assert not steps_here(INVERTED).remembered


def test_where_nothing_can_be_kept_it_is_measured(measured, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert not steps_here(INVERTED).remembered
