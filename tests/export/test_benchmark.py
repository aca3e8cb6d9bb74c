"""Measuring in a fresh process, and comparing what two detectors found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.tflite_files import write_constant_model, write_postprocess_model
from support.tiny_models import BOXES

from odtrain.errors import ModelFileError
from odtrain.export.benchmark import Agreement, _Proof, agreement, measure, size_mb
from odtrain.structures import Detections, UInt8Image
from odtrain_runtime.model_files import load_detector
from odtrain_runtime.others.reading import HEADS
from odtrain_runtime.tiles import Tiles

BOX = [0.1, 0.1, 0.5, 0.5]
NEAR = [0.1, 0.1, 0.5, 0.504]
FAR = [0.6, 0.6, 0.9, 0.9]


def found(*rows: tuple[list[float], float, int]) -> Detections:
    """(box, score, class) for each detection."""
    return Detections(
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([class_id for _, _, class_id in rows], np.int64),
    )


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        pytest.param([(BOX, 0.9, 1)], [(BOX, 0.9, 1)], (0, 0, 0), id="same"),
        pytest.param([(BOX, 0.9, 1)], [(NEAR, 0.8, 1)], (0.004, 0.1, 0), id="near"),
        pytest.param([(BOX, 0.9, 1)], [(BOX, 0.9, 2)], (0, 0, 2), id="another class"),
        pytest.param([(BOX, 0.9, 1)], [(FAR, 0.9, 1)], (0, 0, 2), id="elsewhere"),
        pytest.param([(BOX, 0.9, 1)], [], (0, 0, 1), id="lost"),
        pytest.param([], [(BOX, 0.9, 1)], (0, 0, 1), id="made up"),
        pytest.param([], [], (0, 0, 0), id="nothing"),
        pytest.param([(BOX, 0.009, 1)], [(FAR, 0.009, 1)], (0, 0, 0), id="too faint to compare"),
        pytest.param([(BOX, 0.011, 1)], [(BOX, 0.009, 1)], (0, 0.002, 0), id="match may be faint"),
        pytest.param(
            [(BOX, 0.9, 1), (NEAR, 0.8, 1)],
            [(NEAR, 0.8, 1), (BOX, 0.9, 1)],
            (0, 0, 0),
            id="best overlap wins",
        ),
        pytest.param([(BOX, 0.9, 1), (BOX, 0.8, 1)], [(BOX, 0.9, 1)], (0, 0, 1), id="taken once"),
    ],
)
def test_agreement_of_one_picture(reference, other, expected):
    assert agreement([found(*reference)], [found(*other)]) == pytest.approx(expected, abs=1e-6)


def test_agreement_takes_the_worst_picture_and_counts_all():
    same, gone, shifted = found((BOX, 0.9, 1)), found(), found((NEAR, 0.9, 1))
    worst = agreement([same, same, same], [shifted, gone, gone])
    assert worst == pytest.approx((0.004, 0, 2), abs=1e-6)


@pytest.mark.parametrize(
    ("box", "score", "within"),
    [(1e-3, 1e-4, True), (1.1e-3, 0, False), (0, 1.1e-4, False)],
    ids=["on both limits", "box", "score"],
)
def test_tolerances_of_float32_exports(box, score, within):
    assert Agreement(box, score, 0).within_tolerance is within


def test_size_of_a_folder_is_that_of_all_its_files(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(bytes(1500))
    (tmp_path / "variables" / "variables.index").write_bytes(bytes(500))
    assert size_mb(tmp_path) == pytest.approx(0.002)


# ---- the fresh process


@pytest.fixture
def model(tmp_path: Path) -> Path:
    scores = np.array([[0, 0.9, 0, 0], [0, 0, 0, 0.8], [0, 0, 0.7, 0]], np.float32)
    return write_postprocess_model(
        tmp_path / "model.tflite", scores, per_class=True, output_order=(0, 1, 2, 3)
    )


def pictures(*sizes: tuple[int, int]) -> Iterator[UInt8Image]:
    """Pictures of noise, made when they are asked for."""
    random = np.random.default_rng(0)
    return (random.integers(0, 256, (*size, 3), np.uint8) for size in sizes)


def test_a_fresh_process_finds_what_this_one_finds(model):
    measured = measure(model, pictures((40, 30), (4, 6), (1, 700)), runs=3, threads=2)
    expected = load_detector(model)(np.zeros((4, 6, 3), np.uint8))
    assert agreement(measured.detections, [expected] * 3) == (0, 0, 0)
    assert [each.classes.tolist() for each in measured.detections] == [[1, 3, 2]] * 3


def test_what_is_measured_of_a_file(model):
    measured = measure(model, pictures((40, 30)), runs=5, threads=1)
    assert 0 < measured.latency_ms_p50 <= measured.latency_ms_p90 < 1000
    assert (measured.threads, measured.size_mb) == (1, model.stat().st_size / 1e6)
    assert measured.class_names == ()


def test_memory_is_that_of_the_fresh_process_alone(model):
    ballast = np.ones((400, 1_000_000), np.uint8)
    measured = measure(model, [], runs=1, threads=1)
    assert ballast.sum() == 400_000_000
    assert 10 < measured.peak_memory_mb < 250


def test_a_file_is_timed_without_pictures_too(model):
    measured = measure(model, [], runs=2, threads=1)
    assert measured.detections == []
    assert measured.latency_ms_p50 > 0


def test_a_picture_without_objects_has_no_detections(tmp_path):
    zeros = np.zeros((1, 2), np.float32)
    outputs = [("boxes", np.zeros((1, 2, 4), np.float32)), ("classes", zeros), ("scores", zeros)]
    file = write_constant_model(tmp_path / "model.tflite", outputs)
    (only,) = measure(file, pictures((8, 8)), runs=1, threads=1).detections
    assert (only.boxes.shape, only.scores.shape, only.classes.shape) == ((0, 4), (0,), (0,))


def test_the_number_of_threads_is_that_which_ran(model):
    measured = measure(model, [], runs=1, threads=2)
    assert measured.threads == 1
    assert measured.on_threads == "1 thread: more would lose detections (tensorflow#56058)"
    assert measure(model, [], runs=1, threads=1).on_threads == "1 thread"


@pytest.mark.parametrize("package", ["odtrain", "odtrain_runtime"])
def test_what_a_loaded_model_brought_is_not_run(model, tmp_path, monkeypatch, package):
    (tmp_path / "code" / package).mkdir(parents=True)
    (tmp_path / "code" / package / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "code")
    assert measure(model, [], runs=1, threads=1).latency_ms_p50 > 0


def test_a_tflite_is_measured_without_tensorflow(model, tmp_path):
    blocked = (
        "import sys; sys.modules['tensorflow'] = None;"
        "from odtrain.export.benchmark import main; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "found.npz"
    command = [sys.executable, "-c", blocked, str(model), str(out), "1", "1"]
    subprocess.run(command, input=b"", check=True)
    with np.load(out) as content:
        assert content["counts"].tolist() == []


def test_a_file_that_cannot_be_opened_is_reported_as_elsewhere(tmp_path):
    file = tmp_path / "model.tflite"
    write_constant_model(file, [("probabilities", np.zeros((1, 1001), np.float32))])
    with pytest.raises(ModelFileError) as caught:
        measure(file, pictures((4000, 3000), (4000, 3000)), runs=1, threads=1)
    assert str(caught.value) == (
        f"{file}: its outputs, without the batch, are probabilities (1001,): of no detector that is known.\n"
        f"  Known heads are: {', '.join(HEADS)}."
    )


def test_a_process_that_dies_is_named_with_its_last_words(model, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "no number")
    with pytest.raises(ModelFileError) as caught:
        measure(model, pictures((8, 8)), runs=1, threads=1)
    assert str(caught.value).startswith(f"{model}: the process that ran it ended with status 1: ")
    assert str(caught.value).endswith(
        "\n  A status below 0 is the signal that ended it; -9 mostly means that memory ran out."
    )


def test_a_picture_that_cannot_be_had_ends_the_process(model):
    def broken() -> Iterator[UInt8Image]:
        yield np.zeros((8, 8, 3), np.uint8)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match=r"^the disk is gone$"):
        measure(model, broken(), runs=1, threads=1)


def test_threads_are_compared_on_one_view_of_a_picture_that_is_looked_at_by_tiles(tmp_path):
    outputs = [
        ("boxes", BOXES),
        ("classes", np.float32([[0, 1]])),
        ("scores", np.float32([[0.9, 0.6]])),
        ("num_detections", np.float32([2])),
    ]
    plain = load_detector(write_constant_model(tmp_path / "two.tflite", outputs))
    tiled = replace(plain, tiles=Tiles(50, 50, 0.2, True))
    proof = _Proof(tiled)
    image = np.zeros((200, 200, 3), np.uint8)
    proof.look(image, tiled(image))
    assert np.array_equal(proof.expected[0].boxes, plain(image).boxes)
    assert not np.array_equal(tiled(image).boxes, plain(image).boxes)
    assert proof.threads_differ() is None
