"""A file that plain int8 breaks is saved by another way to whole numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.wide_range import NAMES, Case, drawn_pictures, small_detector

from odtrain.config.compose import section
from odtrain.config.schema import BenchmarkConfig
from odtrain.export import benchmark, parity
from odtrain.export.int8 import ladder
from odtrain.export.int8.ladder import Ladder
from odtrain.export.int8.rungs import PLAIN, RUNGS
from odtrain.export.parity import exports_table
from odtrain.export_formats import INT8
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.tflite_metadata import read_metadata

pytestmark = pytest.mark.slow

MOST = 0.1
"""Of mAP that a file may lose: detections of random weights lie close to each other."""
SAVES = "heads and layers in float"
"""The one rung that brings a file of wide-range weights, whose scores lie close together too, within that."""


@pytest.fixture(scope="module", autouse=True)
def measured_here():
    """Files are run in this process: one of its own takes a second, and is tested in test_benchmark.py."""

    def measure(file, images, runs, threads, **_):
        detector = load_detector(file, threads)
        found = [detector(image) for image in images]
        latency = 1000 * float(np.median(benchmark._time(detector, None, runs)))
        size = benchmark.size_mb(file)
        names, passport = detector.class_names, detector.passport
        return benchmark.Measured(found, latency, latency, threads, size, 0.0, names, passport)

    with pytest.MonkeyPatch.context() as patch:
        for module in (ladder, parity):
            patch.setattr(module, "measure", measure)
        patch.setattr(parity, "raw_difference", lambda *_: parity.RawDifference(0.0, 0.0))
        yield


def climb(case, content, folder, minutes=10.0):
    """What becomes of an int8 file of a case's detector, copied into the folder."""
    file = folder / "model_int8.tflite"
    file.write_bytes(content)
    prove, timing = case.prover(MOST), section(BenchmarkConfig, runs=5)
    more, shown = drawn_pictures(24, seed=4), case.pictures[0]
    climbing = Ladder(
        case.writer, NAMES, case.passport, more, prove, shown, len(case.pictures), timing, minutes
    )
    return climbing.climb(prove(file), folder / "int8")


@pytest.fixture(scope="module")
def plain(files):
    """The converter's own int8 file of the detector with wide-range weights."""
    return (files / f"{INT8}.tflite").read_bytes()


@pytest.fixture(scope="module")
def climbed(case, plain, tmp_path_factory):
    """The proof of the int8 file that all rungs led to."""
    return climb(case, plain, tmp_path_factory.mktemp("climbed"))


def only(monkeypatch, *names):
    """Let the ladder have these rungs alone."""
    monkeypatch.setattr(ladder, "RUNGS", tuple(rung for rung in RUNGS if rung.name in names))


def test_a_file_that_no_range_of_256_levels_holds_is_saved_by_floats_where_they_are_needed(
    climbed, plain
):
    rows = {row.rung: row for row in climbed.rungs}
    assert list(rows) == [PLAIN, *(rung.name for rung in RUNGS)]
    assert [name for name, row in rows.items() if row.map >= 1 - MOST] == [SAVES]
    assert [name for name, row in rows.items() if row.kept] == [SAVES]
    assert rows[SAVES].said == "passed"
    assert climbed.failed is None
    assert climbed.scores["mAP"] == rows[SAVES].map
    assert climbed.file.read_bytes() != plain


def test_without_the_rung_that_saves_it_the_plain_file_stays_marked(
    case, plain, tmp_path, monkeypatch, said
):
    only(monkeypatch, "least error", "layers in float")
    proof = climb(case, plain, tmp_path)
    assert proof.failed is not None
    assert [row.kept for row in proof.rungs] == [False] * 3
    assert proof.file.read_bytes() == plain
    assert said[0].endswith(": trying other ways to make it (export.int8_ladder).")
    assert "No rung passes; the plain int8 file stays in the run, marked failed." in said


def test_scores_that_lie_too_close_for_256_levels_are_saved_by_heads_in_float(
    tmp_path, monkeypatch, said
):
    case = Case.of(small_detector())
    only(monkeypatch, "least error", "heads in float")
    proof = climb(case, case.writer.content(INT8, NAMES, case.passport), tmp_path)
    assert [row.said == "passed" for row in proof.rungs] == [False, False, True]
    assert read_metadata(proof.file).passport["int8"] == "heads in float"
    assert 'The int8 file is now made by "heads in float", the quickest way that passes.' in said


