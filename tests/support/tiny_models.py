"""Model files that tests look with."""

import numpy as np
import pytest
from support.tflite_files import write_constant_model

BOXES = np.float32([[[0.25, 0.25, 0.75, 0.5], [0, 0.5, 0.5, 1]]])


@pytest.fixture
def model(tmp_path):
    """circle with 0.9 in the middle left, square with 0.6 in the upper right corner."""
    (tmp_path / "labels.txt").write_text("circle\nsquare\n")
    outputs = [
        ("boxes", BOXES),
        ("classes", np.float32([[0, 1]])),
        ("scores", np.float32([[0.9, 0.6]])),
        ("num_detections", np.float32([2])),
    ]
    return write_constant_model(tmp_path / "model.tflite", outputs)
