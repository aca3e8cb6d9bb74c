"""What is said of a file that was held against its checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from odtrain.export.benchmark import Agreement, Measured
from odtrain.export.parity import Judge, Proof, exports_table
from odtrain.export.raw_outputs import OTHERS, RawDifference
from odtrain.structures import Detections, GroundTruth


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


# ---- the verdict on a file

BOX = np.float32([[0.1, 0.1, 0.5, 0.5]])
TRUTH = GroundTruth("a.jpg", 60, 80, BOX, np.int32([1]))
FOUND = Detections(BOX, np.float32([0.9]), np.int32([1]))
NOTHING = Detections(BOX[:0], np.float32([]), np.int32([]))
EQUAL = RawDifference(0.0, 0.0)
DIFFER = "finds other things with 3 threads: 6 detections differ"
OTHER_NETWORK = "has other anchors or classes before suppression than the checkpoint"


@pytest.mark.parametrize(
    ("format", "facts", "raw", "failed"),
    [
        pytest.param("tflite_fp32", {}, EQUAL, None, id="equal"),
        pytest.param("tflite_fp32", {"threads_differ": DIFFER}, EQUAL, DIFFER, id="threads"),
        pytest.param("tflite_int8", {"threads_differ": DIFFER}, EQUAL, DIFFER, id="int8 threads"),
        pytest.param(
            "tflite_fp32",
            {},
            RawDifference(0.0, 0.5),
            "scores before suppression differ by 0.5 from the checkpoint's, above 0.0001",
            id="scores",
        ),
        pytest.param("pb", {}, OTHERS, OTHER_NETWORK, id="anchors"),
        pytest.param("tflite_int8", {}, RawDifference(0.1, 0.5), None, id="int8 scores"),
        pytest.param(
            "pb", {"class_names": ("b",)}, EQUAL, "carries the class names ('b',)", id="names"
        ),
        pytest.param(
            "pb",
            {"detections": [NOTHING]},
            EQUAL,
            "loses 1.000 mAP; such a file may lose 0.02",
            id="mAP",
        ),
        pytest.param(
            "tflite_int8",
            {"detections": [NOTHING]},
            EQUAL,
            "loses 1.000 mAP; export.max_map_drop allows 0.05",
            id="int8 mAP",
        ),
    ],
)
def test_a_file_fails_for_what_keeps_it_from_doing_what_the_checkpoint_does(
    format, facts, raw, failed
):
    judge = Judge([FOUND], [TRUTH], ("a",), 0.05)
    given = {"detections": [FOUND], "class_names": ("a",), **facts}
    measured = Measured(given.pop("detections"), 2.0, 2.5, 1, 0.5, 90.0, threads_asked=1, **given)
    assert judge.proof(format, Path("model.tflite"), measured, raw).failed == failed
