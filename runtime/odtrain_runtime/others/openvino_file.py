"""OpenVINO models as detectors, ours or a stranger's: OpenVINO and numpy."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odtrain_runtime import provenance
from odtrain_runtime.detector import cannot_run
from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others.openvino_check import check_openvino, xml_of
from odtrain_runtime.others.raw_model import Port, RawModel, taken

DTYPES = {
    "f32": np.float32,
    "f16": np.float16,
    "f64": np.float64,
    "u8": np.uint8,
    "i8": np.int8,
    "i32": np.int32,
    "i64": np.int64,
}
"""OpenVINO's name of a type of inputs."""
TELEMETRY = "openvino_telemetry"
INSTALL = "Install it: pip install 'odtrain[openvino]'"


def settings(threads: int) -> dict[str, Any]:
    """How OpenVINO computes: in float32 where the model does, which processors with bfloat16 would not.

    Threads are not held to processors: several detectors would be held to the same ones.
    """
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


def open_openvino(path: Path, threads: int) -> RawModel:
    """A model that OpenVINO computes, named by its .xml or its folder.

    Raises:
        ModelFileError: it cannot be read or run, or takes no single picture.
    """
    xml = xml_of(path)
    said = check_openvino(xml)
    compiled = _compiled(path, xml, threads)
    takes = taken(path, list(map(_port, compiled.inputs)))
    request = compiled.create_infer_request()
    names = [output.get_any_name() for output in compiled.outputs]

    def compute(tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        found = request.infer(dict(enumerate(takes.inputs(tensor))))
        return dict(zip(names, map(np.array, found.values()), strict=True))

    return RawModel(
        path=path,
        format="openvino_int8" if said.quantized else "openvino_fp32",
        takes=takes,
        compute=compute,
        threads=threads,
        metadata=said.texts,
        passport=provenance.read_passport(said.texts.get(provenance.PASSPORT_NODE, "")),
        class_names=provenance.read_labels(said.texts.get(provenance.LABELS_NODE, "")),
    )


def _compiled(path: Path, xml: Path, threads: int) -> Any:
    try:
        openvino = import_openvino()
    except ImportError:
        raise ModelFileError(path, "is run by OpenVINO, which is not here.", INSTALL) from None
    try:
        core = openvino.Core()
        return core.compile_model(core.read_model(xml), "CPU", settings(threads))
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        cannot_run(path, RuntimeError((lines or [type(error).__name__])[-1].strip()))


def import_openvino() -> Any:
    """The package `openvino`.

    Raises:
        ImportError: it is not there.
    """
    with nobody_told():
        import openvino
    return openvino


@contextmanager
def nobody_told() -> Iterator[None]:
    """What is imported here tells its makers nothing, and leaves no number in the user's home.

    OpenVINO and NNCF do both where `openvino_telemetry` can be imported, the former when it is imported itself.
    """
    before = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        if before is not None:
            sys.modules[TELEMETRY] = before


def _port(port: Any) -> Port:
    kind = port.get_element_type().get_type_name()
    return Port(port.get_any_name(), kind, DTYPES.get(kind), _shape(port.get_partial_shape()))


def _shape(shape: Any) -> tuple[int | None, ...]:
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if side.is_dynamic else side.get_length() for side in shape)
