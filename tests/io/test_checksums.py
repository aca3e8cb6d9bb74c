from __future__ import annotations

import subprocess

import pytest

from odtrain.errors import TrackingError
from odtrain.io.checksums import SUMS, checksums, of_files, verify


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "saved_model" / "variables").mkdir(parents=True)
    (tmp_path / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "saved_model" / "variables" / "v").write_bytes(b"weights")
    (tmp_path / "my model.tflite").write_bytes(b"lite")
    tops = [tmp_path / "saved_model", tmp_path / "my model.tflite"]
    (tmp_path / SUMS).write_text(checksums(tops))
    return tmp_path


def test_they_are_what_sha256sum_writes(folder):
    names = ["my model.tflite", "saved_model/saved_model.pb", "saved_model/variables/v"]
    written = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True)
    assert (folder / SUMS).read_text() == written.stdout
    verify(folder)


def test_some_files_have_their_lines_alone(folder):
    (line,) = of_files((folder / SUMS).read_text(), ["my model.tflite"]).splitlines()
    assert line.endswith("  my model.tflite")


@pytest.mark.parametrize("content", [pytest.param(b"grapf", id="damaged"), None])
def test_a_damaged_or_missing_file_is_named(folder, content):
    file = folder / "saved_model" / "saved_model.pb"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TrackingError) as caught:
        verify(folder)
    assert str(caught.value) == f"{file}: is damaged or missing.\n  Download the model again."


def test_a_folder_without_checksums_is_refused(tmp_path):
    with pytest.raises(TrackingError) as caught:
        verify(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds no SHA256SUMS.\n"
        "  Was this model registered by odtrain? Download it again."
    )
