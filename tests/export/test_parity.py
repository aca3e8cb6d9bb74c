"""What is said of a file that was held against its checkpoint."""

from pathlib import Path

import pytest

from odtrain.export.benchmark import Agreement, Measured
from odtrain.export.parity import Proof, exports_table
from odtrain.export.raw_outputs import RawDifference


def row(
    format: str, agreement: Agreement, drop: float, failed: str | None = None, threads: int = 1
):
    measured = Measured([], 2.0, 2.5, 1, 0.5, 90.0, threads_asked=threads)
    scores = {"mAP": 0.25, "mAP_50": 0.5}
    raw = RawDifference(0.0, 0.0)
    proof = Proof(format, Path("model.tflite"), measured, scores, agreement, raw, failed, drop)
    return exports_table([proof]).splitlines()[-1]


@pytest.mark.parametrize(
    ("format", "agreement", "drop", "said"),
    [
        pytest.param("tflite_fp32", (0, 0, 2), 0.0, "agrees with the checkpoint", id="exact"),
        pytest.param("tflite_fp16", (0, 0.001, 0), 0.0, "agrees with the checkpoint", id="close"),
        pytest.param(
            "tflite_int8",
            (0.1, 0.5, 0),
            0.0001,
            "mAP as the checkpoint's, scores differ by up to 0.50",
            id="scores",
        ),
        pytest.param(
            "tflite_int8",
            (0.1, 0.03, 7),
            0.0123,
            "mAP 0.012 below the checkpoint's, scores differ by up to 0.03, 7 detections differ",
            id="detections",
        ),
        pytest.param(
            "tflite_dynamic",
            (0.1, 0.01, 0),
            -0.02,
            "mAP 0.020 above the checkpoint's, scores differ by up to 0.01",
            id="better",
        ),
    ],
)
def test_a_file_agrees_only_where_what_it_finds_does(format, agreement, drop, said):
    assert row(format, Agreement(*agreement), drop) == (
        f"| model.tflite | 0.250 | 0.500 | 2.0 / 2.5 ms (1 thread) | 0.5 MB | {said} |"
    )


def test_fewer_threads_than_asked_for_have_a_reason():
    assert row("tflite_fp32", Agreement(0, 0, 0), 0.0, threads=2) == (
        "| model.tflite | 0.250 | 0.500 | 2.0 / 2.5 ms (1 thread: more would lose detections "
        "(tensorflow#56058)) | 0.5 MB | agrees with the checkpoint |"
    )
