"""The formats of exported files: what is known of each, and which file of several is served."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePath

LITERT = ("mlflow", "ai-edge-litert", "flatbuffers", "numpy", "pandas", "pillow")
TENSORFLOW = (*LITERT, "tensorflow")
ONNX = (*LITERT, "onnxruntime")
OPENVINO = (*LITERT, "openvino")
INT8 = "tflite_int8"


@dataclass(frozen=True)
class ExportFormat:
    """What is known of a format.

    Attributes:
        name: in settings, metrics, tags and passports.
        file: what its file or folder is called in `export/`.
        exact: whether it computes what the checkpoint computes; the others may lose a little.
        rank: place among the formats of which one is served, the best being 1.
        needs: distributions by which a registered model runs it.
    """

    name: str
    file: str
    exact: bool
    rank: int
    needs: tuple[str, ...] = LITERT

    @property
    def lite(self) -> bool:
        """Whether it is a .tflite."""
        return PurePath(self.file).suffix == ".tflite"


_ROWS = (
    ExportFormat("pb", "frozen_inference_graph.pb", True, 5, TENSORFLOW),
    ExportFormat("saved_model", "saved_model", True, 6, TENSORFLOW),
    ExportFormat("tflite_fp32", "model.tflite", True, 1),
    ExportFormat("tflite_fp16", "model_fp16.tflite", False, 2),
    ExportFormat("tflite_dynamic", "model_dynamic.tflite", False, 3),
    ExportFormat(INT8, "model_int8.tflite", False, 4),
    ExportFormat("onnx", "model.onnx", True, 7, ONNX),
    ExportFormat("onnx_raw", "model_raw.onnx", True, 8, ONNX),
    ExportFormat("openvino_fp32", "openvino_fp32", True, 9, OPENVINO),
    ExportFormat("openvino_int8", "openvino_int8", False, 10, OPENVINO),
)
FORMATS = {row.name: row for row in _ROWS}
"""By name, in the order in which files are made and listed."""

EXACT_FORMATS = frozenset(row.name for row in _ROWS if row.exact)


def served_format(available: Collection[str], wanted: str | None = None) -> str | None:
    """The format that is served where those of `available` are there; None where none can be.

    Args:
        available: names of formats, of which those that are in no table are never chosen by rank.
        wanted: is served if it is there, such as `registry.format`, or what was served before.
    """
    if wanted in available:
        return wanted
    known = [FORMATS[name] for name in available if name in FORMATS]
    return min(known, key=lambda each: each.rank).name if known else None
