"""What .tflite files say of themselves, read back from what was written."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from support.tflite_files import write_constant_model, write_postprocess_model

from odtrain.model_files.tflite_metadata import BUFFER_ALIGNMENT, with_metadata
from odtrain_runtime.tflite_metadata import Metadata, Postprocess, read_metadata

NAMES = ("button", "엘리베이터 문", "raccoon's tail")
PASSPORT = {"run_id": "4f2a", "data_digest": "sha256:77"}
SCORES = np.array([[0, 0.9, 0.1, 0.2], [0, 0.1, 0.2, 0.8], [0, 0.1, 0.7, 0.1]], np.float32)
CONVERTER_ORDER = (2, 0, 3, 1)
"""Scores, boxes, count, classes: as TensorFlow's converter has put them since 2.6."""


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    return write_postprocess_model(
        tmp_path / "converted.tflite", SCORES, per_class=True, output_order=CONVERTER_ORDER
    )


@pytest.fixture
def described(converted: Path) -> Path:
    file = converted.with_name("described.tflite")
    file.write_bytes(with_metadata(converted.read_bytes(), NAMES, PASSPORT))
    return file


OPERATOR = Postprocess(
    inputs=(1, 2, 3),
    scales=(10, 10, 5, 5),
    outputs=(4, 5, 6, 7),
    max_detections=10,
    num_classes=3,
    per_class=True,
)


def opened(file: Path) -> Interpreter:
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    interpreter.invoke()
    return interpreter


def test_what_was_written_is_read_back(described):
    assert read_metadata(described) == Metadata(
        output_names=("location", "category", "score", "number of detections"),
        class_names=NAMES,
        mean=(127.5,),
        std=(127.5,),
        passport=PASSPORT,
        postprocess=OPERATOR,
    )


def test_any_zip_reader_gets_the_class_names(described):
    with zipfile.ZipFile(described) as archive:
        assert archive.read("labels.txt").decode() == "button\n엘리베이터 문\nraccoon's tail\n"


def test_outputs_get_the_classic_order_and_names(described):
    details = opened(described).get_output_details()
    assert [(each["name"], each["shape"].tolist()) for each in details] == [
        ("TFLite_Detection_PostProcess", [1, 10, 4]),
        ("TFLite_Detection_PostProcess:1", [1, 10]),
        ("TFLite_Detection_PostProcess:2", [1, 10]),
        ("TFLite_Detection_PostProcess:3", [1]),
    ]


def test_the_described_model_finds_what_the_converted_one_found(converted, described):
    before, after = opened(converted), opened(described)
    for old, new in zip((1, 3, 0, 2), range(4), strict=True):
        old_value = before.get_tensor(before.get_output_details()[old]["index"])
        new_value = after.get_tensor(after.get_output_details()[new]["index"])
        np.testing.assert_array_equal(old_value, new_value)


def test_tensor_data_keeps_the_alignment_the_schema_asks_for(described):
    content = described.read_bytes()
    model = schema.Model.GetRootAs(content)
    start = np.frombuffer(content, np.uint8).ctypes.data
    buffers = (model.Buffers(index) for index in range(model.BuffersLength()))
    offsets = [each.DataAsNumpy().ctypes.data - start for each in buffers if not each.DataIsNone()]
    assert len(offsets) == 4
    assert [offset % BUFFER_ALIGNMENT for offset in offsets] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("per_class", "num_classes", "warned"),
    [
        pytest.param(True, 3, True, id="per class, many classes"),
        pytest.param(True, 2, False, id="per class, as few classes as threads"),
        pytest.param(False, 3, False, id="all classes at once"),
    ],
)
def test_files_that_lose_a_class_with_several_threads_say_so(
    tmp_path, per_class, num_classes, warned
):
    file = write_postprocess_model(
        tmp_path / "model.tflite",
        SCORES[:, : num_classes + 1],
        per_class=per_class,
        output_order=CONVERTER_ORDER,
    )
    content = with_metadata(file.read_bytes(), NAMES[:num_classes], PASSPORT)
    assert (b"Run it with one thread" in content) == warned


@pytest.mark.parametrize(
    ("per_class", "num_classes", "threads", "safe"),
    [
        pytest.param(True, 3, 2, 1, id="class 3 would be lost"),
        pytest.param(True, 3, 3, 3, id="a thread for each class"),
        pytest.param(True, 1, 4, 4, id="one class"),
        pytest.param(False, 90, 4, 4, id="all classes at once"),
    ],
)
def test_safe_threads(per_class, num_classes, threads, safe):
    assert Postprocess((), (), (), 10, num_classes, per_class).safe_threads(threads) == safe


def test_a_model_that_does_not_end_in_detections_is_not_described(tmp_path):
    file = write_constant_model(
        tmp_path / "model.tflite", [("score", np.zeros((1, 3), np.float32))]
    )
    with pytest.raises(
        ValueError, match=r"^the model does not end in detections: it has no output location$"
    ):
        with_metadata(file.read_bytes(), NAMES, PASSPORT)


def test_a_file_without_metadata_reads_as_saying_nothing(converted):
    assert read_metadata(converted) == Metadata(postprocess=OPERATOR)


def test_damaged_metadata_reads_as_saying_nothing(described):
    content = bytearray(described.read_bytes())
    start = content.index(b"M001") - 4
    content[start : start + 4] = b"\xff\xff\xff\x7f"
    described.write_bytes(content)
    assert read_metadata(described) == Metadata(postprocess=OPERATOR)


def test_a_label_file_that_would_unpack_to_much_is_left_packed(converted):
    names = ["x" * 1000] * 1100
    converted.write_bytes(with_metadata(converted.read_bytes(), names, PASSPORT))
    metadata = read_metadata(converted)
    assert (metadata.class_names, metadata.passport) == ((), PASSPORT)


def test_boxes_are_said_to_be_in_yxyx_order(described):
    left_top_right_bottom = struct.pack("<5I", 4, 1, 0, 3, 2)
    assert left_top_right_bottom in described.read_bytes()


def test_the_published_coco_file_has_the_operator_and_no_metadata(shared):
    file = shared / "zoo" / "ssd_mobilenet_v1_0.75_depth_quantized_coco.tflite"
    assert read_metadata(file) == Metadata(
        postprocess=Postprocess(
            (165, 174, 171),
            (10, 10, 5, 5),
            (167, 168, 169, 170),
            10,
            num_classes=90,
            per_class=False,
        )
    )
