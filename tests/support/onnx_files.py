"""Small .onnx files made by hand, sound and hostile ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
OPSET = 17


def write_constant_onnx(
    file: Path,
    outputs: Mapping[str, NDArray[Any]],
    shape: Sequence[int | str] = (1, 3, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    texts: Mapping[str, str] | None = None,
) -> Path:
    """A network that takes a picture and says the same of each: `outputs`, with their batch."""
    image = helper.make_tensor_value_info("images", kind, list(shape))
    nodes = [helper.make_node("Shape", ["images"], ["unused"])]
    given, constants = [], []
    for name, value in outputs.items():
        constants.append(numpy_helper.from_array(value.astype(np.float32), f"{name}_value"))
        nodes.append(helper.make_node("Identity", [f"{name}_value"], [name]))
        given.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(value.shape)))
    return save(file, helper.make_graph(nodes, "constant", [image], given, constants), texts)


def save(
    file: Path, graph: Any, texts: Mapping[str, str] | None = None, opset: int = OPSET
) -> Path:
    """A graph as a file, with what it says of itself."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, dict(texts or {}))
    onnx.save(model, str(file))
    return file


def write_two_boxes(file: Path, right: Sequence[float], wrong: Sequence[float]) -> Path:
    """A YOLO of one class that is surer of the box `right` the redder the picture is, else of `wrong`.

    Boxes are cx, cy, w, h in pixels of the input; its red is channel 0 of values from 0 to 1.
    """
    boxes = np.array([right, wrong], np.float32).T[None]  # (1, 4, 2)
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    table = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 5, 2])
    weights = np.array([[4, 0, -4], [-4, 0, 4]], np.float32).T  # red and blue to two scores
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Unsqueeze", ["scores", "axis"], ["row"]),
        helper.make_node("Concat", ["boxes", "row"], ["output0"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(boxes, "boxes"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    return save(file, helper.make_graph(nodes, "two", [image], [table], constants))
