"""A .tflite that takes normalised pictures made to take the pictures' own bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from odtrain.model_files.tflite_metadata import pack

SCALE, ZERO_POINT = 2.0 / 255.0, 128
"""(byte - ZERO_POINT) * SCALE is -1 to 1, half a level from (byte - 127.5) / 127.5: zero points are whole."""


def taking_bytes(content: bytes) -> bytes:
    """The model with a uint8 input in place of its float32 one.

    Where all that reads the input brings it to int8, that is done with the bytes themselves; a network that
    begins in another number format has them brought to float32 first.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    for buffer in model.buffers:
        if (
            buffer.offset > 1
        ):  # a large one that was written behind the model (schema.fbs, `Buffer`)
            data = content[buffer.offset : buffer.offset + buffer.size]
            buffer.data, buffer.offset, buffer.size = np.frombuffer(data, np.uint8), 0, 0
    (graph,) = model.subgraphs
    (image,) = graph.inputs
    pixels = _pixels(graph, image)
    quantizing = _code(model, schema.BuiltinOperator.QUANTIZE)
    readers = [each for each in graph.operators if image in list(each.inputs)]
    if all(each.opcodeIndex == quantizing and _gives_int8(graph, each) for each in readers):
        for each in readers:
            each.inputs = [pixels]
    else:
        before = schema.OperatorT()
        before.opcodeIndex = _code(model, schema.BuiltinOperator.DEQUANTIZE)
        before.inputs, before.outputs = [pixels], [image]
        graph.operators.insert(0, before)
    graph.inputs = [pixels]
    for signature in model.signatureDefs or ():
        signature.inputs[0].tensorIndex = pixels
    return pack(model)


def _pixels(graph: Any, image: int) -> int:
    """The place of a new tensor for the bytes of what goes into the tensor `image`."""
    tensor, quantization = schema.TensorT(), schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = [SCALE], [ZERO_POINT]
    tensor.name, tensor.shape = b"pixels", graph.tensors[image].shape
    tensor.type, tensor.buffer, tensor.quantization = schema.TensorType.UINT8, 0, quantization
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _gives_int8(graph: Any, operator: Any) -> bool:
    return bool(graph.tensors[operator.outputs[0]].type == schema.TensorType.INT8)


def _code(model: Any, builtin: int) -> int:
    """The place of an operator among the model's codes, where it is added if it is missing."""
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    # Version 2 of both takes all that is given to them here (tensorflow/lite/tools/versioning).
    code.version = 2
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
