"""OpenVINO models: what is run, and what of strangers' is refused before it is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from support.onnx_files import SIDE

from odtrain.export.benchmark import size_mb
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.model_files import kind_of, load_detector, load_detectors, parts_of
from odtrain_runtime.others.onnx_check import MAKE_AGAIN
from odtrain_runtime.others.openvino_check import DEEPEST, IN_A_PAIR, NOT_RUN

pytest.importorskip("openvino", reason="pip install 'odtrain[openvino]' brings it")

from support.openvino_files import write_constant_openvino

PICTURE = np.zeros((SIDE, SIDE * 2, 3), np.uint8)
ULTRALYTICS = {"names": "{0: 'cat', 1: 'dog'}", "stride": "32", "task": "detect"}
ROWS = np.zeros((1, 6, 84), np.float32)
ROWS[0, :, 0] = [32, 32, 16, 8, 0.1, 0.9]


def yolo(folder: Path, **more) -> Path:
    return write_constant_openvino(folder, {"output0": ROWS}, **{"texts": ULTRALYTICS, **more})


def message(file: Path) -> str:
    with pytest.raises(ModelFileError) as error:
        load_detector(file)
    return str(error.value)


def changed(file: Path, old: str, new: str) -> Path:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


def test_a_model_is_its_xml_or_the_folder_with_both_files(tmp_path):
    file = yolo(tmp_path / "model")
    for named in (file, tmp_path / "model"):
        detector = load_detector(named)
        (found,) = detector.detect_all([PICTURE])
        assert (detector.format, detector.class_names) == ("openvino_fp32", ("cat", "dog"))
        assert found.boxes[0] == pytest.approx([3 / 8, 3 / 8, 5 / 8, 5 / 8])
        assert (found.scores[0], found.classes[0]) == (pytest.approx(0.9), 2)
        assert kind_of(named) == ".xml"
        assert parts_of(named) == [file, file.with_suffix(".bin")]
        sizes = sum(part.stat().st_size for part in parts_of(named))
        assert size_mb(named) == pytest.approx(sizes / 1e6)


def test_what_ultralytics_writes_beside_its_model_is_read(tmp_path):
    file = yolo(tmp_path / "yolo_openvino_model", texts={})
    (file.parent / "metadata.yaml").write_text(
        "description: Ultralytics YOLO11n\ntask: detect\nstride: 32\nimgsz: [64, 64]\n"
        "names:\n  0: cat\n  1: dog\n"
    )
    detector = load_detector(file.parent)
    assert (detector.class_names, detector.reading.resize) == (("cat", "dog"), "letterbox")


def test_source_yaml_in_the_folder_or_beside_it_wins(tmp_path):
    file = yolo(tmp_path / "model")
    (file.parent / "source.yaml").write_text("classes: [a, b]")
    assert load_detector(file.parent).class_names == load_detector(file).class_names == ("a", "b")
    (file.parent / "source.yaml").rename(tmp_path / "source.yaml")
    assert load_detector(file.parent).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("batch", 3, SIDE, SIDE), TensorProto.FLOAT),
        ((1, SIDE, SIDE, 3), TensorProto.UINT8),
        ((1, 3, SIDE, SIDE), TensorProto.FLOAT16),
    ],
)
def test_inputs_of_every_usual_kind_are_fed(tmp_path, shape, kind):
    assert len(load_detector(yolo(tmp_path, shape=shape, kind=kind))(PICTURE)) == 2


def test_several_threads_have_a_model_each(tmp_path):
    detector = load_detectors(yolo(tmp_path), workers=2)
    assert [len(each) for each in detector.detect_all([PICTURE] * 3)] == [2, 2, 2]


def test_without_openvino_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    file = yolo(tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert message(file) == (
        f"{file}: is run by OpenVINO, which is not here.\n"
        "  Install it: pip install 'odtrain[openvino]'"
    )


def test_a_folder_with_two_models_does_not_say_which_is_meant(tmp_path):
    file = yolo(tmp_path)
    for part in parts_of(file):
        shutil.copy(part, part.with_stem("other"))
    assert message(tmp_path) == (
        f"{tmp_path}: holds 2 OpenVINO models: other.xml, yolo.xml.\n  Name the .xml. {IN_A_PAIR}"
    )


@pytest.mark.parametrize(
    ("old", "new", "problem", "remedy"),
    [
        ('version="opset1"', 'version="mine"', "holds an operator of somebody's own: mine.", NOT_RUN),
        ('version="11"', 'version="7"', "is no OpenVINO model: its version is 7, not 10 or 11.", None),
        ("<net ", "<annotation ", "is no OpenVINO model: its first element is annotation.", None),
        (
            '<?xml version="1.0"?>',
            '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaa">]>',
            "is no OpenVINO model: it declares a document type.",
            None,
        ),
        (
            "<layers>",
            "<layers>" + "<body>" * DEEPEST,
            f"is no OpenVINO model: elements lie {DEEPEST} deep in each other.",
            None,
        ),
        ("</net>", "", "is no OpenVINO model: no element found: line ", None),
        ('offset="0"', 'offset="99999999"', "has weights beyond the end of yolo.bin.", None),
        ('offset="0"', 'offset="-8"', "has weights beyond the end of yolo.bin.", None),
        ('offset="0"', 'offset="no number"', "is no OpenVINO model: invalid literal", None),
        ('"1, 6, 84"', '"1, 6, 99999999999"', "declares 599,999,999,994 weights in ", None),
        ('"1, 6, 84"', '"1, 6, -84"', "declares -504 weights in a tensor of ", None),
    ],
)  # fmt: skip
def test_what_is_hostile_is_refused_before_it_is_run(tmp_path, old, new, problem, remedy):
    said = message(changed(yolo(tmp_path), old, new))
    assert said.startswith(f"{tmp_path / 'yolo.xml'}: {problem}")
    assert said.endswith(f"\n  {remedy or MAKE_AGAIN}")


def test_weights_that_are_cut_off_or_away_are_told(tmp_path):
    file = yolo(tmp_path)
    weights = file.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-4])
    assert message(file) == f"{file}: has weights beyond the end of yolo.bin.\n  {MAKE_AGAIN}"
    weights.unlink()
    assert message(file) == f"{file}: has no yolo.bin beside it.\n  {IN_A_PAIR}"


def test_what_openvino_refuses_is_one_line(tmp_path):
    file = changed(yolo(tmp_path), 'type="Const"', 'type="Konst"')
    assert message(file) == (
        f"{file}: cannot be run: Opset opset1 doesn't contain the operation with type: Konst\n"
        f"  {MAKE_AGAIN}"
    )
