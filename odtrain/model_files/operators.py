"""Which operators of a .tflite an accelerator takes, and which it leaves to the CPU's own code.

`python -m odtrain.model_files.operators` is a process of its own that asks XNNPACK: a model on its standard
input, operators as JSON on its standard output. Loading a model there cannot end a training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from odtrain.system.workers import search_path

EDGE_TPU = frozenset(
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION "
    "LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 "
    "RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT "
    "SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV "
    "UNIDIRECTIONAL_SEQUENCE_LSTM".split()
)
"""Operators of an Edge TPU: Coral's documentation, "TensorFlow models on the Edge TPU", table 1."""
HEXAGON = frozenset(
    "ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTH_TO_SPACE DEPTHWISE_CONV_2D "
    "FULLY_CONNECTED HARD_SWISH L2_NORMALIZATION LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD "
    "MUL NEG PACK PAD QUANTIZE RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SLICE "
    "SOFTMAX SPACE_TO_DEPTH SPLIT STRIDED_SLICE SUB TANH TRANSPOSE TRANSPOSE_CONV".split()
)
"""Operators of TensorFlow Lite's Hexagon delegate: tensorflow/lite/delegates/hexagon/README.md."""
HEXAGON_DEPTHWISE_WIDTH = 3
"""Of the filters of a depthwise convolution that the delegate takes (the same page)."""
EIGHT_BITS = frozenset({schema.TensorType.INT8, schema.TensorType.UINT8})
TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if name[0] != "_"}
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}


@dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Attributes:
        name: as TensorFlow Lite calls it.
        why: it stays on the CPU; None where the accelerator takes it.
    """

    name: str
    why: str | None


def for_edge_tpu(content: bytes) -> list[Operator]:
    """Every operator, in the order in which they run, and why an Edge TPU would leave it to the CPU.

    It takes one that it knows, whose tensors have 8 bits, after operators which it took.
    """
    left: set[int] = set()
    found = []
    for name, graph, operator in _operators(content):
        why = None if name in EDGE_TPU else "not an operator of the Edge TPU"
        if why is None and set(map(int, operator.InputsAsNumpy())) & left:
            why = "needs what the CPU computed"
        why = why or _other_types(graph, operator)
        if why:
            left |= set(map(int, operator.OutputsAsNumpy()))
        found.append(Operator(name, why))
    return found


def for_hexagon(content: bytes) -> list[Operator]:
    """The same of TensorFlow Lite's Hexagon delegate, which takes parts of a graph wherever they are."""
    found = []
    for name, graph, operator in _operators(content):
        why = None if name in HEXAGON else "not an operator of the Hexagon delegate"
        if name == "DEPTHWISE_CONV_2D":
            width = int(graph.Tensors(int(operator.InputsAsNumpy()[1])).ShapeAsNumpy()[2])
            why = f"its filter is {width} wide" if width != HEXAGON_DEPTHWISE_WIDTH else None
        found.append(Operator(name, why or _other_types(graph, operator)))
    return found


def for_xnnpack(content: bytes) -> list[Operator]:
    """The same of XNNPACK as it is in this LiteRT on this processor: it is asked, no table is.

    Empty where the process that asks it ends early.
    """
    command = [sys.executable, "-m", "odtrain.model_files.operators"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search_path()))}
    done = subprocess.run(command, input=content, capture_output=True, env=environment)
    if done.returncode:
        return []
    return [Operator(name, why) for name, why in json.loads(done.stdout)]


def _asked(content: bytes) -> list[Operator]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    every = interpreter._get_ops_details()
    parts = [each for each in every if each["op_name"] == "DELEGATE"]
    own = [each for each in every if each["op_name"] != "DELEGATE"]
    maker = {int(out): place for place, each in enumerate(own) for out in each["outputs"]}
    taken: set[int] = set()
    for part in parts:
        given = set(map(int, part["inputs"]))
        open_ends = list(map(int, part["outputs"]))
        while open_ends:
            place = maker.get(open_ends.pop())
            if place is not None and place not in taken:
                taken.add(place)
                open_ends += [int(each) for each in own[place]["inputs"] if int(each) not in given]
    return [
        Operator(each["op_name"], None if place in taken else "not taken by XNNPACK here")
        for place, each in enumerate(own)
    ]


ACCELERATORS = {"coral": for_edge_tpu, "hexagon": for_hexagon, "xnnpack": for_xnnpack}
"""By the name that a file's passport gives them."""


UNKNOWN = "?"
"""In place of a share that could not be found out."""


def shares(content: bytes) -> dict[str, str]:
    """How many of its operators each accelerator takes, as `taken/all`."""
    found = {}
    for name, look in ACCELERATORS.items():
        operators = look(content)
        taken = sum(not each.why for each in operators)
        found[name] = f"{taken}/{len(operators)}" if operators else UNKNOWN
    return found


def staying(operators: Sequence[Operator]) -> list[dict[str, object]]:
    """Those that stay on the CPU, counted by name and reason."""
    counted = Counter((each.name, each.why) for each in operators if each.why)
    return [{"name": name, "count": n, "why": why} for (name, why), n in counted.items()]


def _operators(content: bytes) -> Iterator[tuple[str, Any, Any]]:
    """Name, graph and flatbuffer of each operator, in the order in which they run."""
    model = schema.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    for operator in (graph.Operators(place) for place in range(graph.OperatorsLength())):
        yield _name(model.OperatorCodes(operator.OpcodeIndex())), graph, operator


def _name(code: Any) -> str:
    custom = code.CustomCode()
    known = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return str(custom.decode() if custom else NAMES[known])


def _other_types(graph: Any, operator: Any) -> str | None:
    """Why its tensors keep it from an accelerator of 8 bits; None if they do not."""
    kinds = {TYPES[kind] for kind in _computed(graph, operator) if kind not in EIGHT_BITS}
    return f"tensors of {', '.join(sorted(kinds))}" if kinds else None


def _computed(graph: Any, operator: Any) -> Iterator[int]:
    """Types of what goes in first (axes, sizes and biases come after it) and of what comes out."""
    for index in (*operator.InputsAsNumpy()[:1], *operator.OutputsAsNumpy()):
        yield graph.Tensors(int(index)).Type()


if __name__ == "__main__":
    asked = _asked(sys.stdin.buffer.read())
    json.dump([(each.name, each.why) for each in asked], sys.stdout)
