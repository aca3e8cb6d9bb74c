"""Small files that would unpack to much."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from support.tflite_files import write_constant_model

from odtrain_runtime.flatbuffer import LONGEST_VECTOR, MOST_READ, Reader
from odtrain_runtime.provenance import PASSPORT_FILE, read_passport
from odtrain_runtime.tflite_metadata import LARGEST_TEXT, Metadata, read_metadata

MOST_MEMORY = 20_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_constant_model(tmp_path / "m.tflite", [("a", np.zeros((1, 3), np.float32))])


def pack(file: Path, texts: dict[str, str]) -> None:
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)


def read_within_bounds(file: Path) -> Metadata:
    tracemalloc.start()
    found = read_metadata(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_MEMORY
    return found


def test_texts_that_nobody_asks_for_are_not_unpacked(file):
    pack(file, {f"text {n}": "x" * LARGEST_TEXT for n in range(100)})
    pack(file, {PASSPORT_FILE: '{"run": "r1"}'})
    assert read_within_bounds(file).passport == {"run": "r1"}


def test_a_text_beyond_the_bound_counts_as_none(file):
    pack(file, {PASSPORT_FILE: '{"run": "r1"}' + " " * LARGEST_TEXT})
    assert read_within_bounds(file).passport == {}


def test_a_long_list_of_files_is_not_read(file):
    pack(file, {PASSPORT_FILE: "{}"} | {f"{n}": "" for n in range(40_000)})
    assert read_within_bounds(file).passport == {}


def test_a_passport_that_is_nested_without_end_counts_as_none():
    assert read_passport("[" * 100_000) == {}


def test_a_list_that_is_longer_than_any_has_is_refused():
    builder = flatbuffers.Builder()
    numbers = builder.CreateNumpyVector(np.zeros(LONGEST_VECTOR + 1, np.float32))
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, numbers, 0)
    builder.Finish(builder.EndObject())
    content = bytes(builder.Output())
    with pytest.raises(ValueError, match="a list of 10001 parts"):
        Reader(content, int.from_bytes(content[:4], "little")).floats(0)


def test_few_bytes_that_stand_for_many_texts_are_not_read_without_end():
    builder = flatbuffers.Builder()
    text = builder.CreateString("x" * 60_000)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    one = builder.EndObject()
    builder.StartVector(4, 2000, 4)
    for _ in range(2000):
        builder.PrependUOffsetTRelative(one)
    many = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, many, 0)
    builder.Finish(builder.EndObject())
    content = bytes(builder.Output())
    tables = Reader(content, int.from_bytes(content[:4], "little")).tables(0)
    assert tables[0].text(0) == "x" * 60_000
    with pytest.raises(ValueError, match=f"more than {MOST_READ} bytes about itself"):
        [each.text(0) for each in tables]
