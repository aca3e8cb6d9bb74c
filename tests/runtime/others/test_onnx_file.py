"""ONNX files: what is run, and what of strangers' files is refused before it is."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnx_files import SIDE, save, write_constant_onnx, write_sized_onnx

from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.model_files import load_detector, load_detectors
from odtrain_runtime.others.onnx_check import INSIDE, MAKE_AGAIN, NOT_RUN, check_onnx
from odtrain_runtime.others.protobuf_wire import Message
from odtrain_runtime.others.raw_model import ONE_PICTURE

PICTURE = np.zeros((SIDE, SIDE * 2, 3), np.uint8)
ULTRALYTICS = {"names": "{0: 'cat', 1: 'dog'}", "stride": "32", "task": "detect"}
ROWS = np.zeros((1, 6, 84), np.float32)
ROWS[0, :, 0] = [32, 32, 16, 8, 0.1, 0.9]


def yolo(file: Path, **more) -> Path:
    return write_constant_onnx(file, {"output0": ROWS}, texts=ULTRALYTICS, **more)


def message(file: Path, **more) -> str:
    with pytest.raises(ModelFileError) as error:
        load_detector(file, **more)
    return str(error.value)


def test_a_file_that_says_who_made_it_is_read_as_its_maker_does(tmp_path):
    detector = load_detector(yolo(tmp_path / "model.onnx"))
    (found,) = detector.detect_all([PICTURE])
    assert detector.class_names == ("cat", "dog")
    assert (detector.reading.head, detector.reading.resize) == ("yolo", "letterbox")
    # In the middle of the input, which the picture fills from its quarter to its three quarters.
    assert found.boxes[0] == pytest.approx([3 / 8, 3 / 8, 5 / 8, 5 / 8])
    assert (found.scores[0], found.classes[0]) == (pytest.approx(0.9), 2)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("batch", 3, SIDE, SIDE), TensorProto.FLOAT),
        ((1, 3, SIDE, SIDE), TensorProto.FLOAT16),
        ((1, SIDE, SIDE, 3), TensorProto.UINT8),
        ((1, SIDE, SIDE, 3), TensorProto.DOUBLE),
    ],
)
def test_inputs_of_every_usual_kind_are_fed(tmp_path, shape, kind):
    detector = load_detector(yolo(tmp_path / "model.onnx", shape=shape, kind=kind))
    assert len(detector(PICTURE)) == 2


BESIDE = "classes: [cat, dog]\nresize: letterbox\nscale: 0.00392156863\n"


def test_the_size_of_the_picture_is_given_to_a_file_that_asks_for_it(tmp_path):
    file = write_sized_onnx(tmp_path / "rtdetr.onnx", [[0.5, 0.25, 1, 0.5], [0, 0, 1, 1]])
    (tmp_path / "source.yaml").write_text(BESIDE)
    detector = load_detector(file)
    # 64 x 128 pixels; a square picture lies in the middle, from a quarter to three quarters.
    found = detector(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert found.boxes[0] == pytest.approx([0.25, 0.5, 0.5, 1.0])
    assert found.boxes[1] == pytest.approx([0, 0, 1, 1])
    assert found.scores == pytest.approx([0.9, 0.8])
    assert found.classes.tolist() == [1, 2]


def test_how_its_pictures_are_made_ready_is_not_guessed(tmp_path):
    said = message(write_sized_onnx(tmp_path / "rtdetr.onnx", [[0, 0, 1, 1]]))
    assert (
        "does not say how its pictures are made ready; its outputs may be those of detections"
        in said
    )
    assert said.endswith(
        "head: detections\nresize: stretch\ncolours: rgb\nscale: 0.00392156863\nmean: [0, 0, 0]\n"
        "std: [1, 1, 1]\ninterpolation: antialias\nboxes: xyxy"
    )


def test_a_second_input_that_is_no_size_is_refused(tmp_path):
    file = write_sized_onnx(tmp_path / "model.onnx", [[0, 0, 1, 1]], "scale_factor")
    assert message(file) == (
        f"{file}: takes images: tensor(float), scale_factor: tensor(int64), not one picture.\n"
        f"  {ONE_PICTURE}"
    )


def test_a_file_for_pictures_of_any_size_needs_one_named(tmp_path):
    file = yolo(tmp_path / "model.onnx", shape=(1, 3, "h", "w"))
    assert message(file) == (
        f"{file}: takes pictures of any size.\n"
        "  Say in source.yaml beside it at which it was trained: size: [640, 640]"
    )
    (tmp_path / "source.yaml").write_text(f"size: {SIDE}")
    assert load_detector(file).input_size == (SIDE, SIDE)


def test_several_threads_share_one_session(tmp_path):
    detector = load_detectors(yolo(tmp_path / "model.onnx"), workers=2)
    assert [len(each) for each in detector.detect_all([PICTURE] * 3)] == [2, 2, 2]


def test_source_yaml_wins_over_what_the_file_says(tmp_path):
    (tmp_path / "source.yaml").write_text("resize: stretch\nclasses: [a, b]")
    detector = load_detector(yolo(tmp_path / "model.onnx"))
    assert (detector.reading.resize, detector.class_names) == ("stretch", ("a", "b"))


def test_names_of_another_number_are_refused(tmp_path):
    (tmp_path / "source.yaml").write_text("classes: [a, b, c]")
    file = yolo(tmp_path / "model.onnx")
    assert message(file) == (
        f"{file}: tells 2 classes apart, and 3 names are given.\n"
        "  Give the list that the model was made with."
    )


@pytest.mark.parametrize(
    ("shape", "problem", "remedy"),
    [
        (
            (8, 3, SIDE, SIDE),
            "takes 8 pictures at once: (8, 3, 64, 64).",
            "Export it for a batch of 1, or of any number.",
        ),
        ((1, 4, SIDE, SIDE), "takes (1, 4, 64, 64), not one RGB picture.", ONE_PICTURE),
        ((1, 100), "takes (1, 100), not one RGB picture.", ONE_PICTURE),
        ((1, 3, 1 << 20, 64), "takes (1, 3, 1048576, 64), not one RGB picture.", ONE_PICTURE),
    ],
)
def test_what_takes_no_single_picture(tmp_path, shape, problem, remedy):
    file = yolo(tmp_path / "model.onnx", shape=shape)
    assert message(file) == f"{file}: {problem}\n  {remedy}"


def test_a_model_of_another_task(tmp_path):
    texts = {**ULTRALYTICS, "task": "segment"}
    file = write_constant_onnx(tmp_path / "model.onnx", {"output0": ROWS}, texts=texts)
    assert message(file) == (
        f"{file}: says that it is made to segment, not to detect.\n  Give a detector of boxes."
    )


def test_outputs_of_no_known_head(tmp_path):
    file = write_constant_onnx(tmp_path / "model.onnx", {"logits": np.zeros((1, 1000))})
    assert message(file) == (
        f"{file}: its outputs, without the batch, are logits (1000,): of no detector that is known.\n"
        "  Known heads are: detections, yolo, yolov5, yolox, yolox_raw, end_to_end, detr, ssd, nanodet."
    )


# ---- hostile and damaged files


def graph(nodes, outputs=("output0",), constants=()):
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(list(nodes), "g", [image], given, list(constants))


def truncated(file: Path) -> tuple[str, str]:
    content = yolo(file).read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return "is no ONNX model: it ends in the middle of a field.", MAKE_AGAIN


def empty(file: Path) -> tuple[str, str]:
    file.write_bytes(b"")
    return "is empty.", MAKE_AGAIN


def renamed(file: Path) -> tuple[str, str]:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", "")
    problem = "is an archive, as PyTorch writes its models, and no ONNX model."
    return problem, "Export it to ONNX: renaming a file changes nothing."


def noise(file: Path) -> tuple[str, str]:
    file.write_bytes(bytes(range(1, 250)) * 40)
    return "is no ONNX model: it ends in the middle of a field.", MAKE_AGAIN


def own_operator(file: Path) -> tuple[str, str]:
    node = helper.make_node("Evil", ["images"], ["output0"], domain="my.lib")
    save(file, graph([node]))
    return "holds an operator of somebody's own: my.lib.Evil.", NOT_RUN


def hidden_operator(file: Path) -> tuple[str, str]:
    evil = helper.make_node("Evil", ["images"], ["inside"], domain="my.lib")
    branch = helper.make_graph(
        [evil], "b", [], [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)]
    )
    truth = numpy_helper.from_array(np.array(True), "truth")
    node = helper.make_node("If", ["truth"], ["output0"], then_branch=branch, else_branch=branch)
    save(file, graph([node], constants=[truth]))
    return "holds an operator of somebody's own: my.lib.Evil.", NOT_RUN


def outside(file: Path) -> tuple[str, str]:
    save(file, graph([], ("w",), [beside("../../etc/passwd", [4])]))
    return "has weights outside of its folder: ../../etc/passwd.", INSIDE


def by_link(file: Path) -> tuple[str, str]:
    (file.parent / "weights").symlink_to("/etc/passwd")
    save(file, graph([], ("w",), [beside("weights", [4])]))
    return "has weights outside of its folder: weights.", INSIDE


def beyond(file: Path) -> tuple[str, str]:
    (file.parent / "weights").write_bytes(b"\0" * 8)
    save(file, graph([], ("w",), [beside("weights", [4], length="16")]))
    return "has weights beyond the end of weights.", MAKE_AGAIN


def huge(file: Path) -> tuple[str, str]:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20])
    save(file, graph([], ("w",), [tensor]))
    return "declares 1,099,511,627,776 weights in a tensor of 0 bytes.", MAKE_AGAIN


def deep(file: Path) -> tuple[str, str]:
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(20):
        inner = helper.make_graph(
            [helper.make_node("If", ["t"], [], then_branch=inner)], "g", [], []
        )
    onnx.save(helper.make_model(inner), str(file))
    return "is no ONNX model: graphs lie 16 deep in each other.", MAKE_AGAIN


def beside(location: str, dims: list[int], **more: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize(
    "make",
    [
        *(truncated, empty, renamed, noise, own_operator, hidden_operator),
        *(outside, by_link, beyond, huge, deep),
    ],
    ids=lambda make: make.__name__,
)
def test_a_hostile_file_is_refused_before_the_runtime_sees_it(tmp_path, make, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    file = tmp_path / "model.onnx"
    problem, remedy = make(file)
    assert message(file) == f"{file}: {problem}\n  {remedy}"


def circular(file: Path) -> None:
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    save(file, graph(nodes, ("b",)))


def newer(file: Path) -> None:
    save(file, graph([helper.make_node("Relu", ["images"], ["output0"])]), opset=9999)


def unknown(file: Path) -> None:
    save(file, graph([helper.make_node("NoSuchThing", ["images"], ["output0"])]))


@pytest.mark.parametrize("make", [circular, newer, unknown], ids=lambda make: make.__name__)
def test_what_the_runtime_refuses_is_said_in_a_line(tmp_path, make):
    file = tmp_path / "model.onnx"
    make(file)
    shown = message(file)
    assert shown.startswith(f"{file}: cannot be run: ")
    assert shown.endswith(f"\n  {MAKE_AGAIN}")
    assert len(shown.splitlines()) == 2


def test_without_onnx_runtime_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    file = yolo(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert message(file) == (
        f"{file}: is run by ONNX Runtime, which is not here.\n"
        "  Install ONNX Runtime: pip install 'odtrain[onnx]'"
    )


def test_texts_are_read_without_the_runtime(tmp_path):
    assert check_onnx(yolo(tmp_path / "model.onnx"))["names"] == "{0: 'cat', 1: 'dog'}"


def test_a_file_of_more_fields_than_a_network_has_is_left(monkeypatch):
    monkeypatch.setattr("odtrain_runtime.others.protobuf_wire.MOST_FIELDS", 4000)
    with pytest.raises(ValueError, match=r"^more than 4,000 fields$"):
        list(Message(memoryview(b"\x08\x00" * 4001)))