def test_the_kept_file_and_the_table_say_what_takes_it(climbed):
    (kept,) = (row for row in climbed.rungs if row.kept)
    passport = read_metadata(climbed.file).passport
    assert passport["int8"] == kept.rung
    assert {
        name: passport[f"int8_{name}"] for name in ("coral", "hexagon", "xnnpack")
    } == kept.takes
    table = exports_table([climbed]).splitlines()
    assert table[4] == (
        "| int8 | mAP | mAP_50 | latency p50 | size | Coral | Hexagon | XNNPACK | checked |"
    )
    takes = " | ".join(kept.takes.values())
    assert next(line for line in table if "**kept**" in line).endswith(
        f" | {takes} | **kept**, passed |"
    )
    assert table[-1] == "Coral, Hexagon, XNNPACK: operators of the network that each takes."
    written = json.loads((climbed.file.parent / "int8/ladder.json").read_text())
    assert [row["rung"] for row in written] == [row.rung for row in climbed.rungs]


def test_an_accelerator_of_8_bits_takes_nothing_of_int16(climbed):
    (row,) = (row for row in climbed.rungs if row.rung == "int16 between layers")
    assert [row.takes[name].split("/")[0] for name in ("coral", "hexagon")] == ["0", "0"]


def test_no_rung_is_begun_when_the_minutes_are_over(case, plain, tmp_path):
    proof = climb(case, plain, tmp_path, minutes=0.0)
    assert [row.said for row in proof.rungs[1:]] == [
        "not tried: 0 minutes are over (export.int8_ladder_minutes)"
    ] * len(RUNGS)
    assert proof.file.read_bytes() == plain


def test_a_rung_that_cannot_be_made_does_not_end_the_climb(case, plain, tmp_path, monkeypatch):
    real = ladder.Network.quantized

    def quantized(network, rung, ranges):
        if rung.name == "more pictures":
            raise ValueError("tensor 7 has no range")
        return real(network, rung, ranges)

    only(monkeypatch, "more pictures", SAVES)
    monkeypatch.setattr(ladder.Network, "quantized", quantized)
    rows = {row.rung: row.said for row in climb(case, plain, tmp_path).rungs}
    assert rows["more pictures"] == "cannot be made: tensor 7 has no range"
    assert rows[SAVES] == "passed"


# ---- which of several is kept


def scored(name, latency, score, failed=None):
    measured = benchmark.Measured([], latency, latency, 1, 0.5, 0.0)
    same, raw = benchmark.Agreement(0, 0, 0), parity.RawDifference(0, 0)
    return name, parity.Proof(INT8, None, measured, {"mAP": score}, same, raw, failed)


@pytest.mark.parametrize(
    ("proofs", "kept"),
    [
        pytest.param([scored("a", 9, 0.5), scored("b", 5, 0.4)], "b", id="quickest"),
        pytest.param([scored("a", 5.1, 0.5), scored("b", 5, 0.4)], "a", id="as quick, better"),
        pytest.param([scored("a", 9, 0.5), scored("b", 5, 0.4, "loses")], "a", id="that passes"),
        pytest.param([scored("a", 9, 0.5, "loses")], None, id="none passes"),
    ],
)
def test_the_quickest_that_passes_is_kept(proofs, kept):
    climbing = Ladder(None, (), {}, (), None, None, 1, None, 1, proofs=dict(proofs))
    assert climbing._quickest() == kept


def test_a_much_slower_file_is_scored_only_where_that_is_quickly_done():
    climbing = Ladder(
        None, (), {}, (), None, None, 100, None, 1, proofs=dict([scored("quick", 5, 0.5)])
    )
    climbing.until = float("inf")
    slow = replace(scored("slow", 100, 0.5)[1].measured)
    assert climbing._not_worth_it(slow) == 'not scored: "quick" passes and is quicker'
    climbing.count = 10  # four seconds of a minute
    assert climbing._not_worth_it(slow) == ""
