"""What an extra brings along works beside what is there."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

import pytest

TRY = """
import cv2, faster_coco_eval, numpy, trackers
whole, _ = cv2.imencode(".png", numpy.zeros((4, 4, 3), numpy.uint8))
print(whole)
"""


@pytest.mark.long
def test_cv2_works_with_the_opencv_that_the_extra_for_tracks_brings(tmp_path: Path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    headless = version("opencv-python-headless")
    for wanted in (
        [f"opencv-python-headless=={headless}", "faster-coco-eval>=1.7,<2"],
        ["trackers>=2.6,<3"],
    ):
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    said = subprocess.run([python, "-c", TRY], check=True, capture_output=True, text=True)
    assert said.stdout == "True\n"
