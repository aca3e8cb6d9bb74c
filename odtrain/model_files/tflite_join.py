"""Two .tflite models as one: what the first computes is what the second takes.

A converter gives a whole model one number format. Joined afterwards, a network in int8 is followed by
operators in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from odtrain.model_files.tflite_metadata import pack

MIN_RUNTIME = b"min_runtime_version"
"""Name of the buffer in which the converter says which TensorFlow first ran every operator."""


def joined(first: bytes, outputs: Sequence[str], second: bytes) -> bytes:
    """The model of both, with the one input of `first` and the outputs and signature of `second`.

    Args:
        first: a model of one subgraph.
        outputs: what the outputs of `first` are called, in their order.
        second: another with a signature, whose inputs are called so and have their shapes.
    """
    model, tail = (
        schema.ModelT.InitFromObj(schema.Model.GetRootAs(each)) for each in (first, second)
    )
    (graph,), (behind,) = model.subgraphs, tail.subgraphs
    (last,) = tail.signatureDefs
    given = dict(zip(map(str.encode, outputs), graph.outputs, strict=True))
    place = {-1: -1, **{each.tensorIndex: given[each.name] for each in last.inputs}}
    _take_tensors(model, tail, place)
    _take_operators(model, tail, place)
    for each in last.outputs:
        each.tensorIndex = place[each.tensorIndex]
    for name, index in (*given.items(), *((each.name, each.tensorIndex) for each in last.outputs)):
        graph.tensors[index].name = name
    graph.outputs = [place[index] for index in behind.outputs]
    last.inputs = last.inputs[:1]
    last.inputs[0].tensorIndex = graph.inputs[0]
    model.signatureDefs = [last]
    _take_newer_runtime(model, tail)
    return pack(model)


def _take_tensors(model: Any, tail: Any, place: dict[int, int]) -> None:
    """Add the tensors of `tail` that have no place yet, and say in `place` where each went."""
    (graph,), (behind,) = model.subgraphs, tail.subgraphs
    for index, tensor in enumerate(behind.tensors):
        if index not in place:
            place[index] = len(graph.tensors)
            tensor.buffer += len(model.buffers)
            graph.tensors.append(tensor)
    model.buffers.extend(tail.buffers)


def _take_operators(model: Any, tail: Any, place: Mapping[int, int]) -> None:
    (graph,), (behind,) = model.subgraphs, tail.subgraphs
    for operator in behind.operators:
        operator.opcodeIndex += len(model.operatorCodes)
        operator.inputs = [place[index] for index in operator.inputs]
        operator.outputs = [place[index] for index in operator.outputs]
    model.operatorCodes.extend(tail.operatorCodes)
    graph.operators.extend(behind.operators)


def _take_newer_runtime(model: Any, tail: Any) -> None:
    """Let the joined model ask for the newer of the versions that its parts ask for."""
    own, other = (_runtime_buffer(each) for each in (model, tail))
    if own is not None and other is not None and _version(other) > _version(own):
        own.data = other.data


def _runtime_buffer(model: Any) -> Any:
    places = (each.buffer for each in model.metadata or () if each.name == MIN_RUNTIME)
    return next((model.buffers[place] for place in places), None)


def _version(buffer: Any) -> list[int]:
    text = bytes(buffer.data).rstrip(b"\0").decode()
    return [int(part) for part in text.split(".") if part.isdecimal()]
