"""Runs object detectors that odtrain trained: a .tflite in, boxes, scores and class names out.

import odtrain_runtime
detector = odtrain_runtime.load("model.tflite")
(found,) = detector.predict("picture.jpg")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odtrain_runtime.predictor import Detector, load
    from odtrain_runtime.structures import Detections

__version__ = "0.1.0"
__all__ = ["Detections", "Detector", "load"]


_HOME = {"Detections": "structures", "Detector": "predictor", "load": "predictor"}


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for: a part of this is quick to import."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
