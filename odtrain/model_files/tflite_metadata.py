"""What a .tflite file of ours says of itself, written as `odtrain_runtime.tflite_metadata` reads it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

from odtrain.io.flatbuffer import Number, Numbers, Slots, build, byte, floats
from odtrain_runtime import provenance, resizing
from odtrain_runtime.tflite_metadata import (
    BOXES,
    CLASSES,
    CONTENT,
    COUNT,
    DESCRIPTIONS,
    FILE,
    MEAN,
    METADATA_ENTRY,
    MODEL,
    NORMALIZATION_OPTIONS,
    POSTPROCESS,
    ROLES,
    SCORES,
    STD,
    SUBGRAPH,
    TENSOR,
    TENSOR_VALUE_LABELS,
    Postprocess,
    postprocess_of,
)

METADATA_IDENTIFIER = b"M001"
MODEL_IDENTIFIER = b"TFL3"
INPUT_NAME = "normalized_input_image_tensor"
SIGNATURE_NAMES = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
BUFFER_ALIGNMENT = 16
"""Of tensor data in bytes (schema.fbs `force_align`); the Python packer would not keep it."""
DESCRIPTION = "Finds objects in a picture; the passport file says where the model comes from."
THREADS_WARNING = (
    " Run it with one thread: with N threads, the interpreter's per-class suppression never reports"
    " class N + 1 (tensorflow issue 56058)."
)
RGB, BOUNDARIES = 1, 1
XYXY_FROM_YXYX = (1, 0, 3, 2)
FEATURE_PROPERTIES, IMAGE_PROPERTIES, BOX_PROPERTIES = 1, 2, 3


def with_metadata(content: bytes, class_names: Sequence[str], passport: Mapping[str, str]) -> bytes:
    """The model with classic output order and names, metadata, label file and passport.

    Args:
        content: a model that ends in detections, as the converter or `joined` left it.
        class_names: index 0 = class id 1; the model's class 0.
        passport: the texts that say where the model comes from.
    """
    packed = schema.Model.GetRootAs(content)
    model = schema.ModelT.InitFromObj(packed)
    postprocess = postprocess_of(packed)
    _describe_tensors(model, postprocess)
    _add_buffer(model, build(_model_metadata(postprocess, passport), METADATA_IDENTIFIER))
    return _with_files(
        pack(model),
        {
            provenance.LABELS_FILE: provenance.write_labels(class_names),
            provenance.PASSPORT_FILE: provenance.write_passport(passport),
        },
    )


def _describe_tensors(model: Any, postprocess: Postprocess | None) -> None:
    """Give the outputs the order, names and shapes that the published TF1 files have.

    Widely copied scripts go by the names: `StatefulPartitionedCall` means TF2's order to them. The
    converter leaves the shapes of its operator to the interpreter.
    """
    (graph,) = model.subgraphs
    graph.outputs = list(postprocess.outputs) if postprocess else _outputs_by_role(graph)
    for port, index in enumerate(graph.outputs):
        graph.tensors[index].name = f"{POSTPROCESS}:{port}" if port else POSTPROCESS
        if postprocess is not None:
            graph.tensors[index].shape = postprocess.shapes[port]
    (image,) = graph.inputs
    graph.tensors[image].name = INPUT_NAME
    for signature in model.signatureDefs or ():
        signature.inputs[0].name = INPUT_NAME
        signature.outputs = [
            _tensor_map(name, index)
            for name, index in zip(SIGNATURE_NAMES, graph.outputs, strict=True)
        ]


def _outputs_by_role(graph: Any) -> list[int]:
    named = {bytes(graph.tensors[index].name).decode(): index for index in graph.outputs}
    missing = [role for role in ROLES if role not in named]
    if missing:
        raise ValueError(f"the model does not end in detections: it has no output {missing[0]}")
    return [named[role] for role in ROLES]


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


def pack(model: Any) -> bytes:
    """The bytes of a `schema.ModelT`, whose buffers are taken over."""
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


def _model_metadata(postprocess: Postprocess | None, passport: Mapping[str, str]) -> Slots:
    every_class = postprocess is None or postprocess.safe_threads(2) == 2
    return {
        MODEL["name"]: "odtrain object detector",
        MODEL["description"]: DESCRIPTION + ("" if every_class else THREADS_WARNING),
        MODEL["subgraphs"]: [
            {
                SUBGRAPH["inputs"]: [_image(passport.get(provenance.RESIZE, resizing.STRETCH))],
                SUBGRAPH["outputs"]: [_output(role) for role in ROLES],
            }
        ],
        MODEL["files"]: [
            _file(provenance.PASSPORT_FILE, "Run, data and version of this model.", DESCRIPTIONS)
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
        slots[TENSOR["files"]] = [_file(provenance.LABELS_FILE, names, TENSOR_VALUE_LABELS)]
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
    resizing.STRETCH: "resized without keeping its aspect ratio",
    **{
        how: "resized keeping its aspect ratio, at the top left; the rest is {} {} {}".format(
            *map(round, colour)
        )
        for how, colour in resizing.FILLS.items()
    },
}

OUTPUT_DESCRIPTIONS = {
    BOXES: "Boxes of the objects, ymin xmin ymax xmax as fractions of the picture.",
    CLASSES: "Category of each box, counted from 0.",
    SCORES: "Score of each box, 0 to 1, best first.",
    COUNT: "How many of the boxes are detections; the rest is padding.",
}
