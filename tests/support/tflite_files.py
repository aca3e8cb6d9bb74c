"""Small .tflite files made by hand, in every layout that strangers use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from numpy.typing import NDArray

TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int8): schema.TensorType.INT8,
}
Named = tuple[str, NDArray[Any]]
ANCHORS = np.array([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]], np.float32)
"""(3, 4) y, x, height, width: three boxes apart from one another."""


class _Model:
    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, name: str, value: NDArray[Any], *, constant: bool) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(value.shape), TYPES[value.dtype]
        if constant:
            tensor.buffer = len(self.model.buffers)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def save(self, file: Path, image: int, outputs: Sequence[int]) -> Path:
        self.graph.inputs, self.graph.outputs = [image], list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        file.write_bytes(bytes(builder.Output()))
        return file


def write_constant_model(
    file: Path, outputs: Sequence[Named], image: NDArray[Any] | None = None
) -> Path:
    """A model of one picture (1, 4, 6, 3) whose outputs are always `outputs`, in that order."""
    model = _Model()
    picture = np.zeros((1, 4, 6, 3), np.float32) if image is None else image
    entry = model.tensor("image", picture, constant=False)
    return model.save(file, entry, [model.tensor(*named, constant=True) for named in outputs])


def quantize_input(file: Path, scale: float, zero_point: int) -> Path:
    """Give the model's input a scale and a zero point."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(file.read_bytes())))
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = [scale], [zero_point]
    model.subgraphs[0].tensors[0].quantization = quantization
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    return file


def write_postprocess_model(
    file: Path, scores: NDArray[np.float32], *, per_class: bool, output_order: Sequence[int]
) -> Path:
    """A model whose post-processing operator sees the three `ANCHORS` as boxes, unshifted.

    Args:
        scores: (3, K + 1) of each anchor, background first.
        output_order: the operator's ports (boxes, classes, scores, count) in the file's order.
    """
    model = _Model()
    image = model.tensor("image", np.zeros((1, 4, 6, 3), np.float32), constant=False)
    inputs = [
        model.tensor("boxes", np.zeros((1, 3, 4), np.float32), constant=True),
        model.tensor("scores", scores[None], constant=True),
        model.tensor("anchors", ANCHORS, constant=True),
    ]
    ports = [
        model.tensor(f"StatefulPartitionedCall:{3 - port}", value, constant=False)
        for port, value in enumerate(
            (np.zeros((1, 10, 4)), np.zeros((1, 10)), np.zeros((1, 10)), np.zeros(1))
        )
        for value in [value.astype(np.float32)]
    ]
    _add_postprocess(model, inputs, ports, scores.shape[1] - 1, per_class)
    return model.save(file, image, [ports[port] for port in output_order])


def _add_postprocess(
    model: _Model, inputs: list[int], ports: list[int], num_classes: int, per_class: bool
) -> None:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = 32
    code.customCode, code.version = "TFLite_Detection_PostProcess", 1
    model.model.operatorCodes.append(code)
    options = {
        "detections_per_class": 10,
        "h_scale": 5.0,
        "max_classes_per_detection": 1,
        "max_detections": 10,
        "nms_iou_threshold": 0.6,
        "nms_score_threshold": 1e-8,
        "num_classes": num_classes,
        "use_regular_nms": per_class,
        "w_scale": 5.0,
        "x_scale": 10.0,
        "y_scale": 10.0,
    }
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, ports
    operator.customOptions = np.frombuffer(flexbuffers.Dumps(options), np.uint8)
    model.graph.operators.append(operator)
