"""What an OpenVINO model (.xml and .bin) holds, looked through before a runtime is given any of it.

The .xml is read as a stream, within bounds:
https://docs.openvino.ai/latest/documentation/openvino-ir-format/operation-sets.html
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from xml.parsers import expat

from odtrain_runtime.errors import ModelFileError
from odtrain_runtime.others.onnx_check import (
    LARGEST_FILE,
    LONGEST_TEXT,
    MAKE_AGAIN,
    MOST_TEXTS,
)

LARGEST_XML = 1 << 28
DEEPEST = 64
"""Elements inside of elements; a loop's body adds five."""
MODEL, LAYER, DATA, TEXTS = "net", "layer", "data", "rt_info"
FROM_ONNX = ("net", "rt_info", "framework")
"""Where OpenVINO puts the texts of the .onnx that it made a model of."""
VERSIONS = ("10", "11")
"""Of the form of the .xml; of another version OpenVINO would take the file for one of TensorFlow."""
OPSET = re.compile(r"opset\d{1,2}")
QUANTIZES = "FakeQuantize"
BITS = re.compile(r"(?:bf|f|i|u|nf)(\d{1,2})|f8e\w+|boolean")
EIGHT = 8
ULTRALYTICS_FILE = "metadata.yaml"
"""Beside the models that Ultralytics writes."""
NOT_RUN = "Only the operators of OpenVINO's own sets are run; no library is loaded for others."
IN_A_PAIR = "An OpenVINO model is two files of one name: the .xml, and the .bin beside it."


@dataclass
class Said:
    """What a model's .xml says.

    Attributes:
        texts: of itself.
        quantized: whether it computes in whole numbers.
    """

    texts: dict[str, str] = field(default_factory=dict)
    quantized: bool = False


def xml_of(path: Path) -> Path:
    """The .xml of a model that is named by it or by its folder.

    Raises:
        ModelFileError: the folder holds none with its .bin, or several.
    """
    if path.is_file():
        return path
    found = pairs(path)
    if len(found) != 1:
        named = ", ".join(each.name for each in found) or "none"
        problem = f"holds {len(found)} OpenVINO models: {named}."
        raise ModelFileError(path, problem, f"Name the .xml. {IN_A_PAIR}")
    return found[0]


def pairs(folder: Path) -> list[Path]:
    """The .xml files of a folder that have their .bin beside them."""
    return sorted(file for file in folder.glob("*.xml") if file.with_suffix(".bin").is_file())


def check_openvino(xml: Path) -> Said:
    """Look through a model; what it says of itself.

    Raises:
        ModelFileError: it is none, needs what is outside of it, or declares more than it holds.
    """
    weights = xml.with_suffix(".bin")
    there = weights.is_file()
    for file, most in ((xml, LARGEST_XML), (weights, LARGEST_FILE)):
        if file.is_file() and file.stat().st_size >= most:
            raise ModelFileError(file, f"has {most >> 20} MiB or more.", MAKE_AGAIN)
    look = _Look(xml, weights.stat().st_size if there else LARGEST_FILE)
    try:
        with xml.open("rb") as stream:
            look.parser.ParseFile(stream)
    except (expat.ExpatError, ValueError) as error:
        raise ModelFileError(xml, f"is no OpenVINO model: {error}.", MAKE_AGAIN) from None
    if not there:
        raise ModelFileError(xml, f"has no {weights.name} beside it.", IN_A_PAIR)
    said = look.said
    if not said.texts:
        said.texts = _texts_beside(xml.with_name(ULTRALYTICS_FILE))
    return said


class _Look:
    def __init__(self, xml: Path, weights: int) -> None:
        self.xml, self.weights, self.said = xml, weights, Said()
        self.path: list[str] = []
        self.layer = ""
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.begin
        self.parser.EndElementHandler = lambda name: self.path.pop()
        self.parser.StartDoctypeDeclHandler = self.doctype

    def doctype(self, *declared: Any) -> NoReturn:
        raise ValueError("it declares a document type")

    def begin(self, name: str, given: Mapping[str, str]) -> None:
        if not self.path and name != MODEL:
            raise ValueError(f"its first element is {name[:80]}")
        if not self.path and given.get("version") not in VERSIONS:
            raise ValueError(f"its version is {given.get('version', 'none')[:80]}, not 10 or 11")
        if len(self.path) >= DEEPEST:
            raise ValueError(f"elements lie {DEEPEST} deep in each other")
        if name == LAYER:
            self.operator(given.get("type", "?"), given.get("version", "?"))
        elif name == DATA and "offset" in given:
            self.constant(given)
        elif tuple(self.path) == FROM_ONNX and len(self.said.texts) < MOST_TEXTS:
            self.said.texts[given.get("name", name)] = given.get("value", "")[:LONGEST_TEXT]
        self.path.append(name)

    def operator(self, kind: str, version: str) -> None:
        self.layer = kind
        if not OPSET.fullmatch(version):
            problem = f"holds an operator of somebody's own: {version[:80]}.{kind[:80]}."
            raise ModelFileError(self.xml, problem, NOT_RUN)
        self.said.quantized |= kind == QUANTIZES

    def constant(self, given: Mapping[str, str]) -> None:
        offset, size = int(given["offset"]), int(given.get("size", "-1"))
        if min(offset, size) < 0 or offset + size > self.weights:
            name = self.xml.with_suffix(".bin").name
            raise ModelFileError(self.xml, f"has weights beyond the end of {name}.", MAKE_AGAIN)
        kind = BITS.fullmatch(given.get("element_type", ""))
        if kind is None:  # texts
            return
        sides = [int(side) for side in given.get("shape", "").split(",") if side.strip()]
        count = math.prod(sides)
        if min(sides, default=0) < 0 or count * int(kind[1] or EIGHT) > size * EIGHT:
            problem = f"declares {count:,} weights in a tensor of {size:,} bytes."
            raise ModelFileError(self.xml, problem, MAKE_AGAIN)


def _texts_beside(file: Path) -> dict[str, str]:
    """What a file of keys and values says, as ONNX files say it: every value as JSON."""
    if not file.is_file() or file.stat().st_size > LONGEST_TEXT:
        return {}
    import yaml

    try:
        table = yaml.safe_load(file.read_text(encoding="utf-8", errors="replace"))
        pairs = table.items() if isinstance(table, dict) else ()
        return {str(key): _as_text(value) for key, value in pairs}
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return {}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
