"""OpenVINO models made of small .onnx files, sound and hostile ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto
from support.onnx_files import SIDE, write_constant_onnx

from odtrain_runtime.others.openvino_file import import_openvino


def write_constant_openvino(
    folder: Path,
    outputs: Mapping[str, NDArray[Any]],
    shape: Sequence[int | str] = (1, 3, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    texts: Mapping[str, str] | None = None,
) -> Path:
    """The .xml of a model that says the same of each picture; the .bin lies beside it."""
    openvino = import_openvino()
    folder.mkdir(parents=True, exist_ok=True)
    made = write_constant_onnx(folder / "made.onnx", outputs, shape, kind, texts)
    openvino.save_model(
        openvino.Core().read_model(made), folder / "yolo.xml", compress_to_fp16=False
    )
    made.unlink()
    return folder / "yolo.xml"
