"""Real exports of LibreYOLO's own code, read here, beside what its own program finds with the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from odtrain_runtime.model_files import load_detector, open_model
from odtrain_runtime.others.raw_model import raw_detector
from odtrain_runtime.pictures import read_upright

SCRIPT = Path(__file__).parents[2] / "support" / "libreyolo_exports.py"
PYTHON = "ODTRAIN_TEST_LIBREYOLO"
"""Variable that may name a Python with LibreYOLO; else an environment is made, with 6 GB of PyTorch."""
PICTURES = 40


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    if PYTHON in os.environ:
        return os.environ[PYTHON]
    folder = tmp_path_factory.mktemp("libreyolo") / "env"
    venv.create(folder, with_pip=True)
    made = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    wanted = "libreyolo[onnx,rfdetr]==1.6.0"
    subprocess.run([made, "-m", "pip", "install", "-q", wanted], check=True)
    return str(made)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, shared) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for file in sorted((shared / "data/raccoon/images").iterdir())[:PICTURES]:
        (folder / file.name).symlink_to(file)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", ["yolox", "yolo9", "dfine", "rtdetr", "rfdetr"])
def test_its_export_finds_here_what_its_own_program_finds(name, python, pictures, tmp_path):
    subprocess.run([python, SCRIPT, pictures, tmp_path, name], check=True, cwd=tmp_path)
    file = tmp_path / f"{name}.onnx"
    how = replace(load_detector(file).reading, iou=1.0)
    detector = raw_detector(open_model(file, 1), how)
    table = json.loads((tmp_path / f"{name}.json").read_text())
    assert len(table) == PICTURES
    count, other = 0, []
    for picture, wanted in table.items():
        image = read_upright(pictures / picture)
        found = detector(image)
        height, width = image.shape[:2]
        xyxy = np.array(wanted["boxes"]).reshape(-1, 4) / [width, height, width, height]
        for box, score, number in zip(
            np.clip(xyxy, 0, 1)[:, [1, 0, 3, 2]], wanted["scores"], wanted["classes"], strict=True
        ):
            if number >= how.num_classes:  # RF-DETR's column of no object, which LibreYOLO shows
                continue
            count += 1
            same = (found.classes == number + 1) & (np.abs(found.scores - score) <= 1e-4)
            if not (np.abs(found.boxes - box).max(axis=1)[same] <= 1e-3).any():
                other.append((picture, number, score))
    assert count > 1000
    # Random weights choose among queries that differ in the last bit: one of RF-DETR's may be another.
    assert len(other) <= (1 if name == "rfdetr" else 0), other
