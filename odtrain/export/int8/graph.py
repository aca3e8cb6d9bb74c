"""The operators of a network as a .tflite holds them, up to what goes into suppression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from odtrain.export.raw_outputs import ENCODINGS, SCORES
from odtrain_runtime.tflite_metadata import postprocess_of


@dataclass(frozen=True)
class Node:
    """An operator.

    Attributes:
        name: of what it gives, as the converter named it.
        inputs: places of the tensors that other operators, or the picture, give it.
        output: place of what it gives.
    """

    name: str
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Graph:
    """A network.

    Attributes:
        image: place of its input.
        ends: places of its encodings and of its scores.
        nodes: operators by the place of what they give, in the order in which they run.
    """

    image: int
    ends: tuple[int, int]
    nodes: Mapping[int, Node]

    @classmethod
    def read(cls, content: bytes) -> Graph:
        """The network in a float32 or a quantised file, with suppression behind it or without.

        What only brings a tensor from one number format to another is no operator of it in the end: names
        tell what is the same in two files.
        """
        packed = schema.Model.GetRootAs(content)
        graph, operator = packed.Subgraphs(0), postprocess_of(packed)
        tensors = [graph.Tensors(place) for place in range(graph.TensorsLength())]
        nodes = {}
        for each in (graph.Operators(place) for place in range(graph.OperatorsLength())):
            given = tuple(int(i) for i in each.InputsAsNumpy() if i >= 0)
            for output in map(int, each.OutputsAsNumpy()):
                nodes[output] = Node(tensors[output].Name().decode(), given, output)
        if operator is not None:
            ends = operator.inputs[:2]
        else:
            named = {tensor.Name().decode(): place for place, tensor in enumerate(tensors)}
            raw = [named[name] for name in (ENCODINGS, SCORES) if name in named]
            ends = tuple(raw) if len(raw) == 2 else tuple(map(int, graph.OutputsAsNumpy()))
        image = int(graph.Inputs(0))
        before = _before(nodes, ends)
        kept = {place: node for place, node in nodes.items() if place in before}
        return cls(image, (ends[0], ends[1]), kept)

    @cached_property
    def heads(self) -> set[int]:
        """Places of what is computed for one of the two ends alone: behind the maps that both look at."""
        first, second = (_before(self.nodes, [end]) for end in self.ends)
        return first ^ second

    def names(self, places: Iterable[int]) -> set[str]:
        """What the operators that give these are called."""
        return {self.nodes[place].name for place in places}

    def around(self, places: Iterable[int]) -> set[int]:
        """What gives these, and all that reads them, so that they stay in one number format."""
        wanted = set(places)
        readers = {out for out, node in self.nodes.items() if wanted & set(node.inputs)}
        return (wanted | readers) & set(self.nodes)


def readable(content: bytes) -> Any:
    """A LiteRT interpreter in which what each operator gave can be read after a run.

    It has no delegates, which keep what lies between their operators to themselves.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    return interpreter


def _before(nodes: Mapping[int, Node], ends: Iterable[int]) -> set[int]:
    """Places of all that is computed on the way to `ends`, those included."""
    found: set[int] = set()
    left = list(ends)
    while left:
        place = left.pop()
        if place in nodes and place not in found:
            found.add(place)
            left += nodes[place].inputs
    return found
