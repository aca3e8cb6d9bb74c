"""What a .tflite file says of itself: output order, class names, normalisation, passport.

In anyone's file, and in ours, into which odtrain writes them. The metadata is a flatbuffer of its own
(root table ModelMetadata, identifier M001) in a buffer named TFLITE_METADATA; the files it names
are zipped onto the end of the model. Slot numbers are those of tflite-support's
metadata_schema.fbs 1.1.0.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

from odtrain_runtime import provenance
from odtrain_runtime.flatbuffer import Reader

METADATA_ENTRY = "TFLITE_METADATA"
POSTPROCESS = "TFLite_Detection_PostProcess"
BOXES, CLASSES, SCORES, COUNT = "location", "category", "score", "number of detections"
ROLES = (BOXES, CLASSES, SCORES, COUNT)
"""The outputs in the order of the post-processing operator's ports, by the names that metadata
readers look for."""
RAW_BOXES, RAW_SCORES = "raw_detection_boxes", "raw_detection_scores"
"""What goes into suppression, under the names that the Object Detection API gives it."""
MEAN = STD = 127.5
"""(pixel - MEAN) / STD is -1 to 1, as the network was trained."""
LARGEST_TEXT = 1 << 20
"""Bytes; a file in the model that would unpack to more is not read."""
LARGEST_DIRECTORY = 1 << 16
"""Bytes of the list of files in the model, which has two; a longer one is not read."""

CLOSING = struct.Struct("<12xI6x")
"""The record at the end of an archive: the bytes of its list of files."""
CLOSES = b"PK\5\6"
ZIP64, ZIP64_BYTES = b"PK\6\7", 20
"""How the record begins that stands before the closing one of a huge archive, and its length."""
LONGEST_COMMENT = 1 << 16

MODEL, SUBGRAPH, TENSOR, CONTENT = (
    {"name": 0, "description": 1, "subgraphs": 3, "files": 6, "min_parser_version": 7},
    {"inputs": 2, "outputs": 3},
    {"name": 0, "description": 1, "content": 3, "process_units": 4, "stats": 5, "files": 6},
    {"properties_type": 0, "properties": 1, "range": 2},
)
FILE = {"name": 0, "description": 1, "type": 2}
DESCRIPTIONS, TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS = 1, 2, 3
NORMALIZATION_OPTIONS = 1


@dataclass(frozen=True)
class Postprocess:
    """The operator at the end of a detector.

    Attributes:
        inputs: tensor indices of encodings, scores (the background's first, if there is one), and anchors.
        scales: that y, x, height and width of the encodings are divided by.
        outputs: tensor indices of boxes, classes, scores and count.
        max_detections: rows of its outputs.
        num_classes: without the background.
        per_class: whether it suppresses boxes class by class, not over all classes at once.
    """

    inputs: tuple[int, ...]
    scales: tuple[float, ...]
    outputs: tuple[int, ...]
    max_detections: int
    num_classes: int
    per_class: bool

    @property
    def shapes(self) -> tuple[list[int], ...]:
        """Of boxes, classes, scores and count."""
        rows = self.max_detections
        return [1, rows, 4], [1, rows], [1, rows], [1]

    def safe_threads(self, threads: int) -> int:
        """At most `threads`, and as many as give every class.

        LiteRT shares the classes out over its threads and forgets one: with N > 1 threads, class id
        N + 1 is never found (tensorflow#56058, in LiteRT 2.3 too).
        """
        return 1 if self.per_class and self.num_classes > threads else threads


@dataclass(frozen=True)
class Metadata:
    """What was found in a file; empty where it says nothing.

    Attributes:
        output_names: one for each output, in the file's order.
        class_names: index 0 = class id 1.
        mean: subtracted from pixel values 0-255 first; one value, or one for each channel.
        std: what the difference is divided by; one value, or one for each channel.
        passport: of a file that odtrain wrote.
        postprocess: the post-processing operator, where the model has it.
    """

    output_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    passport: dict[str, str] = field(default_factory=dict)
    postprocess: Postprocess | None = None


def read_metadata(file: Path) -> Metadata:
    """What a model file says of itself. Metadata that cannot be read counts as none."""
    with file.open("rb") as stream:
        model = schema.Model.GetRootAs(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        postprocess = postprocess_of(model)
        try:
            return replace(_metadata(model, _Texts(stream)), postprocess=postprocess)
        except (struct.error, IndexError, ValueError, TypeError, zipfile.BadZipFile):
            return Metadata(postprocess=postprocess)


def _metadata(model: Any, files: _Texts) -> Metadata:
    passport = provenance.read_passport(files.read(provenance.PASSPORT_FILE))
    root = _metadata_root(model)
    if root is None:
        return Metadata(passport=passport)
    subgraph = root.tables(MODEL["subgraphs"])[0]
    outputs = subgraph.tables(SUBGRAPH["outputs"])
    mean, std = _normalization(subgraph.tables(SUBGRAPH["inputs"]))
    return Metadata(
        output_names=tuple(output.text(TENSOR["name"]) for output in outputs),
        class_names=_class_names(outputs, files),
        mean=mean,
        std=std,
        passport=passport,
    )


def postprocess_of(model: Any) -> Postprocess | None:
    """The post-processing operator of a flatbuffer model; None where it has none."""
    graph = model.Subgraphs(0)
    for operator in (graph.Operators(index) for index in range(graph.OperatorsLength())):
        if model.OperatorCodes(operator.OpcodeIndex()).CustomCode() == POSTPROCESS.encode():
            # Not as a whole: vectors in it may share their parts, and unpack without end.
            options = flexbuffers.GetRoot(operator.CustomOptionsAsNumpy().tobytes()).AsMap
            return Postprocess(
                inputs=tuple(int(index) for index in operator.InputsAsNumpy()),
                scales=tuple(float(options[f"{side}_scale"].AsFloat) for side in "yxhw"),
                outputs=tuple(int(index) for index in operator.OutputsAsNumpy()),
                max_detections=int(options["max_detections"].AsInt),
                num_classes=int(options["num_classes"].AsInt),
                per_class=_true(options, "use_regular_nms"),
            )
    return None


def _true(options: flexbuffers.Map, key: str) -> bool:
    """A truth value that options may lack."""
    try:
        return bool(options[key].AsBool)
    except KeyError:
        return False


def _metadata_root(model: Any) -> Reader | None:
    entries = (model.Metadata(index) for index in range(model.MetadataLength()))
    for entry in entries:
        if entry.Name() == METADATA_ENTRY.encode():
            data = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            return Reader(data, struct.unpack_from("<I", data)[0])
    return None


class _Texts:
    """The text files in a model, each unpacked when it is asked for, and none beyond the bounds."""

    def __init__(self, stream: BinaryIO) -> None:
        fits = zipfile.is_zipfile(stream) and _directory_bytes(stream) <= LARGEST_DIRECTORY
        self._archive = zipfile.ZipFile(stream) if fits else None

    def read(self, name: str) -> str:
        """The text of a file; empty where there is none, or a larger one."""
        if self._archive is None or name not in self._archive.namelist():
            return ""
        with self._archive.open(name) as packed:
            content = packed.read(LARGEST_TEXT + 1)
        return content.decode("utf-8") if len(content) <= LARGEST_TEXT else ""


def _directory_bytes(stream: BinaryIO) -> int:
    """How long an archive's list of files is, by its closing record, which `zipfile` looks for alike."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(size - CLOSING.size - LONGEST_COMMENT, 0))
    tail = stream.read()
    plain = tail[-CLOSING.size :]
    bare = plain.startswith(CLOSES) and plain.endswith(b"\0\0")
    closing = plain if bare else tail[max(tail.rfind(CLOSES), 0) :]
    if tail[: len(tail) - len(closing)][-ZIP64_BYTES:].startswith(ZIP64):
        return LARGEST_DIRECTORY + 1  # a record of huge archives stands for this one: never ours
    return int(CLOSING.unpack_from(closing)[0])


def _normalization(inputs: Sequence[Reader]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in inputs[0].tables(TENSOR["process_units"]) if inputs else ():
        if unit.byte(0) == NORMALIZATION_OPTIONS:
            options = unit.table(1)
            return options.floats(0), options.floats(1)
    return (), ()


def _class_names(outputs: Sequence[Reader], files: _Texts) -> tuple[str, ...]:
    for output in outputs:
        for file in output.tables(TENSOR["files"]):
            if file.byte(FILE["type"]) in (TENSOR_VALUE_LABELS, TENSOR_AXIS_LABELS):
                return provenance.read_labels(files.read(file.text(FILE["name"])))
    return ()
