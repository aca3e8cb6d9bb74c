"""What a .tflite file says of itself: output order, class names, normalisation, passport.

Reads them from anyone's file and writes them into ours. The metadata is a flatbuffer of its own
(root table ModelMetadata, identifier M001) in a buffer named TFLITE_METADATA; the files it names
are zipped onto the end of the model. Slot numbers are those of tflite-support's
metadata_schema.fbs 1.1.0.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers, number_types

from odtrain.io.flatbuffer import Number, Numbers, Reader, Slots, build, byte, floats
from odtrain.model_files import provenance as passports
from odtrain.models import resizing as framing

METADATA_ENTRY = "TFLITE_METADATA"
METADATA_IDENTIFIER = b"M001"
MODEL_IDENTIFIER = b"TFL3"
POSTPROCESS = "TFLite_Detection_PostProcess"
BOXES, CLASSES, SCORES, COUNT = "location", "category", "score", "number of detections"
ROLES = (BOXES, CLASSES, SCORES, COUNT)
"""The outputs in the order of the post-processing operator's ports, by the names that metadata
readers look for."""
INPUT_NAME = "normalized_input_image_tensor"
SIGNATURE_NAMES = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
MEAN = STD = 127.5
"""(pixel - MEAN) / STD is -1 to 1, as the network was trained."""
BUFFER_ALIGNMENT = 16
"""Of tensor data in bytes (schema.fbs `force_align`); the Python packer would not keep it."""
DESCRIPTION = "Finds objects in a picture; the passport file says where the model comes from."
THREADS_WARNING = (
    " Run it with one thread: with N threads, the interpreter's per-class suppression never reports"
    " class N + 1 (tensorflow issue 56058)."
)
LARGEST_TEXT = 1 << 20
"""Bytes; a file in the model that would unpack to more is not read."""

MODEL, SUBGRAPH, TENSOR, CONTENT = (
    {"name": 0, "description": 1, "subgraphs": 3, "files": 6, "min_parser_version": 7},
    {"inputs": 2, "outputs": 3},
    {"name": 0, "description": 1, "content": 3, "process_units": 4, "stats": 5, "files": 6},
    {"properties_type": 0, "properties": 1, "range": 2},
)
FILE = {"name": 0, "description": 1, "type": 2}
DESCRIPTIONS, TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS = 1, 2, 3
FEATURE_PROPERTIES, IMAGE_PROPERTIES, BOX_PROPERTIES = 1, 2, 3
NORMALIZATION_OPTIONS = 1
RGB, BOUNDARIES = 1, 1
XYXY_FROM_YXYX = (1, 0, 3, 2)


@dataclass(frozen=True)
class Postprocess:
    """The operator at the end of a detector.

    Attributes:
        outputs: tensor indices of boxes, classes, scores and count.
        max_detections: rows of its outputs.
        num_classes: without the background.
        per_class: whether it suppresses boxes class by class, not over all classes at once.
    """

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


# ---- reading


def read_metadata(file: Path) -> Metadata:
    """What a model file says of itself. Metadata that cannot be read counts as none."""
    with file.open("rb") as stream:
        model = schema.Model.GetRootAs(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        postprocess = _postprocess(model)
        try:
            return replace(_metadata(model, _zipped_texts(stream)), postprocess=postprocess)
        except (struct.error, IndexError, ValueError, TypeError, zipfile.BadZipFile):
            return Metadata(postprocess=postprocess)


def _metadata(model: Any, files: Mapping[str, str]) -> Metadata:
    passport = passports.read_passport(files.get(passports.PASSPORT_FILE, ""))
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


def _postprocess(model: Any) -> Postprocess | None:
    graph = model.Subgraphs(0)
    for operator in (graph.Operators(index) for index in range(graph.OperatorsLength())):
        if model.OperatorCodes(operator.OpcodeIndex()).CustomCode() == POSTPROCESS.encode():
            options = flexbuffers.Loads(operator.CustomOptionsAsNumpy().tobytes())
            return Postprocess(
                outputs=tuple(int(index) for index in operator.OutputsAsNumpy()),
                max_detections=int(options["max_detections"]),
                num_classes=int(options["num_classes"]),
                per_class=bool(options.get("use_regular_nms", False)),
            )
    return None


def _metadata_root(model: Any) -> Reader | None:
    entries = (model.Metadata(index) for index in range(model.MetadataLength()))
    for entry in entries:
        if entry.Name() == METADATA_ENTRY.encode():
            data = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            return Reader(data, struct.unpack_from("<I", data)[0])
    return None


def _zipped_texts(stream: BinaryIO) -> dict[str, str]:
    if not zipfile.is_zipfile(stream):
        return {}
    with zipfile.ZipFile(stream) as archive:
        return {
            entry.filename: archive.read(entry).decode("utf-8")
            for entry in archive.infolist()
            if entry.file_size <= LARGEST_TEXT
        }


def _normalization(inputs: Sequence[Reader]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in inputs[0].tables(TENSOR["process_units"]) if inputs else ():
        if unit.byte(0) == NORMALIZATION_OPTIONS:
            options = unit.table(1)
            return options.floats(0), options.floats(1)
    return (), ()


def _class_names(outputs: Sequence[Reader], files: Mapping[str, str]) -> tuple[str, ...]:
    for output in outputs:
        for file in output.tables(TENSOR["files"]):
            if file.byte(FILE["type"]) in (TENSOR_VALUE_LABELS, TENSOR_AXIS_LABELS):
                return passports.read_labels(files.get(file.text(FILE["name"]), ""))
    return ()


# ---- writing


def describe(content: bytes, class_names: Sequence[str], passport: Mapping[str, str]) -> bytes:
    """The model with classic output order and names, metadata, label file and passport.

    Args:
        content: a model that ends in the post-processing operator, as the converter wrote it.
        class_names: index 0 = class id 1; the operator's class 0.
        passport: the texts that say where the model comes from.
    """
    packed = schema.Model.GetRootAs(content)
    model = schema.ModelT.InitFromObj(packed)
    postprocess = _postprocess(packed)
    if postprocess is None:
        raise ValueError(f"the model does not end in {POSTPROCESS}")
    _describe_tensors(model, postprocess)
    _add_buffer(model, build(_model_metadata(postprocess, passport), METADATA_IDENTIFIER))
    return _with_files(
        _pack(model),
        {
            passports.LABELS_FILE: passports.write_labels(class_names),
            passports.PASSPORT_FILE: passports.write_passport(passport),
        },
    )


def _describe_tensors(model: Any, postprocess: Postprocess) -> None:
    """Give the outputs the order, names and shapes that the published TF1 files have.

    Widely copied scripts go by the names: `StatefulPartitionedCall` means TF2's order to them. The
    converter leaves the shapes to the interpreter.
    """
    graph = model.subgraphs[0]
    graph.outputs = list(postprocess.outputs)
    for port, index in enumerate(graph.outputs):
        graph.tensors[index].name = f"{POSTPROCESS}:{port}" if port else POSTPROCESS
        graph.tensors[index].shape = postprocess.shapes[port]
    (image,) = graph.inputs
    graph.tensors[image].name = INPUT_NAME
    for signature in model.signatureDefs or ():
        signature.inputs[0].name = INPUT_NAME
        signature.outputs = [
            _tensor_map(name, index)
            for name, index in zip(SIGNATURE_NAMES, graph.outputs, strict=True)
        ]


def _tensor_map(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(index)
    return entry


def _add_buffer(model: Any, data: bytes) -> None:
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(data, np.uint8)
    entry.name, entry.buffer = METADATA_ENTRY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    def Pack(self, builder: Any) -> int:
        data = self.data
        if data is None:
            return int(super().Pack(builder))
        content = np.ascontiguousarray(data, np.uint8).tobytes()
        builder.StartVector(1, len(content), BUFFER_ALIGNMENT)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


def _pack(model: Any) -> bytes:
    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=MODEL_IDENTIFIER)
    return bytes(builder.Output())


def _with_files(content: bytes, texts: Mapping[str, str]) -> bytes:
    stream = io.BytesIO(content)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text.encode("utf-8"))
    return stream.getvalue()


def _model_metadata(postprocess: Postprocess, passport: Mapping[str, str]) -> Slots:
    every_class = postprocess.safe_threads(2) == 2
    return {
        MODEL["name"]: "odtrain object detector",
        MODEL["description"]: DESCRIPTION + ("" if every_class else THREADS_WARNING),
        MODEL["subgraphs"]: [
            {
                SUBGRAPH["inputs"]: [_image(passport.get(passports.RESIZE, framing.STRETCH))],
                SUBGRAPH["outputs"]: [_output(role) for role in ROLES],
            }
        ],
        MODEL["files"]: [
            _file(passports.PASSPORT_FILE, "Run, data and version of this model.", DESCRIPTIONS)
        ],
        MODEL["min_parser_version"]: "1.0.0",
    }


def _image(resize: str) -> Slots:
    return {
        TENSOR["name"]: "image",
        TENSOR["description"]: f"RGB picture, {IMAGE_DESCRIPTIONS[resize]}.",
        TENSOR["content"]: {
            CONTENT["properties_type"]: byte(IMAGE_PROPERTIES),
            CONTENT["properties"]: {0: byte(RGB)},
        },
        TENSOR["process_units"]: [
            {0: byte(NORMALIZATION_OPTIONS), 1: {0: floats(MEAN), 1: floats(STD)}}
        ],
        TENSOR["stats"]: {0: floats(1.0), 1: floats(-1.0)},
    }


def _output(role: str) -> Slots:
    slots: Slots = {
        TENSOR["name"]: role,
        TENSOR["description"]: OUTPUT_DESCRIPTIONS[role],
        TENSOR["content"]: _box_content() if role == BOXES else _feature_content(role),
        TENSOR["stats"]: {},
    }
    if role == CLASSES:
        names = "Class names; line 0 is category 0."
        slots[TENSOR["files"]] = [_file(passports.LABELS_FILE, names, TENSOR_VALUE_LABELS)]
    return slots


def _box_content() -> Slots:
    order = Numbers(number_types.Uint32Flags, XYXY_FROM_YXYX)
    return {
        CONTENT["properties_type"]: byte(BOX_PROPERTIES),
        CONTENT["properties"]: {0: order, 1: byte(BOUNDARIES)},
        CONTENT["range"]: _range(),
    }


def _feature_content(role: str) -> Slots:
    content: Slots = {
        CONTENT["properties_type"]: byte(FEATURE_PROPERTIES),
        CONTENT["properties"]: {},
    }
    return content if role == COUNT else {**content, CONTENT["range"]: _range()}


def _range() -> Slots:
    second = Number(number_types.Int32Flags, 2)
    return {0: second, 1: second}


def _file(name: str, description: str, kind: int) -> Slots:
    return {FILE["name"]: name, FILE["description"]: description, FILE["type"]: byte(kind)}


IMAGE_DESCRIPTIONS = {
    framing.STRETCH: "resized without keeping its aspect ratio",
    framing.PAD: "resized keeping its aspect ratio, at the top left; the rest is {} {} {}".format(
        *map(round, framing.FILL)
    ),
}

OUTPUT_DESCRIPTIONS = {
    BOXES: "Boxes of the objects, ymin xmin ymax xmax as fractions of the picture.",
    CLASSES: "Category of each box, counted from 0.",
    SCORES: "Score of each box, 0 to 1, best first.",
    COUNT: "How many of the boxes are detections; the rest is padding.",
}
