"""A stranger's .onnx or OpenVINO model run once in a process with bounds."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnx_files import SIDE, save, write_constant_onnx

from odtrain.errors import ModelFileError
from odtrain.model_files import probe


def refused(file) -> str:
    with pytest.raises(ModelFileError) as error:
        probe.check_runs(file)
    return str(error.value)


def test_a_sound_model_passes(tmp_path):
    probe.check_runs(write_constant_onnx(tmp_path / "a.onnx", {"o": np.zeros((1, 6, 84))}))


def test_what_the_process_says_of_a_file_is_told(tmp_path):
    file = tmp_path / "a.onnx"
    file.write_bytes(b"PK\x03\x04")
    assert refused(file) == (
        f"{file}: is an archive, as PyTorch writes its models, and no ONNX model.\n"
        "  Export it to ONNX: renaming a file changes nothing."
    )


def test_a_model_that_takes_all_memory_is_refused(tmp_path):
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    table = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Shape", ["images"], ["unused"]),
        helper.make_node("ConstantOfShape", ["sides"], ["o"]),
    ]
    sides = numpy_helper.from_array(np.array([1, 1 << 20, 1 << 16], np.int64), "sides")
    file = save(tmp_path / "a.onnx", helper.make_graph(nodes, "g", [image], [table], [sides]))
    shown = refused(file)
    assert shown.startswith(f"{file}: ")
    assert "alloc" in shown or "memory" in shown


def test_a_model_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "MOST_SECONDS", 0.01)
    file = write_constant_onnx(tmp_path / "a.onnx", {"o": np.zeros((1, 6, 84))})
    assert refused(file) == (
        f"{file}: did not run within 0.01 seconds.\n"
        "  It is not opened. Export the model again, or take one that was made for this machine."
    )


def test_an_xml_that_is_no_model_is_told(tmp_path):
    file = tmp_path / "raccoon-1.xml"
    file.write_text("<annotation></annotation>")
    assert refused(file) == (
        f"{file}: is no OpenVINO model: its first element is annotation.\n"
        "  Export the model again, or check that the file was copied or downloaded whole."
    )


def test_a_folder_of_several_openvino_models_is_told(tmp_path):
    for name in ("a.xml", "a.bin", "b.xml", "b.bin"):
        (tmp_path / name).touch()
    assert refused(tmp_path) == (
        f"{tmp_path}: holds 2 OpenVINO models: a.xml, b.xml.\n"
        "  Name the .xml. An OpenVINO model is two files of one name: the .xml, and the .bin beside it."
    )
