"""What an .onnx file holds, looked through before a runtime is given any of it.

Read from the bytes, within bounds: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others.protobuf_wire import Field, Message

LARGEST_FILE = 1 << 31
"""Bytes: protocol buffers end here, and ONNX puts what is larger beside the file."""
LONGEST_TEXT, LONGEST_NAME = 1 << 24, 1 << 16
MOST_TEXTS = 1000
DEEPEST = 16
"""Graphs inside of graphs."""
DOMAINS = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft"))
"""Of operators that ONNX Runtime brings along."""
ARCHIVE = b"PK\x03\x04"
MAKE_AGAIN = "Export the model again, or check that the file was copied or downloaded whole."
NOT_RUN = (
    "Only the operators that ONNX Runtime brings along are run; no library is loaded for others."
)
INSIDE = "Weights beside the file must lie in its folder. Save the model in one file."

MODEL = {"ir_version": 1, "graph": 7, "opset": 8, "texts": 14, "functions": 25}
GRAPH = {"node": 1, "initializer": 5, "sparse": 15}
NODE = {"op_type": 4, "attribute": 5, "domain": 7}
FUNCTION = {"node": 7, "domain": 10}
ATTRIBUTE = {"tensor": 5, "graph": 6, "tensors": 10, "graphs": 11}
TENSOR = {"dims": 1, "external": 13, "location": 14}
VALUES = frozenset((4, 5, 6, 7, 9, 10, 11))
"""Fields of a tensor that hold its values."""
VALUES_A_BYTE = 4
"""At most: two bits each are the smallest."""
EXTERNAL = 1


def check_onnx(path: Path) -> dict[str, str]:
    """Look through a file; the texts that it says of itself.

    Raises:
        ModelFileError: it is no ONNX model, needs what is outside of it, or declares more than it holds.
    """
    size = path.stat().st_size
    if not 0 < size < LARGEST_FILE:
        problem = "is empty." if size == 0 else "has 2 GiB or more."
        raise ModelFileError(path, problem, MAKE_AGAIN)
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as content,
    ):
        if bytes(content[:4]) == ARCHIVE:
            problem = "is an archive, as PyTorch writes its models, and no ONNX model."
            raise ModelFileError(
                path, problem, "Export it to ONNX: renaming a file changes nothing."
            )
        try:
            return _Look(path).model(Message(content))
        except (ValueError, RecursionError) as error:
            raise ModelFileError(path, f"is no ONNX model: {error}.", MAKE_AGAIN) from None


class _Look:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.domains = set(DOMAINS)

    def model(self, message: Message) -> dict[str, str]:
        fields = list(message)
        numbers = {field.number for field in fields}
        if not {MODEL["ir_version"], MODEL["graph"]} <= numbers:
            raise ValueError("it has no graph")
        functions = [message.inside(each) for each in fields if each.number == MODEL["functions"]]
        for function in functions:
            self.domains.update(_texts(function, FUNCTION["domain"]))
        for function in functions:
            self.nodes(function, FUNCTION["node"], 0)
        for field in fields:
            if field.number == MODEL["graph"]:
                self.graph(message.inside(field), 0)
        texts = [message.inside(each) for each in fields if each.number == MODEL["texts"]]
        return dict(map(_pair, texts[:MOST_TEXTS]))

    def graph(self, message: Message, depth: int) -> None:
        if depth > DEEPEST:
            raise ValueError(f"graphs lie {DEEPEST} deep in each other")
        self.nodes(message, GRAPH["node"], depth)
        for field in message:
            if field.number == GRAPH["initializer"]:
                self.tensor(message.inside(field))

    def nodes(self, message: Message, number: int, depth: int) -> None:
        for field in message:
            if field.number == number:
                self.node(message.inside(field), depth)

    def node(self, message: Message, depth: int) -> None:
        domain = next(iter(_texts(message, NODE["domain"])), "")
        if domain not in self.domains:
            operator = next(iter(_texts(message, NODE["op_type"])), "?")
            problem = f"holds an operator of somebody's own: {domain}.{operator}."
            raise ModelFileError(self.path, problem, NOT_RUN)
        for field in message:
            if field.number == NODE["attribute"]:
                self.attribute(message.inside(field), depth)

    def attribute(self, message: Message, depth: int) -> None:
        for field in message:
            if field.number in (ATTRIBUTE["tensor"], ATTRIBUTE["tensors"]):
                self.tensor(message.inside(field))
            elif field.number in (ATTRIBUTE["graph"], ATTRIBUTE["graphs"]):
                self.graph(message.inside(field), depth + 1)

    def tensor(self, message: Message) -> None:
        dims: list[int] = []
        held, location, beside = 0, 0, {}
        for field in message:
            if field.number == TENSOR["dims"]:
                dims += list(message.numbers(field))
            elif field.number in VALUES:
                held += field.end - field.start
            elif field.number == TENSOR["location"]:
                location = field.value
            elif field.number == TENSOR["external"]:
                key, value = _pair(message.inside(field))
                beside[key] = value
        count = math.prod(dims)
        if location == EXTERNAL or beside:
            held += self._bytes_beside(beside)
        if count > held * VALUES_A_BYTE:
            problem = f"declares {count:,} weights in a tensor of {held:,} bytes."
            raise ModelFileError(self.path, problem, MAKE_AGAIN)

    def _bytes_beside(self, beside: dict[str, str]) -> int:
        """How many bytes a tensor has in another file, which must lie in the same folder."""
        name = beside.get("location", "")
        folder = self.path.parent.resolve()
        file = (folder / name).resolve()
        if not name or Path(name).is_absolute() or not file.is_relative_to(folder):
            problem = f"has weights outside of its folder: {name or 'nowhere'}."
            raise ModelFileError(self.path, problem, INSIDE)
        if not file.is_file():
            raise ModelFileError(self.path, f"has weights in {name}, which is not there.", INSIDE)
        size = file.stat().st_size
        offset = int(beside.get("offset", "0"))
        length = int(beside.get("length", str(size - offset)))
        if min(offset, length) < 0 or offset + length > size:
            raise ModelFileError(self.path, f"has weights beyond the end of {name}.", MAKE_AGAIN)
        return length


def _texts(message: Message, number: int) -> Iterator[str]:
    return (message.text(field, LONGEST_NAME) for field in message if field.number == number)


def _pair(message: Message) -> tuple[str, str]:
    """A key and its value."""
    found: dict[int, Field] = {field.number: field for field in message}
    key, value = (
        message.text(found[number], LONGEST_TEXT) if number in found else "" for number in (1, 2)
    )
    return key, value
