"""What a program that reads a .tflite by position finds, and which operators an Edge TPU would leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from odtrain.errors import TrackingError
from odtrain_runtime import provenance, resizing
from odtrain_runtime.tflite_metadata import ROLES, read_metadata

MOST_THREADS = 4
EDGE_TPU = frozenset(
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION "
    "LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 "
    "RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT "
    "SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV "
    "UNIDIRECTIONAL_SEQUENCE_LSTM".split()
)
"""Operators of an Edge TPU: Coral's documentation, "TensorFlow models on the Edge TPU", table 1."""
EIGHT_BITS = frozenset({schema.TensorType.INT8, schema.TensorType.UINT8})
TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if name[0] != "_"}
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}


@dataclass(frozen=True)
class Form:
    """What is seen of a .tflite from outside.

    Attributes:
        size: (height, width) of its input in pixels.
        dtype: of its input.
        outputs: shapes, in the file's order.
        roles: what each output is, by metadata; empty where the file does not say.
        loses: whether it loses a class with several threads (tensorflow#56058).
        resize: how it was shown pictures of any shape, a word of `resizing`.
    """

    size: tuple[int, int]
    dtype: str
    outputs: tuple[tuple[int, ...], ...]
    roles: tuple[str, ...]
    loses: bool
    resize: str


def form_of(file: Path) -> Form:
    """The form of a .tflite that odtrain wrote."""
    model = schema.Model.GetRootAs(file.read_bytes())
    graph, metadata = model.Subgraphs(0), read_metadata(file)
    image = graph.Tensors(graph.Inputs(0))
    _, height, width, _ = (int(side) for side in image.ShapeAsNumpy())
    outputs = [graph.Tensors(index).ShapeAsNumpy() for index in graph.OutputsAsNumpy()]
    operator = metadata.postprocess
    return Form(
        (height, width),
        TYPES[image.Type()],
        tuple(tuple(int(side) for side in np.atleast_1d(shape)) for shape in outputs),
        metadata.output_names,
        operator is not None and operator.safe_threads(MOST_THREADS) < MOST_THREADS,
        metadata.passport.get(provenance.RESIZE, resizing.STRETCH),
    )


def check_form(uri: str, form: Form) -> None:
    """Refuse a file that a program which reads it by position would misread.

    Raises:
        TrackingError: the input is not uint8, an output is not in its place, or threads change what it finds.
    """
    rows = form.outputs[0][1] if len(form.outputs[0]) == 3 else 0
    wanted = ((1, rows, 4), (1, rows), (1, rows), (1,))
    problem = None
    if form.dtype != "uint8":
        problem = f"takes {form.dtype} pictures, where uint8 is given."
    elif form.outputs != wanted or form.roles not in ((), ROLES):
        problem = f"does not give boxes, classes, scores and count in this order: {form.outputs}."
    elif form.loses:
        problem = "loses a class where it runs with several threads (tensorflow#56058)."
    if problem:
        raise TrackingError(uri, problem, "odtrain export source=RUN writes files that fit.")


def check_square(uri: str, form: Form) -> None:
    """Refuse a file that learned pictures in proportion, where squares are stretched to its input.

    Raises:
        TrackingError: it pads pictures to an input that is no square.
    """
    height, width = form.size
    if form.resize in resizing.FILLS and height != width:
        raise TrackingError(
            uri,
            f"keeps the sides of a picture in proportion (model.resize={form.resize}) and takes "
            f"{width} x {height} pixels, to which squares would be stretched.",
            "Train with a square model.input_size, or with model.resize=stretch.",
        )


@dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Attributes:
        name: as TensorFlow Lite calls it.
        why: it stays on the CPU; None where an Edge TPU takes it.
    """

    name: str
    why: str | None


def audit(file: Path) -> list[Operator]:
    """Every operator, in the order in which they run, and why an Edge TPU would leave it to the CPU.

    It takes one that it knows, whose tensors have 8 bits, after operators which it took.
    """
    model = schema.Model.GetRootAs(file.read_bytes())
    graph = model.Subgraphs(0)
    left: set[int] = set()
    found = []
    for operator in (graph.Operators(place) for place in range(graph.OperatorsLength())):
        name = _name(model.OperatorCodes(operator.OpcodeIndex()))
        why = _why(name, graph, operator, left)
        if why:
            left |= set(map(int, operator.OutputsAsNumpy()))
        found.append(Operator(name, why))
    return found


def _name(code: Any) -> str:
    custom = code.CustomCode()
    known = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return str(custom.decode() if custom else NAMES[known])


def _why(name: str, graph: Any, operator: Any, left: set[int]) -> str | None:
    if name not in EDGE_TPU:
        return "not an operator of the Edge TPU"
    if set(map(int, operator.InputsAsNumpy())) & left:
        return "needs what the CPU computed"
    kinds = {TYPES[kind] for kind in _computed(graph, operator) if kind not in EIGHT_BITS}
    return f"tensors of {', '.join(sorted(kinds))}" if kinds else None


def _computed(graph: Any, operator: Any) -> Iterator[int]:
    """Types of what goes in first (axes, sizes and biases come after it) and of what comes out."""
    for index in (*operator.InputsAsNumpy()[:1], *operator.OutputsAsNumpy()):
        yield graph.Tensors(int(index)).Type()


def staying(operators: list[Operator]) -> list[dict[str, object]]:
    """Those that stay on the CPU, counted by name and reason."""
    counted = Counter((each.name, each.why) for each in operators if each.why)
    return [{"name": name, "count": n, "why": why} for (name, why), n in counted.items()]
