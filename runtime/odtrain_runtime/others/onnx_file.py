"""ONNX files as detectors, ours or a stranger's: ONNX Runtime and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime import provenance
from odtrain_runtime.detector import cannot_run
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others.onnx_check import check_onnx
from odtrain_runtime.others.raw_model import Port, RawModel, taken

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
"""ONNX Runtime's name of a type of inputs."""
FATAL = 4
"""Of ONNX Runtime's log: what matters comes as an exception."""
INSTALL = "Install ONNX Runtime: pip install 'odtrain[onnx]'"


def open_onnx(path: Path, threads: int) -> RawModel:
    """A file that ONNX Runtime computes.

    Raises:
        ModelFileError: it cannot be read or run, or takes no single picture.
    """
    if path.is_dir():
        raise ModelFileError(path, "is a folder.", "Name the file.")
    texts = check_onnx(path)
    session = _session(path, threads)
    inputs = session.get_inputs()
    takes = taken(
        path, [Port(each.name, each.type, DTYPES.get(each.type), _shape(each)) for each in inputs]
    )
    names = [each.name for each in session.get_outputs()]

    def compute(tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        given = zip((each.name for each in inputs), takes.inputs(tensor), strict=True)
        return _named(names, session.run(names, dict(given)))

    return RawModel(
        path=path,
        format="onnx",
        takes=takes,
        compute=compute,
        threads=threads,
        metadata=texts,
        passport=provenance.read_passport(texts.get(provenance.PASSPORT_NODE, "")),
        class_names=provenance.read_labels(texts.get(provenance.LABELS_NODE, "")),
    )


def _shape(port: Any) -> tuple[int | None, ...]:
    return tuple(side if isinstance(side, int) and side > 0 else None for side in port.shape)


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ModelFileError(path, "is run by ONNX Runtime, which is not here.", INSTALL) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = FATAL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        cannot_run(path, error)


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, NDArray[Any]]:
    arrays = {name: value for name, value in zip(names, values, strict=True)}
    return {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
