"""Importing what takes seconds: it is said that it is done, and TensorFlow keeps its own affairs to itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from odtrain.system.progress import doing

SLOW = {
    "tensorflow": "TensorFlow",
    "tf_keras": "Keras",
    "official": "the Model Garden",
    "mlflow": "MLflow",
    "optuna": "Optuna",
    "hydra": "the settings",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "pandas": "pandas",
    "matplotlib": "Matplotlib",
    "faster_coco_eval": "the COCO evaluation",
}
"""Packages, and what people call them."""


def say_what_loads() -> None:
    """Say from now on that a slow package is being imported, while it is."""
    if not any(isinstance(one, _Telling) for one in sys.meta_path):
        sys.meta_path.insert(0, _Telling())


def calm_tensorflow(verbosity: int = 0) -> None:
    """Have TensorFlow, CUDA and gRPC print nothing when they start, unless details are wished for.

    Before TensorFlow is imported; processes that this one starts inherit it. What the user has set stays.
    """
    if verbosity <= 0:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


class _Telling(MetaPathFinder):
    """Finds what Python finds anyway, and says so of what is slow."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in SLOW:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _tell(spec.loader, SLOW[name])
        return spec


def _tell(loader: Any, called: str) -> None:
    run = loader.exec_module

    def told(module: ModuleType) -> None:
        with doing(f"Loading {called}"):
            run(module)

    loader.exec_module = told
