from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from odtrain.errors import DataError
from odtrain.io.tfrecord import (
    BYTES,
    FLOATS,
    INTS,
    decode_example,
    encode_example,
    frame,
    index_records,
)

FEATURES = {
    "image/encoded": (BYTES, [bytes(range(256)) * 9]),
    "names": (BYTES, [b"a", "번호판".encode()]),
    "boxes": (FLOATS, [0.1, 0.25, 1.0]),
    "labels": (INTS, [1, 300, -2, 2**62]),
    "none": (FLOATS, []),
    "no names": (BYTES, []),
    "no labels": (INTS, []),
}


def test_tensorflow_reads_the_same_features_and_checksums(tmp_path):
    import tensorflow as tf

    file = tmp_path / "a.record"
    file.write_bytes(frame(encode_example(FEATURES)) * 2)
    first, second = (item.numpy() for item in tf.data.TFRecordDataset(str(file)))
    assert first == second == encode_example(FEATURES)
    example = tf.train.Example.FromString(first).features.feature
    assert set(example) == set(FEATURES)
    assert list(example["image/encoded"].bytes_list.value) == FEATURES["image/encoded"][1]
    assert list(example["names"].bytes_list.value) == FEATURES["names"][1]
    assert list(example["labels"].int64_list.value) == FEATURES["labels"][1]
    assert list(example["boxes"].float_list.value) == pytest.approx([0.1, 0.25, 1.0])
    assert example["none"].WhichOneof("kind") == "float_list"


def test_what_is_encoded_is_decoded():
    decoded = decode_example(encode_example(FEATURES))
    assert decoded["boxes"] == pytest.approx([0.1, 0.25, 1.0])
    for key in FEATURES.keys() - {"boxes"}:
        assert decoded[key] == FEATURES[key][1]


def test_an_index_reads_any_record_of_any_file_from_any_thread(tmp_path):
    payloads = [os.urandom(size) for size in (1, 500, 0, 70_000, 3)]
    files = [tmp_path / "a", tmp_path / "b", tmp_path / "empty"]
    files[0].write_bytes(b"".join(map(frame, payloads[:3])))
    files[1].write_bytes(b"".join(map(frame, payloads[3:])))
    files[2].write_bytes(b"")
    index = index_records(files)
    assert len(index) == 5
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(index.read, [4, 3, 2, 1, 0] * 20)) == payloads[::-1] * 20


def test_an_index_closes_its_files(tmp_path):
    (tmp_path / "a").write_bytes(frame(b"payload"))
    index = index_records([tmp_path / "a"])
    (descriptor,) = [opened._descriptor for opened in index.opened]
    del index
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("cut", "problem"),
    [
        pytest.param(slice(0, -1), "ends in the middle of a record, at byte 45.", id="truncated"),
        pytest.param(slice(0, 30), "is damaged at byte 23.", id="half a length"),
        pytest.param(slice(1, None), "is damaged at byte 0.", id="shifted"),
    ],
)
def test_a_damaged_record_file_is_told(tmp_path, cut, problem):
    file = tmp_path / "train.record-00000-of-00001"
    file.write_bytes((frame(b"payload") * 2)[cut])
    expected = f"{file}: {problem}\n  Delete it and run: odtrain prepare"
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        index_records([file])


def test_a_missing_record_file_is_told(tmp_path):
    file = tmp_path / "gone"
    expected = (
        f"{file}: cannot be read: No such file or directory.\n  Delete it and run: odtrain prepare"
    )
    with pytest.raises(DataError, match=f"^{re.escape(expected)}$"):
        index_records([file])
