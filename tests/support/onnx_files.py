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


def write_sized_onnx(
    file: Path, boxes: Sequence[Sequence[float]], size: str = "orig_target_sizes"
) -> Path:
    """A network that ends as RT-DETR's own export does: `boxes` (xyxy fractions) times a size that it is given.

    Labels are 0, 1, ..., scores 0.9 and less by 0.1.
    """
    count = len(boxes)
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, 2 * SIDE])
    asked = helper.make_tensor_value_info(size, TensorProto.INT64, ["N", 2])
    nodes = [
        helper.make_node("Shape", ["images"], ["unused"]),
        helper.make_node("Cast", [size], ["sides"], to=TensorProto.FLOAT),
        helper.make_node("Tile", ["sides", "twice"], ["all_sides"]),
        helper.make_node("Mul", ["fractions", "all_sides"], ["boxes"]),
        helper.make_node("Identity", ["all_labels"], ["labels"]),
        helper.make_node("Identity", ["all_scores"], ["scores"]),
    ]
    values = {
        "twice": np.array([1, 2], np.int64),
        "fractions": np.array([boxes], np.float32),
        "all_labels": np.arange(count, dtype=np.int64)[None],
        "all_scores": (0.9 - 0.1 * np.arange(count, dtype=np.float32))[None],
    }
    given = [
        helper.make_tensor_value_info("labels", TensorProto.INT64, [1, count]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, count, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, count]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    return save(file, helper.make_graph(nodes, "sized", [image, asked], given, constants))
